// Requests to the API: one sentence where it fails, and patience where the server is busy.

export const TRIES_WHILE_BUSY = 5;

export class ApiError extends Error {}

// The JSON of an answer. `onWait(seconds)` is told of every pause before another try (status 503).
// Raises ApiError with a sentence for the reader; an AbortError if the signal says so.
export async function call(path, { signal, body, onWait = () => {} } = {}) {
  for (let tried = 1; ; tried++) {
    const answer = await request(path, { signal, body });
    if (answer.ok) return whole(answer);
    if (answer.status !== 503 || tried >= TRIES_WHILE_BUSY) throw new ApiError(await sentenceOf(answer));
    const seconds = waitOf(answer);
    onWait(seconds);
    await pause(seconds, signal);
  }
}

async function whole(answer) {
  try {
    return await answer.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The server's answer was cut short. Is vop serve still running?");
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
    throw new ApiError(await whyNotSent(body));
  }
}

// The browser does not say whether it was the server or the file that is sent to it.
async function whyNotSent(body) {
  try {
    await body?.get("file").slice(0, 1).arrayBuffer();
    return "The server does not answer. Is vop serve still running?";
  } catch {
    return `${body.get("file").name} cannot be read: it is a folder, or has changed or gone. Drop the file again.`;
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
