// Requests to the API: one sentence where it fails, and patience where the server is busy.

const TRIES_WHILE_BUSY = 5;

export class ApiError extends Error {}

// The JSON of an answer. `onWait(seconds)` is told of every pause before another try (status 503).
// Raises ApiError with a sentence for the reader; an AbortError if the signal says so.
export async function call(path, { signal, body, onWait = () => {} } = {}) {
  for (let tried = 1; ; tried++) {
    const answer = await request(path, { signal, body });
    if (answer.ok) return answer.json();
    if (answer.status !== 503 || tried >= TRIES_WHILE_BUSY) throw new ApiError(await sentenceOf(answer));
    const seconds = waitOf(answer);
    onWait(seconds);
    await pause(seconds, signal);
  }
}

// How long a busy server asks to wait.
export function waitOf(answer) {
  const seconds = Number(answer.headers.get("Retry-After") ?? 1);
  return Number.isFinite(seconds) ? Math.min(Math.max(seconds, 0), 30) : 1;
}

export async function sentenceOf(answer) {
  try {
    const { detail } = await answer.json();
    if (typeof detail === "string") return detail;
  } catch {
    // Not JSON: something between this page and the server has answered.
  }
  return `The server answered with status ${answer.status}.`;
}

async function request(path, { signal, body }) {
  try {
    return await fetch(path, { signal, body, method: body ? "POST" : "GET" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The server does not answer. Is vop serve still running?");
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
