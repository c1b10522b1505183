// The pages work without this script. It keeps them current, and counts the ticked sources.
"use strict";

const main = () => document.getElementById("main");
const here = () => location.origin + location.pathname + location.search; // without a password of the address

// Relative times grow older without a request.
function age(stamp, lag) {
  const s = (Date.now() - Date.parse(stamp)) / 1000, n = Math.abs(s);
  const text = n < 1 ? "a moment" : n < 120 ? `${Math.floor(n)} s` : n < 7200 ? `${Math.floor(n / 60)} min`
    : n < 172800 ? `${Math.floor(n / 3600)} h` : `${Math.floor(n / 86400).toLocaleString("en-US")} days`;
  if (lag) return n < 1 ? "0 s" : text;
  return s < 0 ? `in ${text}` : `${text} ago`;
}
function refreshTimes() {
  for (const t of main().querySelectorAll("time")) {
    const text = age(t.dateTime, t.className === "lag");
    if (t.textContent !== text) t.textContent = text;
  }
}

// A person who has ticked boxes or is typing keeps the page as it is.
const busy = () => main().querySelector("input:checked") !== null || main().contains(document.activeElement) &&
  document.activeElement.matches("input, select");

function replace(html) {
  const next = new DOMParser().parseFromString(html, "text/html"), fresh = next.getElementById("main");
  if (fresh === null) return;
  const open = [...main().querySelectorAll("details[open]")].map(d => d.id), focus = place(document.activeElement);
  document.title = next.title;
  main().replaceWith(fresh);
  for (const id of open) document.getElementById(id)?.setAttribute("open", "");
  if (focus !== null) [...main().querySelectorAll(focus.selector)][focus.index]?.focus({ preventScroll: true });
  begin();
}

// place names the element with the focus, so that the same one gets the focus in the new content.
function place(e) {
  if (!e || !main().contains(e) || e === main()) return null;
  const href = e.getAttribute("href"), selector = href === null ? e.localName : `${e.localName}[href="${CSS.escape(href)}"]`;
  return { selector, index: [...main().querySelectorAll(selector)].indexOf(e) };
}

let reading = false, again = false, last = 0;
async function refresh() {
  if (reading || document.hidden || busy()) { again = true; return; }
  reading = true;
  again = false;
  last = Date.now();
  try {
    const answer = await fetch(here(), { headers: { Accept: "text/html" }, cache: "no-store" });
    if (answer.ok) replace(await answer.text());
    main().classList.toggle("stale", !answer.ok);
    say(answer.ok ? "live" : `kbsync answers with ${answer.status}`);
  } catch {
    say("kbsync does not answer");
    main().classList.add("stale");
  } finally {
    reading = false;
  }
}

function say(text) {
  const live = document.getElementById("live");
  if (live !== null && live.textContent !== text) live.textContent = text;
}

function follow() {
  const since = main().dataset.live, events = new EventSource(`${location.origin}/events?since=${since}`);
  let known = since !== ""; // else the first event names the content that the page has just shown
  events.addEventListener("open", () => say("live"));
  events.addEventListener("change", () => {
    if (!known) { known = true; return; }
    if (Date.now() - last > 4000) refresh(); else again = true;
  });
  events.addEventListener("error", () => {
    if (events.readyState === EventSource.CLOSED) { // refused: read the page again instead
      setInterval(refresh, 30000);
    }
  });
}

function begin() {
  refreshTimes();
  for (const form of main().querySelectorAll(".worksheet")) {
    const count = () => {
      const n = form.querySelectorAll("input[type=checkbox]:checked").length;
      form.querySelector(".ticked").textContent = n === 0 ? "" : `${n} ticked`;
    };
    form.addEventListener("change", count);
    count();
  }
}

begin();
if (main().hasAttribute("data-live")) {
  follow();
  setInterval(() => { refreshTimes(); if (again && Date.now() - last > 4000) refresh(); }, 5000);
  document.addEventListener("visibilitychange", () => { if (!document.hidden && again) refresh(); });
}
