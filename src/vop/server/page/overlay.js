// A dialog has its own history entry: Back closes the dialog and keeps the page unchanged, Forward opens it again.
//
// The entry's state has the value `overlay`, which describes the open dialog. Its address is that of the entry below.

export const overlay = () => history.state?.overlay ?? null;

// Records the open dialog: in a new history entry, or in the entry of an open dialog that it replaces.
export function pushOverlay(value) {
  const state = { ...history.state, overlay: value };
  if (overlay()) history.replaceState(state, "");
  else history.pushState(state, "");
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
