// A dialog with an entry of its own in the history: Back closes it and leaves the page as it is, Forward opens it again.
//
// The entry's state has `overlay`, a value that says what is open. Its address is the one of the entry below.

export const overlay = () => history.state?.overlay ?? null;

// Notes what is open: as a new entry, or in place of the one of a dialog that is open already.
export function pushOverlay(value) {
  const state = { ...history.state, overlay: value };
  if (overlay()) history.replaceState(state, "");
  else history.pushState(state, "");
}

// After a dialog was closed by its button, by Escape or by a click beside it.
export function popOverlay() {
  if (overlay()) history.back();
}

// A state for a new entry: without what was open in the present one.
export function withoutOverlay(state) {
  const { overlay: _, ...rest } = state ?? {};
  return rest;
}
