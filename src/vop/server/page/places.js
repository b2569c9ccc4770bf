// How far each history entry was scrolled. Browsers restore it before the results are there, which is too early.

const KEY = `vop places ${location.pathname}`;
const MOST = 100;

history.scrollRestoration = "manual";

const places = new Map(read()); // key of the entry -> pixels

export function keepPlace(entry) {
  places.delete(entry); // the latest are at the end
  places.set(entry, scrollY);
}

export const returnToPlace = (entry) => scrollTo({ top: places.get(entry) ?? 0 });

// Keeps the places for a reload, and for coming back from another site. entry(): the key of the entry that is shown
export function keepPlacesFor(entry) {
  addEventListener("pagehide", () => {
    keepPlace(entry());
    try {
      sessionStorage.setItem(KEY, JSON.stringify([...places].slice(-MOST)));
    } catch {
      // Browsers may have no storage.
    }
  });
}

function read() {
  try {
    return JSON.parse(sessionStorage.getItem(KEY)) ?? [];
  } catch {
    return []; // no storage, or something else was stored
  }
}
