// The moment, played muted in place of the strip that is pointed at or focused. One video element serves all strips.

import { el } from "./dom.js";
import { source, unload } from "./media.js";

const DELAY = 150; // milliseconds: crossing the page with the pointer starts nothing
const still = matchMedia("(prefers-reduced-motion: reduce)");

export class Preview {
  #timer = 0;
  #film = null;
  #span = [0, 0]; // in media seconds

  constructor() {
    this.video = el("video", { class: "moving", playsinline: true, loop: true, disablepictureinpicture: true, tabindex: -1 });
    this.video.setAttribute("aria-hidden", "true");
    this.video.muted = true;
    this.video.addEventListener("timeupdate", () => this.#loop());
    this.video.addEventListener("playing", () => this.#film?.classList.add("playing"));
    this.video.addEventListener("error", () => this.stop());
  }

  // Plays `moment()` when `film` is pointed at or focused by the keyboard; not by itself where motion is unwelcome.
  watch(film, moment) {
    const wait = () => !still.matches && this.#wait(film, moment());
    film.addEventListener("pointerenter", (event) => event.pointerType !== "touch" && wait());
    film.addEventListener("pointerleave", () => this.stop(film));
    film.addEventListener("focus", () => film.matches(":focus-visible") && wait());
    film.addEventListener("blur", () => this.stop(film));
  }

  toggle(film, moment) {
    if (this.#film === film) this.stop();
    else this.play(film, moment);
  }

  play(film, moment) {
    this.stop();
    this.#film = film;
    this.#span = [moment.media_start_seconds, moment.media_start_seconds + moment.end_seconds - moment.start_seconds];
    this.#place(film);
    film.append(this.video);
    film.classList.add("starting");
    this.video.src = source(moment).src;
    this.video.play().catch(() => {}); // stopped before it began, or an error that the event tells of
  }

  // Of any strip, or only if it is this one that plays.
  stop(film = this.#film) {
    clearTimeout(this.#timer);
    if (!film || film !== this.#film) return;
    this.#film = null;
    film.classList.remove("playing", "starting");
    this.video.remove();
    unload(this.video);
  }

  #wait(film, moment) {
    clearTimeout(this.#timer);
    if (this.#film !== film) this.#timer = setTimeout(() => this.play(film, moment), DELAY);
  }

  #loop() {
    const [start, end] = this.#span;
    const { currentTime } = this.video;
    // `loop` has begun again at 0 where the moment is the file's end.
    if (currentTime >= end - 0.04 || currentTime < start - 0.5) this.video.currentTime = start;
    if (this.video.paused && this.#film) this.video.play().catch(() => {});
    this.#film?.style.setProperty("--done", Math.min(1, Math.max(0, (currentTime - start) / (end - start))));
  }

  // It is larger than the strip, and grows upwards, so that the caption stays, unless the page's head or the window's
  // edge is there.
  #place(film) {
    const { top, height } = film.getBoundingClientRect();
    const head = document.querySelector(".top").getBoundingClientRect().bottom;
    film.classList.toggle("downwards", top - Math.max(0, head) < Math.max(height, 180 - height));
  }
}
