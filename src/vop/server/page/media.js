// The source that a moment is played from: the file itself, which supports seeking, or a clip of it that the server makes
// because browsers cannot play the file. Seconds are the file's unless they are called media seconds.

const CLIP_SECONDS = 30;
const SHORTEST_SECONDS = 0.5; // at the end of the file there is nothing to play

export const isWhole = (moment) => !new URL(moment.media_url, location.href).pathname.endsWith("/moment.mp4");

// {src, offset}: the media to play from `seconds` on, and the file's second at which the media begins.
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
