// The first view: what to type, recent searches, and the keys.

import { ApiError, call } from "./api.js";
import { button, el } from "./dom.js";
import { forgetSearches, recentSearches } from "./recent.js";

const ANY = ["a dog runs on the beach", "someone blows out candles", "a train leaves at night"]; // where the library gives none
const KEYS = { "/": "search", "← ↑ ↓ →": "move", Space: "preview", Enter: "open" };

// view: the view to search; search(address): searches for the query of an address ("?q=…")
export function welcome({ view, search }) {
  const examples = el("div", { class: "choices examples", role: "group", "aria-label": "Examples" });
  const show = (texts) =>
    examples.replaceChildren(...texts.map((text) => choice(text, `?${new URLSearchParams({ q: text })}`, search)));
  examplesOf(view).then(show);
  return [
    el("h2", {}, "Describe what happens in a video."),
    el("p", {}, "Type a sentence to find matching moments, or drop a video or a picture on this page."),
    examples,
    recent(search),
    el("p", { class: "keys" }, ...Object.entries(KEYS).map(([key, does]) => keyHint(key, does))),
  ];
}

// Promises sentences that find something in the library, or any if there are none.
async function examplesOf(view) {
  try {
    const { seen, said } = await call(`api/views/${encodeURIComponent(view.id)}/examples`);
    return seen.length + said.length ? [...seen, ...said] : ANY;
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    return ANY;
  }
}

function recent(search) {
  const searches = recentSearches();
  const forget = button("Clear", () => {
    forgetSearches();
    shown.remove();
  });
  forget.className = "link";
  const heading = el("h3", {}, "Recent searches ", forget);
  const choices = searches.map(({ title, address }) => choice(title, address, search));
  const shown = el("section", { class: "recent", hidden: !searches.length }, heading, el("div", { class: "choices" }, ...choices));
  return shown;
}

const choice = (text, address, search) => el("button", { type: "button", class: "choice", onclick: () => search(address) }, text);

const keyHint = (key, does) => el("span", {}, el("kbd", { class: "hint" }, key), ` ${does}`);
