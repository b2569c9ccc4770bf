// The page. The address holds the query, and every change of the query goes through `ask`.

import { ApiError, call } from "./api.js";
import { Browser } from "./browse.js";
import { Column } from "./column.js";
import { markCards } from "./card.js";
import { button, count, el, get } from "./dom.js";
import { listenForFiles } from "./files.js";
import { DuplicatesView } from "./duplicates.js";
import { FilterBar } from "./filters.js";
import { KeptFiles } from "./kept-files.js";
import { listen } from "./keyboard.js";
import { emptyLibrary, showFailures, showLibrary, showTrouble, watchState } from "./library.js";
import { favouriteButton, tagField } from "./marks.js";
import { addressOf, followLink, overlay, pushOverlay, withoutOverlay } from "./overlay.js";
import { keepPlace, keepPlacesFor, returnToPlace } from "./places.js";
import { Player } from "./player.js";
import { Preview } from "./preview.js";
import { DUPLICATES, isEmpty, isFiltered, noFilters, ORDERS, PAGE_SIZES, readUrl, title, writeUrl } from "./query.js";
import { keepSearch } from "./recent.js";
import { SaveList } from "./save-list.js";
import { Sentences } from "./sentences.js";
import { welcome } from "./welcome.js";
import { tuning } from "./words.js";

let state = null; // the response to /api/state
let query = readUrl(location.search);
let columns = [];
let running = new AbortController();
let shownEntry = ""; // the key of the history entry whose results are shown
let byKeyboard = false; // whether the last input was a key: on a phone, the focus of the field opens a keyboard
const files = new KeptFiles();

const actions = {
  open: (moment, column) => {
    preview.stop();
    player.open(moment, column);
  },
  like: (moment, column) => {
    const label = `like ${moment.name}`;
    const changes = { sentences: [], like: moment.segment, file: "", k: PAGE_SIZES[0] };
    // A library that does not have the moment cannot search with it.
    const own = column?.view ?? view();
    const severalLibraries = columns.some((other) => other.view.library !== own.library);
    const onlyThisView = severalLibraries ? { view: own.id, compare: "" } : {};
    ask({ ...changes, ...onlyThisView }, { label, picture: moment.strip_url });
    scrollTo({ top: 0 });
  },
  duplicates: () => ask({ ...readUrl(""), view: query.view, show: DUPLICATES }),
  folder: (folder) => ask({ filters: { ...query.filters, folder }, k: PAGE_SIZES[0] }),
  favourite: (moment, column) => !state.limits.read_only && favouriteButton(column.view.library, moment, sayProblem),
  tags: (moment, column) => !state.limits.read_only && tagField((column?.view ?? view()).library, moment),
};
const preview = new Preview();
const player = new Player(actions);
const submit = () => ask({ k: PAGE_SIZES[0] });
const sentences = new Sentences({ changed: submit });
const filterBar = new FilterBar({ changed: (filters) => ask({ filters, k: PAGE_SIZES[0] }) });
const browser = new Browser({ actions, preview }, (text) => (get("count").textContent = text));
const duplicates = new DuplicatesView({ open: openSegment, said: (text) => (get("count").textContent = text) });
const saveList = new SaveList({ failed: (sentence) => sayProblem(sentence) });
const more = button("Show more", showMore, { class: "button more", hidden: true });
get("main").append(browser.node, duplicates.node, more);

// Searches with the typed sentences and these changes of the query, as a new history entry. If what had the focus was
// replaced, keys go on at the search field.
async function ask(changes, shown = {}) {
  query = { ...query, show: "", ...sentences.read(), ...changes };
  const address = writeUrl(query);
  const entry = query.like || query.file ? { ...withoutOverlay(history.state), ...shown } : {};
  if (address === location.pathname + location.search || overlay()) history.replaceState(entry, "", address);
  else {
    keepPlace(shownEntry);
    history.pushState(entry, "", address);
  }
  showQuery();
  await run();
  await new Promise((done) => requestAnimationFrame(() => setTimeout(done))); // until a hidden element has lost the focus
  if (byKeyboard && document.activeElement === document.body) sentences.field.focus();
}

// Differs between any two history entries, apart from open dialogs.
const keyOfEntry = () => JSON.stringify([addressOf(), withoutOverlay(history.state)]);

async function run() {
  running.abort();
  running = new AbortController();
  const { signal } = running;
  preview.stop();
  if (!state || isBare(view())) return clear();
  if (query.show) return showDuplicates();
  if (isEmpty(query)) return browse();
  const body = query.file ? upload() : undefined;
  if (query.file && !body) return;
  arrange();
  document.body.classList.add("busy");
  try {
    await Promise.all(columns.map((column) => column.load(query, { signal, body })));
    finish();
  } catch (error) {
    if (error.name !== "AbortError") throw error;
  }
}

// Scrolls to where the entry was, when its results are there.
async function returnAfter(shown) {
  const entry = shownEntry;
  await shown;
  if (entry === shownEntry) returnToPlace(entry);
}

