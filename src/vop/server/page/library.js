// The library's state: what is in it, how far the indexing is, what could not be read.

import { ApiError, call } from "./api.js";
import { copyButton, count, crossButton, el, get } from "./dom.js";

const SECONDS_WHILE_INDEXING = 2;
const SECONDS_AT_REST = 15;
const FAILURES_SHOWN = 1000;
const KEYS = { "/": "search", "← ↑ ↓ →": "move", Space: "play in place", Enter: "open" };
const KINDS = { unreadable: "unreadable", partial: "partly readable", duplicate: "a copy" };

// Calls `told(state)` or `failed(sentence)` now and then, for ever.
export async function watchState({ told, failed }) {
  for (;;) {
    let seconds = SECONDS_AT_REST;
    if (!document.hidden) {
      try {
        const state = await call("/api/state");
        if (state.views.some((view) => view.index || !view.segments)) seconds = SECONDS_WHILE_INDEXING;
        told(state);
      } catch (error) {
        if (!(error instanceof ApiError)) throw error;
        seconds = SECONDS_WHILE_INDEXING;
        failed(error.message);
      }
    }
    await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
  }
}

export function showLibrary(view) {
  const hours = view.hours < 0.95 ? `${Math.round(view.hours * 60)} min` : `${view.hours.toFixed(1)} hours`;
  const said = [count(view.videos, "video"), hours, count(view.segments, "segment"), view.method].join(" · ");
  const parts = [view.index ? progress(view.index, said) : el("span", { title: view.model }, said)];
  if (view.failures) parts.push(failuresButton(view));
  get("library").replaceChildren(...parts);
}

function failuresButton(view) {
  const text = `${count(view.failures, "file")} could not be read`;
  return el("button", { type: "button", class: "link warn", onclick: () => showFailures(view) }, text);
}

// Takes the place of the library's size, which its title says meanwhile.
function progress({ done, total, hours_per_hour: speed, seconds_left: left, current }, size) {
  const said = [`Indexing ${done.toLocaleString("en")} of ${count(total, "file")}`];
  if (left != null) said.push(`${timeLeft(left)} left`);
  const title = [size, speed && `${count(Math.round(speed), "hour")} of video an hour`, current].filter(Boolean).join("\n");
  const bar = el("progress", { max: Math.max(total, 1), value: done, "aria-label": "Indexing" });
  return el("span", { class: "indexing", title }, bar, el("span", {}, said.join(" · ")));
}

function timeLeft(seconds) {
  if (seconds < 60) return `${Math.max(1, Math.round(seconds))} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} hours`;
}

export function emptyLibrary(view) {
  if (view.index) {
    const soon = "Moments can be found as soon as their videos are in it.";
    return [el("h1", {}, "The library is being filled."), el("p", {}, soon)];
  }
  const command = "vop index LIBRARY FOLDER";
  return [
    el("h1", {}, "There is no video in this library yet."),
    el("p", {}, "Put the videos of a folder into it; this page notices."),
    el("p", { class: "command" }, el("code", {}, command), copyButton("Copy", () => command)),
    el("p", { class: "small" }, `LIBRARY is the folder of “${view.library}”; FOLDER is where your videos are.`),
  ];
}

export function welcome() {
  return [
    el("h1", {}, "Type what happens, and see the moment."),
    el("p", {}, "A sentence finds the moments that look like it. So does a video or a picture: drop it on this page."),
    el("p", { class: "keys" }, ...Object.entries(KEYS).map(([key, does]) => keyHint(key, does))),
  ];
}

const keyHint = (key, does) => el("span", {}, el("kbd", { class: "hint" }, key), ` ${does}`);

async function showFailures(view) {
  const dialog = get("failures");
  const body = el("div", { class: "scroll" });
  const close = crossButton("Close", () => dialog.close());
  const head = el("header", {}, el("h2", { id: "failures-title" }, "Files that are not, or not wholly, in the library"), close);
  dialog.replaceChildren(head, body);
  dialog.showModal();
  try {
    const path = `/api/libraries/${encodeURIComponent(view.library)}/failures?limit=${FAILURES_SHOWN}`;
    const { failures, total } = await call(path);
    head.insertBefore(copyButton("Copy the list", () => failures.map(asLine).join("\n")), close);
    body.append(failureList(failures));
    const listed = `The first ${count(failures.length, "file")} of ${total.toLocaleString("en")}`;
    if (total > failures.length) body.append(el("p", {}, `${listed}; vop library failures lists all.`));
  } catch (error) {
    body.append(el("p", { role: "alert" }, error.message));
  }
}

const asLine = ({ path, kind, reason }) => [path, kind, reason].join("\t");

function failureList(failures) {
  const rows = failures.map(({ path, kind, reason }) => {
    const why = el("span", { class: "reason" }, el("b", {}, KINDS[kind] ?? kind), ` · ${reason}`);
    return el("li", {}, el("span", { class: "path" }, path), why);
  });
  return el("ul", {}, ...rows);
}

