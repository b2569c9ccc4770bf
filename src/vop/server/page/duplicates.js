// The near-duplicates of a library in groups, best version first, from which an owner can decide what to keep.

import { ApiError, call } from "./api.js";
import { makeFilm } from "./card.js";
import { button, clock, copyButton, count, day, el, fileSize, shortFolder } from "./dom.js";
import { duplicatesPath } from "./query.js";

const GROUPS = 20; // of a request

export class DuplicatesView {
  #shown = ""; // the library that is shown
  #groups = 0; // that are listed

  // open(segment): plays it; said(text): the counts
  constructor({ open, said }) {
    this.open = open;
    this.said = said;
    const about = "Videos that show the same: re-encoded, resized or cut. A search shows only the best. Nothing is deleted here.";
    this.about = el("p", { class: "about", hidden: true }, about);
    this.list = el("ol", { class: "groups", "aria-label": "Near-duplicates" });
    this.message = el("p", { class: "message", role: "status", hidden: true });
    this.more = button("Show more", () => this.#load(), { class: "button more", hidden: true });
    const title = el("h2", {}, "Near-duplicates");
    this.node = el("section", { class: "duplicates", hidden: true }, title, this.about, this.message, this.list, this.more);
  }

  async show(view) {
    this.hide();
    this.node.hidden = false;
    this.#shown = view.library;
    await this.#load();
  }

  hide() {
    this.#shown = "";
    this.#groups = 0;
    this.list.replaceChildren();
    for (const part of [this.node, this.about, this.message, this.more]) part.hidden = true;
  }

  async #load() {
    const library = this.#shown;
    try {
      const found = await call(duplicatesPath(library, { skip: this.#groups, k: GROUPS }));
      if (library !== this.#shown) return;
      this.message.hidden = true;
      this.#append(found);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      if (library === this.#shown) this.#say(error.message, button("Try again", () => this.#load()));
    }
  }

  #append({ groups, total, ...numbers }) {
    this.#groups += groups.length;
    this.list.append(...groups.map((group) => makeGroup(group, this.open)));
    this.more.hidden = !groups.length || this.#groups >= total;
    this.about.hidden = !total;
    this.said(total ? summary(total, numbers) : "");
    if (!total && numbers.were_compared) this.#say("No two videos of this library show the same.");
    if (!total && !numbers.were_compared) this.#say("The videos have not been compared yet. The next indexing compares them.");
  }

  #say(sentence, ...more) {
    this.message.replaceChildren(sentence, ...more);
    this.message.hidden = false;
  }
}

function summary(total, { near_duplicates: near, parts, exact_copies: exact }) {
  const further = [
    near && count(near, "near-duplicate"),
    parts && count(parts, "cut"),
    exact && count(exact, "exact copy", "exact copies"),
  ];
  return [count(total, "group"), ...further.filter(Boolean)].join(" · ");
}

function makeGroup({ videos, parts }, open) {
  const [best, ...others] = videos;
  const versions = [makeVersion(best, open, videos.length > 1 ? "Best version" : ""), ...[...others, ...parts].map((version) => makeVersion(version, open))];
  return el("li", { class: "group" }, el("ul", { class: "versions", "aria-label": `Versions of ${best.name}` }, ...versions));
}

function makeVersion(version, open, label = "") {
  const { path, name, size, width, height, duration_seconds: seconds, date, exact_copies: copies } = version;
  const film = makeFilm(version);
  film.setAttribute("aria-label", `Play ${name}`);
  film.addEventListener("click", () => open(version.segment));
  const facts = [width && `${width} × ${height}`, fileSize(size), clock(Math.round(seconds)), day(date), shortFolder(path)];
  return el(
    "li",
    { class: "version" },
    film,
    el(
      "div",
      {},
      el("p", { class: "name", title: path }, el("bdi", {}, name), label ? el("span", { class: "mark" }, label) : null),
      el("p", { class: "facts" }, ...facts.filter(Boolean).map((fact) => el("span", {}, fact))),
      version.part_of == null ? null : el("p", { class: "facts" }, `A cut of ${version.part_of.split("/").at(-1)}, from ${clock(version.start_seconds)}`),
      ...copies.map((copy) => el("p", { class: "facts" }, `The same file again: ${copy}`)),
    ),
    copyButton("Copy path", () => path),
  );
}