// Shows all videos that pass the filters.
async function browse() {
  clear();
  await browser.show(query, view());
}

async function showDuplicates() {
  clear();
  await duplicates.show(view());
}

// Plays a segment that is not among the results.
function openSegment(segment) {
  pushOverlay({ segment });
  showLinked(segment);
}

function finish() {
  const [one, other] = columns;
  const comparable = other && !one.failed && !other.failed && query.order === "match";
  markCards(one.cards, comparable ? other.moments : null, other?.view.id);
  if (other) markCards(other.cards, comparable ? one.moments : null, one.view.id);
  sayCount();
  const longest = Math.max(...columns.map(({ moments }) => moments.length));
  more.hidden = longest < query.k || !nextSize();
  document.body.classList.remove("busy");
  saveList.show(one.view.library, one.moments, title(query));
  if (query.sentences.length && longest) keepSearch(title(query), new URL(writeUrl(query), location.href).search);
  showOverlay();
}

function sayCount() {
  const found = columns.filter(({ failed }) => !failed);
  const seconds = Math.max(0, ...found.map(({ response }) => response.seconds));
  const [first, ...others] = found.map(({ moments }) => moments.length).reverse();
  const counts = [...others, count(first ?? 0, "moment")].join(" and ");
  const time = seconds < 1 ? `${Math.ceil(seconds * 1000)} ms` : `${seconds.toFixed(1)} s`;
  get("count").textContent = found.length ? `${counts} in ${time}` : "";
  sayNotes([...new Set(found.flatMap(({ response }) => response.notes))]);
}

const sayProblem = (sentence) => sayNotes([sentence].filter(Boolean));

function sayNotes(notes) {
  get("notes").hidden = !notes.length;
  get("notes").replaceChildren(...notes.map((note) => el("li", {}, note)));
}

// Shows the query in the search field, the chips, the selectors and the tab's title.
function showQuery() {
  shownEntry = keyOfEntry();
  const { label = query.file || "this moment", picture } = history.state ?? {};
  const strip = query.like && state ? `${segmentPath(view().library, query.like)}/strip.jpg` : null;
  sentences.write(query, { label, picture: files.get(query.file) ?? picture ?? strip });
  filterBar.write(query.filters, state ? view().columns : []);
  document.title = title(query) ? `${title(query)} · vop` : "vop";
  if (state) showViews();
}

const segmentPath = (library, segment) =>
  `api/libraries/${encodeURIComponent(library)}/segments/${encodeURIComponent(segment)}`;

// Suggests the library's tags in the field that has the focus.
async function suggestTags() {
  try {
    const { tags } = await call(`api/libraries/${encodeURIComponent(view().library)}/tags`);
    filterBar.suggest(tags.map(({ tag }) => tag));
  } catch (error) {
    if (!(error instanceof ApiError)) throw error; // tags can be typed without suggestions
  }
}

function closeDialogs() {
  for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close();
}

// Opens the dialog that the history entry has open, after Back, Forward or a reload.
function showOverlay() {
  const open = overlay();
  if (!open) return closeDialogs();
  if (document.querySelector("dialog[open]")) return;
  if (open.failures) return showFailures();
  const column = columns.find(({ view, moments }) => (!open.view || view.id === open.view) && find(moments, open));
  if (column) player.show(find(column.moments, open), column);
  else showLinked(open.segment);
}

const find = (moments, { segment, path }) => moments.find((moment) => moment.segment === segment && (!path || moment.path === path));

// Plays a moment that is not among the results, such as that of a link.
async function showLinked(segment) {
  try {
    const moment = await call(segmentPath(view().library, segment));
    if (overlay()?.segment === segment) player.show(moment);
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    history.replaceState(withoutOverlay(history.state), "", addressOf());
    sayNotes([`The moment of this link cannot be played: ${error.message}.`]);
  }
}

function clear() {
  columns = [];
  browser.hide();
  duplicates.hide();
  saveList.show("", []);
  get("columns").replaceChildren();
  get("notes").hidden = more.hidden = true;
  get("count").textContent = "";
  document.body.classList.remove("busy");
  showWelcome();
  if (state) showOverlay();
}

function showWelcome() {
  const place = get("welcome");
  const empty = state && isBare(view());
  place.hidden = !state || (!empty && (!isEmpty(query) || isFiltered(query) || Boolean(query.show)));
  const kind = place.hidden ? "" : empty ? `empty ${Boolean(view().index)}` : `welcome ${view().id}`;
  if (place.dataset.kind === kind) return; // keeps the focus and the selection
  place.dataset.kind = kind;
  const search = (address) => ask({ ...readUrl(address), view: query.view });
  place.replaceChildren(...(place.hidden ? [] : empty ? emptyLibrary(view()) : welcome({ view: view(), search })));
}

