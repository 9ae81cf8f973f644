// Comfort only: every page works without this file.
"use strict";
(() => {
  const summary = document.getElementById("summary");
  if (summary) summary.focus();

  for (const time of document.querySelectorAll("time[datetime]")) {
    const at = new Date(time.dateTime);
    const lang = document.documentElement.lang;
    if (isNaN(at)) continue;
    if (time.dataset.show === "date") time.textContent = at.toLocaleDateString(lang, { dateStyle: "medium" });
    else if (time.dataset.show === "moment") time.textContent = at.toLocaleString(lang, { dateStyle: "medium", timeStyle: "short" });
    else time.textContent = at.toLocaleTimeString(lang, { hour: "2-digit", minute: "2-digit" });
  }

  for (const button of document.querySelectorAll("button.reveal")) {
    const field = document.getElementById(button.getAttribute("aria-controls"));
    const show = (shown) => {
      field.type = shown ? "text" : "password";
      button.setAttribute("aria-pressed", String(shown));
      button.textContent = shown ? button.dataset.hide : button.dataset.show;
    };
    button.hidden = false;
    button.addEventListener("click", () => show(field.type === "password"));
    field.form.addEventListener("submit", () => show(false));
  }

  for (const button of document.querySelectorAll("button.print")) {
    button.hidden = false;
    button.addEventListener("click", () => print());
  }
  for (const button of document.querySelectorAll("button.copy")) {
    if (!navigator.clipboard) break;
    button.hidden = false;
    button.addEventListener("click", () => navigator.clipboard.writeText(document.getElementById(button.dataset.copy).innerText.trim())
      .then(() => { document.getElementById("status").textContent = button.dataset.done; }).catch(() => {}));
  }

  let reading; // the browser's own look at the text message
  for (const form of document.querySelectorAll("form[data-working]")) {
    form.addEventListener("submit", (event) => {
      const button = event.submitter || form.querySelector("button[type=submit]");
      if (button.getAttribute("aria-disabled") === "true") { event.preventDefault(); return; }
      if (reading) reading.abort();
      button.setAttribute("aria-disabled", "true");
      button.textContent = form.dataset.working;
    });
  }
  addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });

  const code = document.querySelector("form[data-poll] input[autocomplete=one-time-code]");
  if (code && "OTPCredential" in window) {
    reading = new AbortController();
    navigator.credentials.get({ otp: { transport: ["sms"] }, signal: reading.signal })
      .then((otp) => { if (otp && !code.value) code.value = otp.code; }) // filled in, never sent
      .catch(() => {});
  }

  const polled = document.querySelector("form[data-poll]");
  if (polled) {
    const end = Date.parse(polled.dataset.expires);
    const shown = { problem: Boolean(document.querySelector(".fault")), notice: Boolean(document.querySelector(".notice")) };
    const look = async () => {
      if (Date.now() > end) { location.reload(); return; }
      try {
        const answer = await fetch(polled.dataset.poll, { headers: { Accept: "application/json" } });
        if (answer.ok) {
          const state = await answer.json();
          if (!state.due || (state.problem && !shown.problem) || (state.notice && !shown.notice)) {
            if (!code || !code.value) { location.reload(); return; }
          }
        }
      } catch { /* the network is away: look again */ }
      setTimeout(look, 5000);
    };
    setTimeout(look, 3000);
  }

  const answer = document.querySelector("form[data-send]");
  if (answer) answer.submit();
})();
