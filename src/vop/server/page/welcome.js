// The first view: what to type, recent searches, and the keys.

import { button, el } from "./dom.js";
import { forgetSearches, recentSearches } from "./recent.js";

const EXAMPLES = ["a dog runs on the beach", "someone blows out candles", "a train leaves at night"];
const KEYS = { "/": "search", "← ↑ ↓ →": "move", Space: "preview", Enter: "open" };

// search(address): searches for the query of an address ("?q=…")
export function welcome({ search }) {
  const examples = EXAMPLES.map((text) => choice(text, `?${new URLSearchParams({ q: text })}`, search));
  return [
    el("h2", {}, "Describe what happens in a video."),
    el("p", {}, "Type a sentence to find matching moments, or drop a video or a picture on this page."),
    el("div", { class: "choices", role: "group", "aria-label": "Examples" }, ...examples),
    recent(search),
    el("p", { class: "keys" }, ...Object.entries(KEYS).map(([key, does]) => keyHint(key, does))),
  ];
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
