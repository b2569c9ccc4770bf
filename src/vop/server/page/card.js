// A search result: its thumbnail strip, name and folder, and its rank in another view.

import { clock, el, folderOf, shortFolder, timeRange } from "./dom.js";

// Returns an <li> with the property `moment`, which `updateCard` replaces.
// actions: open(moment), like(moment), folder(path); preview: a Preview
export function makeCard(moment, { actions, preview }) {
  const card = el("li", { class: "card", "data-video": moment.video });
  card.moment = moment;
  card.film = makeFilm(moment);
  card.film.addEventListener("click", () => actions.open(card.moment));
  card.film.addEventListener("keydown", (event) => {
    if (event.key === "Escape") preview.stop(card.film);
    if (event.key !== " ") return;
    event.preventDefault(); // it would click the button
    if (!event.repeat) preview.toggle(card.film, card.moment);
  });
  card.film.addEventListener("keyup", (event) => event.key === " " && event.preventDefault());
  preview.watch(card.film, () => card.moment);
  card.append(card.film, caption(moment, actions));
  updateCard(card, moment);
  return card;
}

// Shows a moment on the card of the same moment in an earlier search, where it may have had another score.
export function updateCard(card, moment) {
  card.moment = moment;
  const score = moment.score.toFixed(3);
  card.querySelector(".score").textContent = score;
  card.film.setAttribute("aria-label", `Play ${moment.name}, ${timeRange(moment)}, score ${score}`);
}

function makeFilm(moment) {
  const image = el("img", { src: moment.strip_url, alt: "", decoding: "async", loading: "lazy", draggable: "false" });
  const film = el("button", { type: "button", class: "film" }, el("span", { class: "strip" }, image));
  image.addEventListener("load", () => {
    film.classList.add("loaded");
    film.style.setProperty("--cell", image.naturalWidth / 4 / image.naturalHeight);
  });
  image.addEventListener("error", () => film.classList.add("bare"));
  return film;
}

function caption(moment, actions) {
  const where = [
    el("span", { class: "time" }, timeRange(moment)),
    el("span", { class: "length" }, `of ${clock(Math.max(1, Math.round(moment.duration_seconds)))}`),
    folderButton(moment, actions),
  ];
  const side = [
    el("span", { class: "mark", role: "img", hidden: true }),
    el("button", { type: "button", class: "link like", onclick: () => actions.like(moment) }, "More like this"),
  ];
  return el(
    "div",
    { class: "caption" },
    el("span", { class: "name", title: moment.path }, moment.name),
    el("span", { class: "score", title: "Similarity (cosine)" }),
    el("span", { class: "where" }, ...where),
    el("span", { class: "side" }, ...side),
  );
}

function folderButton(moment, actions) {
  const folder = folderOf(moment.path);
  const button = { type: "button", class: "link folder", title: `Search only in ${folder}`, onclick: () => actions.folder(folder) };
  return el("button", button, shortFolder(moment.path));
}

// Marks on each card how its rank differs from that in `others`, the moments of the view `name`. Null removes the marks.
export function markCards(cards, others, name) {
  const places = new Map(others?.map((moment, place) => [moment.video, place]));
  cards.forEach((card, place) => {
    const mark = card.querySelector(".mark");
    mark.hidden = !others;
    if (others) setMark(mark, place, places.get(card.moment.video), name, others.length);
  });
}

function setMark(mark, here, there, name, length) {
  const kind = there === undefined ? "only" : there > here ? "up" : there < here ? "down" : "same";
  const step = Math.abs(there - here);
  mark.className = `mark ${kind}`;
  mark.textContent = { only: "only here", up: `▲ ${step}`, down: `▼ ${step}`, same: "=" }[kind];
  mark.title = {
    only: `Not among the first ${length} results of ${name}`,
    up: `Ranks ${step} higher than in ${name} (there: number ${there + 1})`,
    down: `Ranks ${step} lower than in ${name} (there: number ${there + 1})`,
    same: `Number ${here + 1} in ${name} too`,
  }[kind];
  mark.setAttribute("aria-label", mark.title);
}
