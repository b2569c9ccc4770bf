// The library's state: its size, the progress of indexing, and the files that could not be read.

import { ApiError, call } from "./api.js";
import { copyButton, count, crossButton, el, get } from "./dom.js";
import { popOverlay, pushOverlay } from "./overlay.js";
import { tuning } from "./words.js";

const SECONDS_WHILE_INDEXING = 2;
const SECONDS_AT_REST = 15;
const FAILURES_SHOWN = 1000;
const KINDS = { unreadable: "unreadable", partial: "partly readable", duplicate: "duplicate" };

// Keeps calling `onState(state)` or `onFailure(sentence)`.
export async function watchState({ onState, onFailure }) {
  for (;;) {
    let seconds = SECONDS_AT_REST;
    if (!document.hidden) {
      try {
        const state = await call("api/state");
        if (state.views.some((view) => view.index || !view.segments || isActive(view.indexing))) seconds = SECONDS_WHILE_INDEXING;
        onState(state);
      } catch (error) {
        seconds = SECONDS_WHILE_INDEXING;
        if (error instanceof ApiError) onFailure(error.message);
        else reportError(error); // and try again
      }
    }
    await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
  }
}

// These elements are created once, so that they keep the focus when their text changes.
let shown = null;
const size = el("span", { hidden: true });
const bar = el("progress", { "aria-label": "Indexing" });
const done = el("span", {});
const progress = el("span", { class: "indexing", hidden: true }, bar, done);
const trouble = el("span", { class: "warn", role: "status", hidden: true });
const unread = el("button", { type: "button", class: "link warn", hidden: true, onclick: () => openFailures() });
const update = el("button", { type: "button", class: "link", hidden: true, onclick: () => startOrStop() });
get("failures").addEventListener("close", () => popOverlay());
get("library").append(size, progress, update, trouble, unread);

export function showLibrary(view) {
  shown = view;
  const hours = view.hours < 0.95 ? `${Math.round(view.hours * 60)} min` : `${view.hours.toFixed(1)} hours`;
  const summary = `${count(view.videos, "video")} · ${hours}`;
  const details = `${count(view.segments, "searchable moment")}\nmodel ${view.model}, ${tuning(view)}`;
  say(size, view.error || view.index ? "" : summary, details);
  showProgress(view.index, summary);
  showUpdate(view);
  say(trouble, view.error ?? troubleOf(view.indexing));
  say(unread, view.failures ? `${count(view.failures, "file")} could not be read` : "");
}

// Shows a sentence instead of the library's state, which is unknown.
export function showTrouble(sentence) {
  for (const part of [size, progress, update, unread]) part.hidden = true;
  say(trouble, sentence);
}

const isActive = ({ state }) => ["waiting", "running", "stopping"].includes(state);

// Where this server may index: a button that reads the library's folders again, or stops doing so.
function showUpdate({ index, indexing, error }) {
  const active = isActive(indexing);
  const may = indexing.allowed && !error && (active || !index) && indexing.state !== "stopping";
  const last = indexing.ended_at ? `Last update: ${new Date(indexing.ended_at).toLocaleString()}` : "";
  say(update, may ? (active ? "Stop" : "Update") : "", active ? "Stop after the current files" : `Look for new and changed videos\n${last}`.trim());
}

function troubleOf({ state, message, result }) {
  if (state === "failed") return `The update failed: ${message}`;
  return result?.unavailable ? `${count(result.unavailable, "video")} unavailable now: a drive or folder is missing` : "";
}

async function startOrStop() {
  const { library, indexing } = shown;
  try {
    const path = `api/libraries/${encodeURIComponent(library)}/indexing`;
    shown.indexing = await call(path, { method: isActive(indexing) ? "DELETE" : "POST" });
    showLibrary(shown);
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    say(trouble, error.message);
  }
}

function say(part, text, title = "") {
  part.hidden = !text;
  if (part.textContent !== text) part.textContent = text;
  part.title = title;
}

// Shows the progress of indexing instead of the library's size, which moves to the tooltip.
function showProgress(index, size) {
  progress.hidden = !index;
  if (!index) return;
  const { total, hours_per_hour: speed, seconds_left: left, current } = index;
  const parts = [`Indexing ${index.done.toLocaleString("en")} of ${count(total, "file")}`];
  if (left != null) parts.push(`${timeLeft(left)} left`);
  const rate = speed && `${count(Math.round(speed), "hour")} of video an hour`;
  say(done, parts.join(" · "));
  progress.title = [size, rate, current].filter(Boolean).join("\n");
  [bar.max, bar.value] = [Math.max(total, 1), index.done];
}

function timeLeft(seconds) {
  if (seconds < 60) return `${Math.max(1, Math.round(seconds))} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} hours`;
}

export function emptyLibrary(view) {
  if (view.index) {
    const soon = "You can search videos as soon as they are indexed.";
    return [el("h2", {}, "Indexing is running."), el("p", {}, soon)];
  }
  const command = "vop index LIBRARY FOLDER";
  return [
    el("h2", {}, "This library has no videos yet."),
    el("p", {}, "Index a folder of videos. This page updates by itself."),
    el("p", { class: "command" }, el("code", {}, command), copyButton("Copy", () => command)),
    el("p", { class: "small" }, `LIBRARY is the folder of the library “${view.library}”; FOLDER is a folder with videos.`),
  ];
}

function openFailures() {
  pushOverlay({ failures: true });
  showFailures();
}

export async function showFailures() {
  const [view, dialog] = [shown, get("failures")];
  const body = el("div", { class: "scroll" });
  const close = crossButton("Close", () => dialog.close());
  const head = el("header", {}, el("h2", { id: "failures-title" }, "Files that could not be indexed completely"), close);
  dialog.replaceChildren(head, body);
  dialog.showModal();
  try {
    const path = `api/libraries/${encodeURIComponent(view.library)}/failures?limit=${FAILURES_SHOWN}`;
    const { failures, total } = await call(path);
    head.insertBefore(copyButton("Copy the list", () => failures.map(asLine).join("\n")), close);
    body.append(failureList(failures));
    const listed = `The first ${count(failures.length, "file")} of ${total.toLocaleString("en")}`;
    if (total > failures.length) body.append(el("p", {}, `${listed}. To list all, run: vop library failures`));
  } catch (error) {
    body.append(el("p", { role: "alert" }, error.message));
  }
}

const asLine = ({ path, kind, reason }) => [path, kind, reason].join("\t");

function failureList(failures) {
  const rows = failures.map(({ path, kind, reason, explanation, next_step: step }) => {
    const why = el("span", { class: "reason" }, el("b", {}, KINDS[kind] ?? kind), ` · ${reason}`);
    return el("li", {}, el("span", { class: "path" }, path), why, el("p", { class: "small" }, `${explanation} ${step}`));
  });
  return el("ul", {}, ...rows);
}

