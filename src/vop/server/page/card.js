// A search result: the frames of the moment, its name and folder, and its rank in another view.

import { clock, count, day, el, folderOf, icon, shortFolder, timeRange } from "./dom.js";
import { matchedBy } from "./words.js";

const FRAMES = 4; // of a strip, side by side
const NARROW = 8 / 9; // width over height of a frame: narrower frames are larger in one row than in two

// Returns an <li> with the property `moment`, which `updateCard` replaces.
// actions: open(moment), like(moment), folder(path), favourite(moment), which returns a button or nothing; preview: a Preview
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
  card.found = el("div", { class: "found" });
  card.append(card.film, caption(moment, actions), card.found);
  updateCard(card, moment);
  return card;
}

// Shows a moment on the card of the same moment in an earlier search, where it may have had another score.
export function updateCard(card, moment) {
  card.moment = moment;
  card.film.setAttribute("aria-label", `Play ${moment.name}, ${timeRange(moment)}`);
  card.film.title = howSimilar(moment);
  card.classList.toggle("weak", moment.is_weak);
  const parts = [matched(moment), copies(moment)];
  card.found.replaceChildren(...parts.filter(Boolean));
}

// For those who want to know more than the order. A moment that no search has found has a score of 0, and that of a moment
// that matches only by its words may be that of the words.
export function howSimilar({ score, confidence, matched }) {
  const parts = [score && matched.includes("seen") && `similarity ${score.toFixed(3)}`, confidence != null && `confidence ${Math.round(100 * confidence)} %`];
  return parts.filter(Boolean).join(", ");
}

// The strip's frames fill a tile that has the same shape for all videos: upright frames in one row, others in two.
// Both rows show the same picture.
export function makeFilm(moment) {
  const picture = { src: moment.strip_url, alt: "", decoding: "async", loading: "lazy", draggable: "false" };
  const [image, again] = [el("img", picture), el("img", picture)];
  const strip = el("span", { class: "strip" }, el("span", { class: "row" }, image), el("span", { class: "row" }, again));
  const film = el("button", { type: "button", class: "film" }, strip);
  image.addEventListener("load", () => {
    const shape = image.naturalWidth / FRAMES / image.naturalHeight;
    film.style.setProperty("--frame", shape);
    film.classList.add("loaded");
    film.classList.toggle("upright", shape < NARROW);
  });
  image.addEventListener("error", () => film.classList.add("bare"));
  return film;
}

function caption(moment, actions) {
  const where = [
    el("span", { class: "time" }, timeRange(moment)),
    el("span", { class: "length" }, `of ${clock(Math.max(1, Math.round(moment.duration_seconds)))}`),
    el("span", { class: "date" }, day(moment.date)),
    folderButton(moment, actions),
  ];
  const words = el("span", { class: "words" }, "More like this");
  const like = { type: "button", class: "link like", title: "More like this", onclick: () => actions.like(moment) };
  const mark = el("span", { class: "mark", role: "img", hidden: true });
  const side = [mark, el("button", like, icon("similar"), words), actions.favourite(moment)].filter(Boolean);
  return el(
    "div",
    { class: "caption" },
    el("span", { class: "name", dir: "auto", title: moment.path }, moment.name),
    el("span", { class: "side" }, ...side),
    el("span", { class: "where" }, ...where),
  );
}

// What matches, and the line if words do. Where all results are only seen, the page does not say so.
function matched(moment) {
  const { line } = moment;
  const { words, title } = matchedBy(moment);
  const kind = el("span", { class: "kind", title }, words);
  if (!line) return el("p", { class: "matched only-seen" }, kind);
  return el("p", { class: "matched" }, kind, " ", el("q", { title: `${clock(line.start_seconds)}, ${line.source}` }, line.text));
}

function copies({ copies = [] }) {
  if (!copies.length) return null;
  return el("p", { class: "copies", title: copies.join("\n") }, `and ${count(copies.length, "near-duplicate")}`);
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
