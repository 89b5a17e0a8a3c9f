// What the pages do without a reload: they stay up to date, and filters apply when they change.
// Everything works without this file, too.
"use strict";

const EVERY = 3000; // milliseconds between two looks
const SLOWEST = 60000; // between two tries while the server can't be reached

// Makes an element like another one, and keeps every node that is still right: so focus, selection,
// what is open and what is chosen stay.
function become(old, next) {
  if (old.isEqualNode(next)) return;
  if (old.nodeType !== next.nodeType || old.nodeName !== next.nodeName) {
    old.replaceWith(next);
    return;
  }
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.nodeValue !== next.nodeValue) old.nodeValue = next.nodeValue;
    return;
  }
  for (const { name } of [...old.attributes]) {
    if (!next.hasAttribute(name) && name !== "open" && name !== "class") old.removeAttribute(name);
  }
  for (const { name, value } of [...next.attributes]) {
    if (old.getAttribute(name) !== value && name !== "open") old.setAttribute(name, value);
  }
  if (old.hasAttribute("data-keyed")) becomeKeyed(old, next);
  else becomeInOrder(old, next);
}

function becomeInOrder(old, next) {
  const olds = [...old.childNodes];
  const nexts = [...next.childNodes];
  nexts.forEach((one, index) => {
    if (index < olds.length) become(olds[index], one);
    else old.append(one);
  });
  olds.slice(nexts.length).forEach((one) => one.remove());
}

function becomeKeyed(old, next) {
  const known = new Map([...old.children].map((one) => [one.dataset.key, one]));
  let before = null;
  for (const one of [...next.children]) {
    const same = known.get(one.dataset.key);
    known.delete(one.dataset.key);
    const place = before ? before.nextElementSibling : old.firstElementChild;
    if (same) {
      // Moving a node takes the focus from it; it is moved only if it is not there yet.
      if (same !== place) old.insertBefore(same, place);
      become(same, one);
      before = same;
    } else {
      one.classList.add("new");
      old.insertBefore(one, place);
      before = one;
    }
  }
  for (const gone of known.values()) {
    if (gone.contains(document.activeElement)) focusNear(gone);
    gone.remove();
  }
}

function focusNear(gone) {
  const near = gone.nextElementSibling || gone.previousElementSibling;
  const link = near && near.querySelector("a, button, input");
  (link || document.getElementById("main")).focus({ preventScroll: true });
}

// Runs a change of the page, and keeps what the reader looks at where it is.
function inPlace(change) {
  const seen = [...document.querySelectorAll("[data-key]")].find(
    (one) => one.getBoundingClientRect().bottom > 0,
  );
  const top = seen && seen.getBoundingClientRect().top;
  change();
  if (seen && seen.isConnected && window.scrollY > 0) {
    window.scrollBy({ top: seen.getBoundingClientRect().top - top, behavior: "instant" });
  }
}

function stayUpToDate(part) {
  const controls = document.querySelector("[data-live-controls]");
  const note = document.querySelector("[data-live-note]");
  const status = document.querySelector("[data-live-status]");
  const toggle = document.querySelector("[data-live-toggle]");
  let tag = null;
  let wait = EVERY;
  let timer = 0;
  const isOn = () => !toggle || toggle.getAttribute("aria-pressed") === "true";
  const total = () => Number((part.querySelector("[data-total]") || { dataset: {} }).dataset.total);

  async function look() {
    const headers = tag ? { "if-none-match": tag } : {};
    const answer = await fetch(location.href, { headers, cache: "no-store" });
    if (answer.status === 304) return;
    if (!answer.ok) throw new Error(answer.status === 401 ? "signed out" : "failed");
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const before = total();
    inPlace(() => become(part, document.adoptNode(page.querySelector("[data-live]"))));
    tag = answer.headers.get("etag");
    const more = total() - before;
    if (more > 0) status.textContent = more === 1 ? "1 is new" : `${more} are new`;
  }

  async function again() {
    clearTimeout(timer);
    if (document.hidden || !isOn()) return;
    try {
      await look();
      wait = EVERY;
      note.textContent = "";
    } catch (error) {
      if (error.message === "signed out") {
        note.textContent = "reload the page to sign in again";
        return;
      }
      wait = Math.min(SLOWEST, 2 * wait);
      note.textContent = "not reached; it is tried again";
    }
    timer = setTimeout(again, wait);
  }

  controls.hidden = false;
  toggle.addEventListener("click", () => {
    toggle.setAttribute("aria-pressed", String(!isOn()));
    note.textContent = isOn() ? "" : "paused";
    again();
  });
  document.addEventListener("visibilitychange", again);
  timer = setTimeout(again, EVERY);
}

function submitOnChange(form) {
  form.addEventListener("change", (event) => {
    if (event.target.tagName === "SELECT" || event.target.type === "date") form.requestSubmit();
  });
  // An address without empty fields can be read, and sent to others.
  form.addEventListener("submit", () => {
    for (const field of form.elements) if (!field.value) field.disabled = true;
  });
  // Whoever comes back finds them as they were.
  window.addEventListener("pageshow", () => {
    for (const field of form.elements) field.disabled = false;
  });
}

const part = document.querySelector("[data-live]");
if (part && document.querySelector("[data-live-controls]")) stayUpToDate(part);
document.querySelectorAll("[data-submit-on-change]").forEach(submitOnChange);
