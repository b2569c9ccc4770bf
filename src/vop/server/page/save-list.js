// Saves the results as one file: a table, or a list for video editors.

import { ApiError, sentenceOf } from "./api.js";
import { el, get } from "./dom.js";

const FORMATS = { csv: "Table (CSV)", otio: "OpenTimelineIO", fcpxml: "Final Cut Pro (FCPXML)", edl: "Edit list (EDL)" };

export class SaveList {
  #moments = [];

  // failed(sentence): the file could not be saved, or lacks moments
  constructor({ failed }) {
    this.failed = failed;
    this.select = get("save-list");
    const options = Object.entries(FORMATS).map(([value, name]) => el("option", { value }, name));
    this.select.append(...options);
    this.select.addEventListener("keydown", (event) => openByKey(this.select, event));
    this.select.addEventListener("change", () => this.#save(this.select.value));
  }

  // Prepares for these moments of a library; hides itself if there are none.
  show(library, moments, title = "") {
    [this.library, this.#moments, this.title] = [library, moments, title];
    get("save-list-place").hidden = !moments.length;
  }

  async #save(format) {
    this.select.value = "";
    const moments = this.#moments.map(({ segment, start_seconds, end_seconds, score }) => ({ segment, start_seconds, end_seconds, score }));
    const body = JSON.stringify({ format, moments, name: this.title.slice(0, 200) || "moments" });
    try {
      const response = await fetch(`api/libraries/${encodeURIComponent(this.library)}/export`, {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body,
      });
      if (!response.ok) throw new ApiError(await sentenceOf(response));
      const skipped = Number(response.headers.get("Vop-Skipped"));
      if (skipped) this.failed(`${skipped} of ${moments.length} moments are not in the file, because their videos cannot be read now.`);
      download(await response.blob(), nameIn(response) ?? `moments.${format}`);
    } catch (error) {
      this.failed(error instanceof ApiError ? error.message : "The server is not responding. Is vop serve still running?");
    }
  }
}

// Keys that would choose an item of the closed list, and so save a file, open the list instead.
function openByKey(select, event) {
  const chooses = event.key.length === 1 || /^(Arrow|Page|Home|End)/.test(event.key);
  if (!chooses || event.ctrlKey || event.metaKey || event.altKey || !select.showPicker) return;
  event.preventDefault();
  select.showPicker();
}

function nameIn(response) {
  const [, name] = /filename\*=UTF-8''([^;]+)/.exec(response.headers.get("Content-Disposition") ?? "") ?? [];
  return name && decodeURIComponent(name);
}

function download(blob, name) {
  const link = el("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
