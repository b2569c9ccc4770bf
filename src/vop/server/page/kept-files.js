// The files to search with, kept in this browser so that a reload or a bookmark can search with them again.

const [DATABASE, STORE] = ["vop", "files"];
const MOST = 8; // files; the oldest are dropped

export class KeptFiles {
  #files = new Map(); // by name

  get(name) {
    return this.#files.get(name);
  }

  async add(file) {
    this.#files.set(file.name, file);
    await attempt(async () => {
      const kept = await open();
      await done(kept.transaction(STORE, "readwrite").objectStore(STORE).put({ file, at: Date.now() }, file.name));
      const entries = await all(kept);
      const old = entries.sort((one, other) => other.at - one.at).slice(MOST);
      const store = kept.transaction(STORE, "readwrite").objectStore(STORE);
      for (const { name } of old) store.delete(name);
    });
  }

  // Loads a file that was kept before the page was loaded, if there is one.
  async load(name) {
    if (!name || this.#files.has(name)) return;
    await attempt(async () => {
      const entry = await done((await open()).transaction(STORE).objectStore(STORE).get(name));
      if (!entry) return;
      await entry.file.slice(0, 1).arrayBuffer(); // fails if the browser has lost its content
      this.#files.set(name, entry.file);
    });
  }
}

// Browsers may have no storage, for example in private windows. Then files last until the page is closed.
async function attempt(work) {
  try {
    await work();
  } catch (error) {
    console.debug("files are not kept:", error);
  }
}

function open() {
  const request = indexedDB.open(DATABASE, 1);
  request.onupgradeneeded = () => request.result.createObjectStore(STORE);
  return done(request);
}

async function all(database) {
  const store = database.transaction(STORE).objectStore(STORE);
  const [names, entries] = await Promise.all([done(store.getAllKeys()), done(store.getAll())]);
  return entries.map(({ at }, place) => ({ name: names[place], at }));
}

const done = (request) =>
  new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
