// The controls of the player: one seek bar for the whole video, which also marks the moments that were found in it.

import { button, clock, el, icon } from "./dom.js";

const STEP_SECONDS = 5;

export class Controls {
  #duration = 0;

  // stage: the element that fills the screen; seekTo(seconds): plays from there, in seconds of the file
  constructor(video, stage, seekTo) {
    this.video = video;
    this.stage = stage;
    this.seekTo = seekTo;
    this.seek = el("input", { type: "range", class: "seek", min: 0, step: 0.1, "aria-label": "Seek in the whole video" });
    this.ticks = el("div", { class: "ticks" });
    this.clock = el("span", { class: "clock" });
    this.playing = iconButton("play", "Play", () => this.toggle());
    this.sound = iconButton("sound", "Mute", () => this.mute());
    this.screen = iconButton("screen", "Full screen", () => this.fullScreen());
    const track = el("div", { class: "track" }, this.seek, this.ticks);
    this.node = el("div", { class: "controls" }, this.playing, track, this.clock, this.sound, this.screen);
    this.#listen();
  }

  // Prepares the bar for a moment of a video.
  show({ duration_seconds: duration, start_seconds: start, end_seconds: end }) {
    this.#duration = duration;
    this.seek.max = duration;
    this.seek.style.setProperty("--from", this.#place(start));
    this.seek.style.setProperty("--to", this.#place(end));
    this.mark([]);
    this.say(start);
  }

  // Marks moments on the bar. open(moment): the user has clicked a mark.
  mark(moments, open) {
    const ticks = moments.map((moment) => {
      const name = `Play from ${clock(moment.start_seconds)}`;
      const tick = el("button", { type: "button", class: "tick", title: name, "aria-label": name, onclick: () => open(moment) });
      tick.style.setProperty("left", this.#place(moment.start_seconds));
      return tick;
    });
    this.ticks.replaceChildren(...ticks);
  }

  // Shows the time of the video, unless the user is moving the bar.
  follow(seconds) {
    if (!this.seek.matches(":active")) this.say(seconds);
  }

  say(seconds) {
    this.seek.value = seconds;
    this.clock.textContent = `${clock(seconds)} / ${clock(this.#duration)}`;
    this.seek.setAttribute("aria-valuetext", clock(seconds));
  }

  toggle() {
    if (this.video.paused) this.video.play().catch(() => {});
    else this.video.pause();
  }

  mute() {
    this.video.muted = !this.video.muted;
  }

  fullScreen() {
    if (document.fullscreenElement) document.exitFullscreen();
    else this.stage.requestFullscreen?.().catch(() => {});
  }

  #place(seconds) {
    return `${(100 * Math.min(seconds / this.#duration, 1)).toFixed(3)}%`;
  }

  #listen() {
    this.seek.addEventListener("change", () => this.seekTo(Number(this.seek.value)));
    this.seek.addEventListener("input", () => this.say(Number(this.seek.value)));
    for (const name of ["play", "pause", "emptied"]) this.video.addEventListener(name, () => this.#showPlaying());
    this.video.addEventListener("volumechange", () => this.#showSound());
    this.video.addEventListener("click", () => this.toggle());
    this.video.addEventListener("dblclick", () => this.fullScreen());
    this.stage.addEventListener("keydown", (event) => this.#key(event));
    this.#showPlaying();
    this.#showSound();
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const step = { ArrowLeft: -STEP_SECONDS, ArrowRight: STEP_SECONDS }[event.key];
    const onButton = event.target.matches("button");
    const letter = event.key.toLowerCase(); // also with Caps Lock
    if (step) this.#move(step);
    else if (event.key === " " && !onButton) this.toggle();
    else if (letter === "m") this.mute();
    else if (letter === "f") this.fullScreen();
    else return;
    event.preventDefault();
  }

  // The bar moves at once, so that the next key starts from there and not from where the video still is.
  #move(step) {
    this.say(Math.min(Math.max(Number(this.seek.value) + step, 0), this.#duration));
    this.seekTo(Number(this.seek.value));
  }

  #showPlaying() {
    setIcon(this.playing, ...(this.video.paused ? ["play", "Play"] : ["pause", "Pause"]));
  }

  #showSound() {
    setIcon(this.sound, ...(this.video.muted ? ["muted", "Unmute"] : ["sound", "Mute"]));
  }
}

function iconButton(name, label, action) {
  const made = button("", action, { class: "button quiet icon-only" });
  setIcon(made, name, label);
  return made;
}

function setIcon(node, name, label) {
  node.replaceChildren(icon(name));
  node.title = label;
  node.setAttribute("aria-label", label);
}
