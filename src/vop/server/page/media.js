// The source of a moment: the file itself, which supports seeking, or a clip that the server makes if browsers cannot
// play the file. Times are seconds of the file; media seconds are seconds of the source.

const CLIP_SECONDS = 30;
const SHORTEST_SECONDS = 0.5; // minimum length of a clip at the end of the file

export const isWhole = (moment) => !new URL(moment.media_url, location.href).pathname.endsWith("/moment.mp4");

// Returns {src, offset}: the media to play from `seconds`, and the file's second at which the media begins.
export function source(moment, seconds = moment.start_seconds) {
  if (isWhole(moment)) return { src: `${moment.media_url}#t=${seconds}`, offset: 0 };
  if (seconds === moment.start_seconds) return { src: moment.media_url, offset: seconds };
  const url = new URL(moment.media_url, location.href);
  const start = Math.max(0, Math.min(seconds, moment.duration_seconds - SHORTEST_SECONDS));
  url.searchParams.set("start_seconds", start);
  url.searchParams.set("end_seconds", Math.min(start + CLIP_SECONDS, moment.duration_seconds));
  return { src: url.pathname + url.search, offset: start };
}

export function unload(video) {
  video.pause();
  video.removeAttribute("src");
  video.load();
}
