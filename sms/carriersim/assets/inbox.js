// Shows what arrives as it arrives, sends forms without leaving the page, and copies what is clicked. Without this script the page reloads itself.
"use strict";
const said = document.getElementById("said");
const live = document.getElementById("live");
let quiet;

// say tells in a line that goes by itself; what is to be seen anyway is for screen readers alone.
function say(text, unseen) {
  said.textContent = text;
  said.classList.toggle("unseen", Boolean(unseen));
  clearTimeout(quiet);
  quiet = setTimeout(() => { said.textContent = ""; }, 5000);
}

// copiable turns what is worth copying into buttons.
function copiable(root) {
  for (const element of root.querySelectorAll("[data-copy]")) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "copy " + element.localName;
    button.title = "Copy";
    button.textContent = element.textContent;
    element.replaceWith(button);
  }
}

// morph makes one element like another and keeps whatever is alike already, so that nobody loses the focus, a word half written or something opened.
function morph(old, next) {
  for (const { name } of [...old.attributes]) {
    if (name !== "open" && !next.hasAttribute(name)) old.removeAttribute(name);
  }
  for (const { name, value } of next.attributes) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  const keyed = new Map([...old.children].filter((child) => child.dataset.key).map((child) => [child.dataset.key, child]));
  let at = old.firstChild;
  for (const node of [...next.childNodes]) {
    let same = keyed.get(node.dataset?.key);
    if (!same && at && !node.dataset?.key && !at.dataset?.key && at.nodeName === node.nodeName) same = at;
    if (!same) {
      old.insertBefore(node, at);
      continue;
    }
    if (same === at) at = at.nextSibling;
    else old.insertBefore(same, at);
    if (same.nodeType === Node.ELEMENT_NODE) morph(same, node);
    else if (same.data !== node.data) same.data = node.data;
  }
  while (at) {
    const after = at.nextSibling;
    at.remove();
    at = after;
  }
}

function show(html) {
  const next = new DOMParser().parseFromString(html, "text/html");
  const focus = document.activeElement;
  const inbox = document.getElementById("inbox");
  const { newest, news } = next.getElementById("inbox").dataset;
  if (news && newest !== inbox.dataset.newest) say(news, true);
  copiable(next);
  for (const id of ["inbox", "vendors"]) morph(document.getElementById(id), next.getElementById(id));
  if (focus.isConnected && focus !== document.activeElement) focus.focus({ preventScroll: true });
}

let looking = false;
let again = false;

// look fetches the page, and once more when something happened meanwhile.
async function look() {
  again = true;
  if (looking) return;
  looking = true;
  try {
    while (again) {
      again = false;
      const answer = await fetch(location.href);
      if (answer.ok) show(await answer.text());
    }
  } catch {
    // The events tell when the simulator is back.
  } finally {
    looking = false;
  }
}

function listen() {
  const events = new EventSource("/events");
  live.hidden = false;
  live.textContent = "Connecting";
  events.onopen = () => { live.textContent = "Live"; live.classList.add("on"); };
  events.onmessage = look;
  events.onerror = () => {
    live.textContent = "Not connected";
    live.classList.remove("on");
    if (events.readyState === EventSource.CLOSED) setTimeout(() => { look(); listen(); }, 5000);
  };
}

document.addEventListener("submit", async (event) => {
  event.preventDefault();
  const form = event.target;
  const body = new URLSearchParams(new FormData(form, event.submitter));
  try {
    const answer = await fetch(form.action, { method: "POST", body, redirect: "manual" });
    if (answer.type !== "opaqueredirect" && !answer.ok) {
      say((await answer.json()).error);
      return;
    }
    HTMLFormElement.prototype.reset.call(form); // form.reset may be a button of that name
    await look();
  } catch {
    say("The simulator does not answer.");
  }
});

document.addEventListener("click", async (event) => {
  const button = event.target.closest("button.copy");
  if (!button) return;
  const text = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
  } catch { // only secure pages have a clipboard
    const field = document.createElement("textarea");
    field.value = text;
    document.body.append(field);
    field.select();
    document.execCommand("copy");
    field.remove();
    button.focus();
  }
  say(text.length > 40 ? "Copied" : "Copied " + text);
});

copiable(document);
listen();
