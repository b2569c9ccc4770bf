// A dialog has its own history entry: Back closes it and keeps the page as it is, Forward opens it again.
//
// The entry's state has `overlay`, a value that says which dialog is open. Its address is that of the entry below.

export const overlay = () => history.state?.overlay ?? null;

// Records the open dialog: in a new entry, or in the entry of the dialog that was open before.
export function pushOverlay(value) {
  const state = { ...history.state, overlay: value };
  if (overlay()) history.replaceState(state, "");
  else history.pushState(state, "");
}

// Call it after a dialog was closed by its button, by Escape or by a click beside it.
export function popOverlay() {
  if (overlay()) history.back();
}

// The state without the open dialog, for a new entry.
export function withoutOverlay(state) {
  const { overlay: _, ...rest } = state ?? {};
  return rest;
}
