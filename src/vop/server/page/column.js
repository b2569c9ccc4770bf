// The results of one view: a list that is updated in place, or a message.

import { call } from "./api.js";
import { makeCard, updateCard } from "./card.js";
import { button, el } from "./dom.js";
import { isFiltered, requestPath } from "./query.js";
import { tuning } from "./words.js";

export class Column {
  moments = [];
  response = null;
  failed = false;

  // page: {actions: open(moment, column), like(moment, column), folder(path), preview, retry(), clearFilters()}
  constructor(view, page) {
    this.view = view;
    this.page = page;
    this.preview = page.preview;
    const { open, like } = page.actions;
    this.actions = { ...page.actions, open: (moment) => open(moment, this), like: (moment) => like(moment, this) };
    this.heading = el("h2", { class: "heading" }, view.id, el("span", {}, tuning(view)));
    this.message = el("div", { class: "message", hidden: true });
    this.list = el("ol", { class: "results", "aria-label": `Results of ${view.id}` });
    this.node = el("section", { class: "column" }, this.heading, this.message, this.list);
  }

  get cards() {
    return [...this.list.children];
  }

  // The moment `step` places after this one, or undefined.
  neighbour(moment, step) {
    return this.moments[this.moments.findIndex(({ segment }) => segment === moment.segment) + step];
  }

  // Throws an AbortError when the signal is aborted; shows any other error.
  async load(query, { signal, body }) {
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

  #show(query) {
    this.moments = this.response.results;
    // Unchanged cards are not replaced, so that they keep the focus and continue to play.
    this.moments.forEach((moment, place) => {
      const there = this.list.children[place];
      if (there && keyOf(there.moment) === keyOf(moment)) return updateCard(there, moment);
      const card = makeCard(moment, this);
      if (there) there.replaceWith(card);
      else this.list.append(card);
    });
    while (this.list.children.length > this.moments.length) this.list.lastChild.remove();
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
