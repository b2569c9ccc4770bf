// The player: plays with sound from the start of the moment, and can seek in the whole video.

import { ApiError, pause, sentenceOf, TRIES_WHILE_BUSY, waitOf } from "./api.js";
import { howSimilar, makeFilm } from "./card.js";
import { Controls } from "./controls.js";
import { button, clock, copyButton, crossButton, day, el, folderOf, get, timeRange } from "./dom.js";
import { isWhole, source, unload } from "./media.js";
import { popOverlay, pushOverlay } from "./overlay.js";
import { clipSaver } from "./save-clip.js";
import { matchedBy } from "./words.js";

const LONGEST_CLIP = 60; // seconds that the server gives at once

export class Player {
  #moment = null;
  #column = null;
  #offset = 0; // the file's second at which the media begins
  #tries = 0;
  #looking = new AbortController(); // for more moments of the video

  // like(moment, column): searches for similar moments; tags(moment, column): returns a field for its tags, or nothing
  constructor({ like, tags }) {
    this.like = like;
    this.tags = tags;
    this.dialog = get("player");
    this.video = el("video", { playsinline: true, preload: "auto" });
    this.trouble = el("p", { class: "trouble", role: "alert", hidden: true });
    this.stage = el("div", { class: "stage" });
    this.controls = new Controls(this.video, this.stage, (seconds) => this.#seekTo(seconds));
    this.stage.append(el("div", { class: "screen" }, this.video, this.trouble), this.controls.node);
    this.#listen();
  }

  // column: the column of the moment, if it is in one
  open(moment, column) {
    pushOverlay({ segment: moment.segment, path: moment.path, view: column?.view.id });
    this.show(moment, column);
  }

  // As `open`, when the history entry exists already.
  show(moment, column) {
    this.#moment = moment;
    this.#column = column;
    this.#build(moment);
    this.#findMore(moment, column);
    if (!this.dialog.open) this.dialog.showModal();
    this.controls.playing.focus();
    this.#play(moment.start_seconds);
  }

  #listen() {
    this.video.addEventListener("timeupdate", () => this.#follow());
    this.video.addEventListener("ended", () => this.#continue());
    this.video.addEventListener("error", () => this.video.getAttribute("src") && this.#explain());
    this.video.addEventListener("playing", () => {
      this.trouble.hidden = true;
      this.#tries = 0;
    });
    this.dialog.addEventListener("close", () => {
      if (this.dialog.open) return; // a late event: the next moment is already shown
      this.#moment = null;
      this.#looking.abort();
      unload(this.video);
      popOverlay(); // does nothing if Back has closed the dialog
    });
    // A click on the backdrop has the dialog itself as its target.
    this.dialog.addEventListener("click", (event) => event.target === this.dialog && this.dialog.close());
  }

  #build(moment) {
    const place = moment.place && `${moment.place.latitude.toFixed(4)}, ${moment.place.longitude.toFixed(4)}`;
    const facts = [timeRange(moment), howSimilar(moment), day(moment.date), place, folderOf(moment.path)].filter(Boolean);
    const about = el("p", { class: "facts" }, ...facts.map((text) => el("span", {}, text)));
    const name = el("h2", { id: "player-name", dir: "auto", title: moment.path }, moment.name);
    const matched = moment.line || (this.#column?.hasWords && !moment.is_weak) ? matchedLine(moment) : null;
    const head = el("header", {}, el("div", {}, name, about, matched), crossButton("Close", () => this.dialog.close()));
    this.controls.show(moment);
    this.more = el("section", { class: "more-moments", hidden: true });
    const parts = [head, this.stage, this.#buttons(moment), this.tags(moment, this.#column), this.more, columnsOf(moment)];
    this.dialog.replaceChildren(...parts.filter(Boolean));
  }

  // Shows all moments of the video that match the query: below the player, and as marks on its bar.
  async #findMore(moment, column) {
    this.#looking.abort();
    this.#looking = new AbortController();
    const { signal } = this.#looking;
    try {
      const moments = (await column?.momentsOf(moment, { signal })) ?? [];
      if (moments.length < 2 || signal.aborted) return;
      const open = (other) => this.open(other, column);
      this.controls.mark(moments, open);
      const tiles = moments.map((other) => makeTile(other, { isHere: other.segment === moment.segment, open }));
      this.more.replaceChildren(el("h3", {}, "More from this video"), el("ol", { class: "tiles" }, ...tiles));
      this.more.hidden = false;
    } catch (error) {
      if (error.name !== "AbortError" && !(error instanceof ApiError)) throw error; // without them, the moment still plays
    }
  }

  #buttons(moment) {
    const to = (label, step) => {
      const other = this.#column?.neighbour(moment, step);
      const open = (event) => {
        this.open(other, this.#column);
        const byKeyboard = event.detail === 0;
        if (byKeyboard) this.dialog.querySelector(`[data-step="${step}"]:enabled`)?.focus();
      };
      return button(label, open, { disabled: !other, "data-step": step });
    };
    const again = button(`Play from ${clock(moment.start_seconds)}`, () => this.#seekTo(moment.start_seconds));
    const like = button("More like this", () => {
      const column = this.#column;
      this.like(moment, column); // replaces the player's history entry
      this.dialog.close();
    });
    const link = copyButton("Copy link", () => location.href);
    const path = copyButton("Copy path", () => moment.path);
    const opened = { class: "button", href: playlistPath(moment), download: "", title: "A playlist for VLC and other players" };
    const open = el("a", opened, "Open in player");
    const save = clipSaver((exact) => clipPath(moment, exact));
    const [before, after] = [to("Previous", -1), to("Next", 1)];
    return el("footer", {}, before, again, after, el("span", { class: "space" }), like, open, save.link, link, path, save.note);
  }

  #play(seconds) {
    const { src, offset } = source(this.#moment, seconds);
    this.#offset = offset;
    this.trouble.hidden = true;
    this.video.src = src;
    this.video.play().catch(() => {}); // browsers may refuse without a click; the "error" event handles errors
  }

  #seekTo(seconds) {
    const inside = seconds - this.#offset;
    const loaded = isWhole(this.#moment) || (inside >= 0 && inside < this.video.duration);
    if (!loaded) return this.#play(seconds);
    this.video.currentTime = inside;
    this.video.play().catch(() => {});
  }

  // Continues with the next clip of a file that is played in clips.
  #continue() {
    const here = this.#offset + this.video.duration;
    if (!isWhole(this.#moment) && here < this.#moment.duration_seconds - 0.2) this.#play(here);
  }

  #follow() {
    if (this.#moment) this.controls.follow(this.#offset + this.video.currentTime);
  }

  // Shows why the media failed. The element does not say, so this asks the server. If it is busy, tries again.
  async #explain() {
    const moment = this.#moment;
    const src = this.video.getAttribute("src");
    const still = () => this.#moment === moment && this.video.getAttribute("src") === src;
    const say = (sentence) => {
      if (!still()) return; // another moment is already playing
      this.trouble.textContent = sentence;
      this.trouble.hidden = false;
    };
    try {
      const response = await fetch(src, { headers: { Range: "bytes=0-0" } });
      if (response.ok) return say("This browser cannot play the video.");
      if (response.status !== 503 || ++this.#tries >= TRIES_WHILE_BUSY) return say(await sentenceOf(response));
      say("The server is busy. Trying again …");
      await pause(waitOf(response));
      if (still()) this.#play(this.#offset);
    } catch {
      say("The server is not responding. Is vop serve still running?");
    }
  }
}

const videoPath = ({ media_url }) => media_url.replace(/\/moment\.mp4.*$/, "");

// Where the server gives the moment as a file to keep.
function clipPath(moment, exact) {
  const { start_seconds, end_seconds } = moment;
  const clip = { start_seconds, end_seconds: Math.min(end_seconds, start_seconds + LONGEST_CLIP), ...(exact && { exact }) };
  return `${videoPath(moment)}/clip?${new URLSearchParams(clip)}`;
}

// Where the server gives a playlist, with which a player on the user's machine opens the video at the moment.
const playlistPath = (moment) => `${videoPath(moment)}/playlist.m3u?${new URLSearchParams({ start_seconds: moment.start_seconds })}`;

// "Heard at 0:12: …"
function matchedLine(moment) {
  const { words, title } = matchedBy(moment);
  const { line } = moment;
  if (!line) return el("p", { class: "said", title }, words);
  return el("p", { class: "said" }, el("span", { title }, `${words} at ${clock(line.start_seconds)}: `), el("q", { title: line.source }, line.text));
}

function columnsOf({ columns }) {
  const rows = Object.entries(columns).map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value)));
  return el("dl", { hidden: !rows.length }, ...rows);
}

function makeTile(moment, { isHere, open }) {
  const film = makeFilm(moment);
  film.setAttribute("aria-label", `Play ${timeRange(moment)}`);
  film.title = howSimilar(moment);
  film.addEventListener("click", () => open(moment));
  const line = moment.line && el("p", { class: "matched" }, el("q", { title: moment.line.text }, moment.line.text));
  return el("li", { "aria-current": isHere && "true" }, film, el("span", { class: "time" }, timeRange(moment)), line);
}
