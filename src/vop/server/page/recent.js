// The latest searches, kept in this browser.

const KEY = `vop searches ${location.pathname}`; // servers on other paths of this host have their own
const MOST = 8;

// Returns [{title, address}], the latest first. The address has no path, so that it holds on any host.
export function recentSearches() {
  try {
    const kept = JSON.parse(localStorage.getItem(KEY)) ?? [];
    return kept.filter(({ title, address }) => typeof title === "string" && address?.startsWith("?"));
  } catch {
    return []; // no storage, or something else was stored
  }
}

export function keepSearch(title, address) {
  const others = recentSearches().filter((other) => other.title !== title);
  write([{ title, address }, ...others].slice(0, MOST));
}

export const forgetSearches = () => write([]);

function write(searches) {
  try {
    localStorage.setItem(KEY, JSON.stringify(searches));
  } catch {
    // Browsers may have no storage, for example in private windows.
  }
}
