// Saves a moment as a clip, and says what a copy without loss has before the moment.

import { ApiError, sentenceOf } from "./api.js";
import { el } from "./dom.js";

const NOTICEABLE = 0.1; // seconds

// Returns {link, note}: what saves the clip, and a place for a sentence about it. path(exact): where the server gives it.
export function clipSaver(path) {
  const note = el("p", { class: "clip-note", role: "status" });
  const link = (name, exact) => {
    const made = el("a", { class: exact ? "link" : "button", href: path(exact), download: "" }, name);
    made.addEventListener("click", (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      save(made.href, exact);
    });
    return made;
  };
  const save = async (href, exact) => {
    note.replaceChildren("Cutting the clip …");
    try {
      const lead = await leadOf(href);
      const early = lead > NOTICEABLE ? [`The clip begins ${lead.toFixed(1)} s before the moment, where the file can be cut without loss. `] : [];
      note.replaceChildren(...early, ...(early.length && !exact ? [link("Cut exactly", true)] : []));
      el("a", { href, download: "" }).click();
    } catch (error) {
      note.replaceChildren(error instanceof ApiError ? error.message : "The server is not responding. Is vop serve still running?");
    }
  };
  return { link: link("Save clip", false), note };
}

// Lets the server cut the clip, and returns how many seconds of it come before the moment.
async function leadOf(href) {
  const response = await fetch(href, { headers: { Range: "bytes=0-0" } });
  if (!response.ok) throw new ApiError(await sentenceOf(response));
  return Number(response.headers.get("Vop-Lead-Seconds"));
}
