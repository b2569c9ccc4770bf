// The results of one view: a list that is updated in place, or a message.

import { call } from "./api.js";
import { makeCard, updateCard } from "./card.js";
import { button, el } from "./dom.js";
import { isFiltered, momentsPath, requestPath } from "./query.js";
import { hasWords, tuning } from "./words.js";

export class Column {
  moments = [];
  response = null;
  failed = false;
  #search = null; // the query and the uploaded file of the results

  // page: {actions: open(moment, column), like(moment, column), folder(path), preview, retry(), clearFilters()}
  constructor(view, page) {
    this.view = view;
    this.page = page;
    this.preview = page.preview;
    const { open, like, favourite } = page.actions;
    this.actions = {
      ...page.actions,
      open: (moment) => open(moment, this),
      like: (moment) => like(moment, this),
      favourite: (moment) => favourite(moment, this),
    };
    this.heading = el("h2", { class: "heading" }, view.id, el("span", {}, tuning(view)));
    this.message = el("div", { class: "message", hidden: true });
    this.list = el("ol", { class: "results", "aria-label": `Results of ${view.id}` });
    this.node = el("section", { class: "column" }, this.heading, this.message, this.list);
  }

  // Whether words match, too, so that the page says what matches.
  get hasWords() {
    return hasWords(this.moments);
  }

  get cards() {
    return [...this.list.querySelectorAll(".card")];
  }

  // The moment `step` places after this one, or undefined.
  neighbour(moment, step) {
    return this.moments[this.moments.findIndex(({ segment }) => segment === moment.segment) + step];
  }

  // Promises all moments of the video of a moment that match the query of the results, in order of time.
  async momentsOf({ video }, { signal }) {
    const { query, body } = this.#search;
    const { results } = await call(momentsPath(query, this.view.id, video), { signal, body });
    return results.sort((one, other) => one.start_seconds - other.start_seconds);
  }

  // Throws an AbortError when the signal is aborted; shows any other error.
  async load(query, { signal, body }) {
    this.#search = { query, body };
    this.failed = false;
    const onWait = (seconds) => this.#say([`The server is busy. Trying again in ${Math.max(1, Math.round(seconds))} s …`]);
    try {
      this.response = await call(requestPath(query, this.view.id), { signal, body, onWait });
      this.#show(query);
    } catch (error) {
      if (error.name === "AbortError") throw error;
      this.#fail(error.message);
    }
  }

  // The card of a moment that was at the same place before stays, so that it keeps the focus and continues to play.
  #show(query) {
    this.moments = this.response.results;
    const { cards } = this;
    const nodes = this.moments.map((moment, place) => {
      const card = cards[place];
      if (!card || keyOf(card.moment) !== keyOf(moment)) return makeCard(moment, this);
      updateCard(card, moment);
      return card;
    });
    const strong = this.moments.findLastIndex(({ is_weak }) => !is_weak) + 1;
    if (strong < nodes.length) nodes.splice(strong, 0, makeDivider(strong));
    arrange(this.list, nodes);
    this.list.classList.toggle("with-words", this.hasWords);
    this.message.hidden = true;
    if (!this.moments.length) this.#sayNothingFound(query);
  }

  #sayNothingFound(query) {
    if (!isFiltered(query)) return this.#say(["No moments found."]);
    this.#say(["No moments match the filters.", button("Clear filters", this.page.clearFilters)]);
  }

  #fail(sentence) {
    this.failed = true;
    this.moments = [];
    this.list.replaceChildren();
    this.#say([sentence, button("Try again", this.page.retry)]);
    this.message.setAttribute("role", "alert");
  }

  #say([sentence, ...more]) {
    this.message.removeAttribute("role");
    this.message.replaceChildren(el("p", {}, sentence), ...more);
    this.message.hidden = false;
  }
}

const keyOf = ({ segment, path }) => `${segment}\n${path}`;

const makeDivider = (strong) => el("li", { class: "divider" }, strong ? "Weaker matches" : "Nothing matches well. Weaker matches:");

// Makes `nodes` the children of a list, and moves none that is there already.
function arrange(list, nodes) {
  const kept = new Set(nodes);
  for (const node of [...list.children]) if (!kept.has(node)) node.remove();
  nodes.forEach((node, place) => {
    if (list.children[place] !== node) list.insertBefore(node, list.children[place] ?? null);
  });
}
