// Plays a muted moment in place of its frames while the pointer or the focus is on it. All cards share one video element.

import { el } from "./dom.js";
import { source, unload } from "./media.js";

const DELAY = 150; // milliseconds, so that moving the pointer across the page starts no previews
const reducedMotion = matchMedia("(prefers-reduced-motion: reduce)");

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

  // Plays `moment()` when the pointer or the keyboard focus is on `film`, unless the user prefers reduced motion.
  watch(film, moment) {
    const wait = () => !reducedMotion.matches && this.#wait(film, moment());
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
    film.append(this.video);
    film.classList.add("starting");
    this.video.src = source(moment).src;
    this.video.play().catch(() => {}); // stopped before it began; the "error" event handles errors
  }

  // Stops the preview. With an argument, only the preview of that strip.
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
    // If the moment is at the file's end, `loop` has started again at 0.
    if (currentTime >= end - 0.04 || currentTime < start - 0.5) this.video.currentTime = start;
    if (this.video.paused && this.#film) this.video.play().catch(() => {});
    this.#film?.style.setProperty("--done", Math.min(1, Math.max(0, (currentTime - start) / (end - start))));
  }
}
