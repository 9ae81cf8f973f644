// Shows what arrives as it arrives. Without this script the page reloads itself.
"use strict";
const events = new EventSource("/events");
let first = true;
events.onmessage = async () => {
  if (first) { first = false; return; }
  const answer = await fetch("/");
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  document.getElementById("inbox").replaceChildren(...page.getElementById("inbox").childNodes);
};
