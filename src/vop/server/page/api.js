// Requests to the API. Errors become one sentence. A request to a busy server is repeated.

export const TRIES_WHILE_BUSY = 5;

export class ApiError extends Error {}

// Returns the JSON of a response. Calls `onWait(seconds)` before each pause when the server is busy (status 503).
// Throws an ApiError with a sentence for the user, or an AbortError when the signal is aborted.
export async function call(path, { signal, body, method, onWait = () => {} } = {}) {
  for (let tried = 1; ; tried++) {
    const response = await request(path, { signal, body, method });
    if (response.ok) return jsonOf(response);
    if (response.status !== 503 || tried >= TRIES_WHILE_BUSY) throw new ApiError(await sentenceOf(response));
    const seconds = waitOf(response);
    onWait(seconds);
    await pause(seconds, signal);
  }
}

async function jsonOf(response) {
  try {
    return await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The server's response was incomplete. Is vop serve still running?");
  }
}

// The seconds that a busy server asks clients to wait.
export function waitOf(response) {
  const seconds = Number(response.headers.get("Retry-After") ?? 1);
  return Number.isFinite(seconds) ? Math.min(Math.max(seconds, 0), 30) : 1;
}

export async function sentenceOf(response) {
  try {
    const { detail } = await response.json();
    if (typeof detail === "string") return detail;
  } catch {
    // Not JSON: the response comes from a proxy between this page and the server.
  }
  return `The server responded with status ${response.status}.`;
}

async function request(path, { signal, body, method = body ? "POST" : "GET" }) {
  try {
    return await fetch(path, { signal, body, method });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(await reasonNotSent(body));
  }
}

// Browsers do not say whether the server did not respond or the file could not be read.
async function reasonNotSent(body) {
  try {
    await body?.get("file").slice(0, 1).arrayBuffer();
    return "The server is not responding. Is vop serve still running?";
  } catch {
    return `${body.get("file").name} cannot be read. It may be a folder, or it was changed, moved or deleted. Drop the file again.`;
  }
}

export function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(new DOMException("aborted", "AbortError"));
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, seconds * 1000);
    if (signal?.aborted) stop();
    signal?.addEventListener("abort", stop, { once: true });
  });
}
