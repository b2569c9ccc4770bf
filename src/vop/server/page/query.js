// What is asked for, as a value: read from the address, written to it, and turned into a request.
//
// {sentences: [{text, weight}], like: segment or "", file: name or "", view, compare, k, filters: {…, where: []}}
// A query has sentences, or a moment (like), or a file.

export const PAGE_SIZES = [20, 60, 200];
export const OPERATORS = ["=", "!=", ">", ">=", "<", "<=", "~"];

export const WEIGHTS = { min: -2, max: 2, step: 0.1 };

export const FILTERS = {
  folder: "Folder",
  name: "File name",
  min_seconds: "Not shorter than",
  max_seconds: "Not longer than",
  after: "From date",
  before: "Before date",
};
export const SECONDS = ["min_seconds", "max_seconds"];

export function readUrl(search) {
  const url = new URLSearchParams(search);
  const weights = url.getAll("w").map(readWeight);
  const sentences = url
    .getAll("q")
    .map((text, place) => ({ text: text.trim(), weight: weights[place] ?? 1 }))
    .filter((sentence) => sentence.text);
  const filters = Object.fromEntries(Object.keys(FILTERS).map((name) => [name, url.get(name) ?? ""]));
  for (const name of SECONDS) if (!(Number(filters[name]) > 0)) filters[name] = "";
  const k = Number(url.get("k"));
  return {
    sentences,
    like: url.get("like") ?? "",
    file: url.get("file") ?? "",
    view: url.get("view") ?? "",
    compare: url.get("compare") ?? "",
    k: PAGE_SIZES.includes(k) ? k : PAGE_SIZES[0],
    filters: { ...filters, where: url.getAll("where") },
  };
}

// The nearest weight that can be set on the page: what is searched with is what is shown.
function readWeight(text) {
  const weight = Number(text);
  if (!Number.isFinite(weight)) return 1;
  const steps = Math.round(Math.min(Math.max(weight, WEIGHTS.min), WEIGHTS.max) / WEIGHTS.step);
  return Number((steps * WEIGHTS.step).toFixed(1));
}

export function writeUrl(query) {
  const url = asked(query);
  if (query.like) url.set("like", query.like);
  if (query.file) url.set("file", query.file);
  addFilters(url, query.filters);
  for (const name of ["view", "compare"]) if (query[name]) url.set(name, query[name]);
  if (query.k !== PAGE_SIZES[0]) url.set("k", query.k);
  return `${location.pathname}${url.size ? `?${url}` : ""}`;
}

// The address of a request for what is asked, under one view.
export function requestPath(query, view) {
  const url = query.like || query.file ? new URLSearchParams() : asked(query);
  url.set("k", query.k);
  addFilters(url, query.filters);
  const start = `api/views/${encodeURIComponent(view)}`;
  if (query.file) return `${start}/search/file?${url}`;
  if (query.like) return `${start}/like/${encodeURIComponent(query.like)}?${url}`;
  return `${start}/search?${url}`;
}

export const isEmpty = (query) => !query.sentences.length && !query.like && !query.file;

export const noFilters = () => readUrl("").filters;

export const isFiltered = (query) => activeFilters(query.filters).length > 0;

// [{name, value}] of the filters that are set; a condition on a column is {name: "where", value}.
export function activeFilters(filters) {
  const plain = Object.keys(FILTERS).map((name) => ({ name, value: filters[name] }));
  return [...plain, ...filters.where.map((value) => ({ name: "where", value }))].filter(({ value }) => value);
}

export function withoutFilter(filters, { name, value }) {
  if (name !== "where") return { ...filters, [name]: "" };
  return { ...filters, where: filters.where.filter((other) => other !== value) };
}

export function title(query) {
  const said = query.sentences.map(({ text }) => text).join(" · ");
  return said || query.file || (query.like ? "more like this" : "");
}

// One sentence always counts fully, so that weights are there only where they say something.
function asked(query) {
  const url = new URLSearchParams();
  const weighted = query.sentences.length > 1 && query.sentences.some(({ weight }) => weight !== 1);
  for (const { text } of query.sentences) url.append("q", text);
  if (weighted) for (const { weight } of query.sentences) url.append("w", weight);
  return url;
}

function addFilters(url, filters) {
  for (const { name, value } of activeFilters(filters)) url.append(name, value);
}
