// All videos of a library by date, when the query has neither sentences nor an example; and the folders they are in.

import { ApiError, call } from "./api.js";
import { makeCard } from "./card.js";
import { button, count, el } from "./dom.js";
import { Grid } from "./grid.js";
import { browsePath, DUPLICATES } from "./query.js";

export class Browser {
  #grid = null;
  #shown = ""; // what is shown: the paths of its requests
  moments = []; // has no neighbours for the player

  // page: {actions: open(moment, column), like(moment, column), folder(path), duplicates(), preview}; said(text): its count
  constructor(page, said) {
    this.page = page;
    this.preview = page.preview;
    this.said = said;
    const { open, like, favourite } = page.actions;
    this.actions = {
      ...page.actions,
      open: (moment) => open(moment, this),
      like: (moment) => like(moment, this),
      favourite: (moment) => favourite(moment, this),
    };
    this.folders = el("nav", { class: "folders", "aria-label": "Folders", hidden: true });
    this.duplicates = el("a", { class: "link" }, "Near-duplicates");
    this.duplicates.addEventListener("click", (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      page.actions.duplicates();
    });
    this.list = el("ol", { class: "results", "aria-label": "Videos" });
    this.message = el("div", { class: "message", role: "alert", hidden: true });
    this.node = el("section", { class: "browser", hidden: true }, el("div", { class: "shelf" }, this.folders, this.duplicates), this.message, this.list);
  }

  // Promises that the first videos are there.
  async show(query, view) {
    this.view = view;
    this.duplicates.href = `?${new URLSearchParams({ view: view.id, show: DUPLICATES })}`;
    const path = browsePath(query, view.library, { skip: "SKIP", limit: "LIMIT" });
    this.node.hidden = false;
    if (this.#shown === path) return this.#say();
    this.hide();
    this.node.hidden = false;
    this.#shown = path;
    this.#grid = new Grid({
      list: this.list,
      load: (skip, limit) => this.#load(query, { skip, limit }),
      make: (moment) => makeCard(moment, this),
      failed: (error) => this.#fail(error),
    });
    const grid = this.#grid;
    this.#showFolders(query.filters.folder);
    await grid.start();
    if (grid === this.#grid) this.#say();
  }

  hide() {
    this.#shown = "";
    this.node.hidden = true;
    this.#grid?.stop();
    this.#grid = null;
    this.list.replaceChildren();
    this.list.removeAttribute("style");
    this.message.hidden = true;
  }

  neighbour() {}

  momentsOf() {}

  async #load(query, { skip, limit }) {
    const { results, total } = await call(browsePath(query, this.view.library, { skip, limit }));
    return { items: results, total };
  }

  #say() {
    if (!this.#grid) return;
    const { total, isComplete } = this.#grid;
    this.said(total ? count(total, "video") : isComplete ? "No videos match the filters." : "");
  }

  #fail(error) {
    if (!(error instanceof ApiError)) throw error;
    this.message.replaceChildren(el("p", {}, error.message), button("Try again", () => this.#retry()));
    this.message.hidden = false;
  }

  async #retry() {
    this.message.hidden = true;
    const grid = this.#grid;
    await grid?.retry();
    if (grid === this.#grid) this.#say();
  }

  // Shows the folders in a folder, each with the number of its videos.
  async #showFolders(folder) {
    const parent = folder.startsWith("/") || folder.includes("://") ? folder : "";
    const url = new URLSearchParams({ parent });
    const shown = this.#shown;
    this.folders.hidden = true;
    try {
      const { folders } = await call(`api/libraries/${encodeURIComponent(this.view.library)}/folders?${url}`);
      if (shown !== this.#shown) return;
      const inner = folders.filter(({ path }) => path !== parent);
      const names = inner.map(({ path, name, total }) =>
        button(`${name} (${total.toLocaleString("en")})`, () => this.page.actions.folder(path), { class: "choice", title: path }),
      );
      this.folders.hidden = !names.length;
      this.folders.replaceChildren(...names);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.folders.hidden = true; // the videos are there without them
    }
  }
}