// Shows a column for each searched view. Reuses the columns of the last search, so that nothing flickers.
function arrange() {
  browser.hide();
  duplicates.hide();
  const page = { actions, preview, retry: run, clearFilters: () => ask({ filters: noFilters() }) };
  const views = [view(), compared()].filter(Boolean);
  if (columns.map((column) => column.view.id).join() !== views.map(({ id }) => id).join()) {
    columns = views.map((each) => columns.find((column) => column.view.id === each.id) ?? new Column(each, page));
    get("columns").replaceChildren(...columns.map(({ node }) => node));
  }
  get("columns").classList.toggle("side-by-side", views.length > 1);
  showWelcome();
}

const view = () => state.views.find(({ id }) => id === query.view) ?? state.views[0];
const isBare = ({ segments, error }) => !segments && !error;
const compared = () => state.views.find(({ id }) => id === query.compare && id !== view().id);

const namesOf = ({ views }) => views.map(({ id, method }) => `${id} ${method}`).join();

function showViews() {
  get("views").hidden = state.views.length < 2;
  const options = (views) => views.map((view) => el("option", { value: view.id }, `${view.id} · ${tuning(view)}`));
  get("view").replaceChildren(...options(state.views));
  get("view").value = view().id;
  const others = state.views.filter(({ id }) => id !== view().id);
  get("compare").replaceChildren(el("option", { value: "" }, "none"), ...options(others));
  get("compare").value = compared()?.id ?? "";
  showOrder();
  showLibrary(view());
}

// Without a query there is no best match: the newest videos come first.
function showOrder() {
  get("order-place").hidden = Boolean(query.show);
  get("save-list-place").classList.toggle("gone", Boolean(query.show));
  const orders = Object.entries(ORDERS).filter(([order]) => order !== "match" || !isEmpty(query));
  get("order").replaceChildren(...orders.map(([order, name]) => el("option", { value: order }, name)));
  get("order").value = orders.some(([order]) => order === query.order) ? query.order : "newest";
}

// Returns the form with the file. If the file cannot be sent, shows the reason and returns undefined.
function upload() {
  const file = files.get(query.file);
  const most = state.limits.upload_bytes;
  if (file && file.size <= most) {
    const body = new FormData();
    body.append("file", file, file.name);
    return body;
  }
  clear();
  const megabytes = (bytes) => `${(bytes / 1e6).toLocaleString("en", { maximumFractionDigits: 1 })} MB`;
  get("count").textContent = file
    ? `${file.name} has ${megabytes(file.size)}. The maximum is ${megabytes(most)}.`
    : `${query.file} is not in this browser. Drop the file here to search with it.`;
}

const nextSize = () => PAGE_SIZES.find((size) => size > query.k && size <= state.limits.max_k);

async function showMore() {
  const [shown] = columns.map(({ cards }) => cards.length);
  const focused = document.activeElement === more;
  query = { ...query, k: nextSize() };
  history.replaceState(history.state, "", writeUrl(query));
  shownEntry = keyOfEntry();
  await run();
  if (focused) columns[0]?.cards[shown]?.film.focus();
}

get("search").addEventListener("submit", (event) => {
  event.preventDefault();
  submit();
});
get("brand").addEventListener("click", (event) => {
  if (event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  ask({ ...readUrl(""), view: query.view });
  sentences.field.focus();
});
get("view").addEventListener("change", ({ target: { value } }) => {
  ask({ show: query.show, view: value, compare: query.compare === value ? "" : query.compare });
});
get("order").addEventListener("change", (event) => ask({ order: event.target.value }));
get("compare").addEventListener("change", (event) => ask({ compare: event.target.value }));
addEventListener("popstate", () => {
  const before = shownEntry;
  query = readUrl(location.search);
  if (keyOfEntry() === before) return showOverlay(); // only a dialog was opened or closed
  closeDialogs();
  keepPlace(before);
  showQuery();
  returnAfter(run());
});
// While the pointer is on a card, highlights the same video in the other column.
get("columns").addEventListener("pointerover", (event) => {
  const video = event.target.closest(".card")?.dataset.video;
  const cards = document.querySelectorAll(".side-by-side .card");
  for (const card of cards) card.classList.toggle("twin", card.dataset.video === video);
});

addEventListener("keydown", () => (byKeyboard = true), true);
addEventListener("pointerdown", () => (byKeyboard = false), true);
document.addEventListener("focusin", ({ target }) => target.getAttribute("list") === filterBar.tags.id && suggestTags());
listen({ search: sentences.field, films: () => [...document.querySelectorAll(".film")] });
listenForFiles((file) => {
  files.add(file);
  ask({ sentences: [], like: "", file: file.name, k: PAGE_SIZES[0] }, { label: file.name });
  closeDialogs();
});
await files.load(query.file);
keepPlacesFor(() => shownEntry);
followLink();
showQuery();
sentences.field.focus();
watchState({
  onState: (now) => {
    const [first, empty] = [!state, state && isBare(view())];
    const others = !state || namesOf(now) !== namesOf(state);
    state = now;
    if (others) showViews();
    if (first) filterBar.write(query.filters, view().columns);
    if (first && query.like) showQuery(); // its picture comes from the library
    showLibrary(view());
    if (first) returnAfter(run());
    else if (empty && !isBare(view())) run();
    else showWelcome();
  },
  onFailure: showTrouble,
});
