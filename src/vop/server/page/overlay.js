// A dialog has its own history entry: Back closes the dialog and keeps the page unchanged, Forward opens it again.
//
// The entry's state has the value `overlay`, which describes the open dialog. Its address is that of the entry below, with
// the segment that the player plays: such an address is a link to a moment.

export const overlay = () => history.state?.overlay ?? null;

// Records the open dialog: in a new history entry, or in the entry of an open dialog that it replaces.
export function pushOverlay(value) {
  const state = { ...history.state, overlay: value };
  const address = addressOf(value.segment);
  if (overlay()) history.replaceState(state, "", address);
  else history.pushState(state, "", address);
}

// Call it after a dialog was closed by its button, by Escape or by a click beside it.
export function popOverlay() {
  if (overlay()) history.back();
}

// Returns the state without the open dialog, for a new entry.
export function withoutOverlay(state) {
  const { overlay: _, ...rest } = state ?? {};
  return rest;
}

const PLAYED = "play";

// Returns the page's address with the segment that is played; without an argument, with none.
export function addressOf(segment = "") {
  const url = new URL(location.href);
  if (segment) url.searchParams.set(PLAYED, segment);
  else url.searchParams.delete(PLAYED);
  return url.pathname + url.search;
}

// Opens what the address of the page links to, as if the user had opened it.
export function followLink() {
  const segment = new URLSearchParams(location.search).get(PLAYED);
  if (!segment || overlay()) return;
  history.replaceState(history.state, "", addressOf());
  pushOverlay({ segment });
}
