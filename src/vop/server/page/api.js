// Requests to the API. Failures become one sentence; a busy server is asked again.

export const TRIES_WHILE_BUSY = 5;

export class ApiError extends Error {}

// The JSON of a response. Calls `onWait(seconds)` before each pause when the server is busy (status 503).
// Throws an ApiError with a sentence for the user, or an AbortError when the signal is aborted.
export async function call(path, { signal, body, onWait = () => {} } = {}) {
  for (let tried = 1; ; tried++) {
    const answer = await request(path, { signal, body });
    if (answer.ok) return jsonOf(answer);
    if (answer.status !== 503 || tried >= TRIES_WHILE_BUSY) throw new ApiError(await sentenceOf(answer));
    const seconds = waitOf(answer);
    onWait(seconds);
    await pause(seconds, signal);
  }
}

async function jsonOf(answer) {
  try {
    return await answer.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The server's response was incomplete. Is vop serve still running?");
  }
}

// The seconds that a busy server asks clients to wait.
export function waitOf(answer) {
  const seconds = Number(answer.headers.get("Retry-After") ?? 1);
  return Number.isFinite(seconds) ? Math.min(Math.max(seconds, 0), 30) : 1;
}

export async function sentenceOf(answer) {
  try {
    const { detail } = await answer.json();
    if (typeof detail === "string") return detail;
  } catch {
    // Not JSON: the response comes from something between this page and the server.
  }
  return `The server responded with status ${answer.status}.`;
}

async function request(path, { signal, body }) {
  try {
    return await fetch(path, { signal, body, method: body ? "POST" : "GET" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(await reasonNotSent(body));
  }
}

// The browser does not say whether the server or the file to send is the reason.
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
