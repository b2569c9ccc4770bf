// Elements, and the format of times and paths. Text is always inserted as text, never as markup.

export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child != null));
  return node;
}

export const get = (id) => document.getElementById(id);

export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  use.setAttribute("href", `#icon-${name}`);
  svg.append(use);
  return svg;
}

// 75 -> 1:15, 3700 -> 1:01:40
export function clock(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  const tail = String(whole % 60).padStart(2, "0");
  return hours ? `${hours}:${String(minutes).padStart(2, "0")}:${tail}` : `${minutes}:${tail}`;
}

export const timeRange = ({ start_seconds: start, end_seconds: end }) =>
  `${clock(start)}–${clock(Math.max(Math.floor(start) + 1, Math.round(end)))}`;

// "2024-05-01T10:00:00+00:00" -> "1 May 2024", in the reader's language
export const day = (date) => new Date(date).toLocaleDateString(undefined, { day: "numeric", month: "short", year: "numeric" });

// "90", "1:30" and "1:00:00" -> seconds; anything else -> NaN
export function readClock(text) {
  const parts = text.trim().split(":");
  if (!parts.every((part) => /^\d+(\.\d+)?$/.test(part)) || parts.length > 3) return NaN;
  return parts.reduce((sum, part) => sum * 60 + Number(part), 0);
}

export const folderOf = (path) => path.slice(0, Math.max(0, path.lastIndexOf("/")));

// The last two folders, which their owner recognises.
export function shortFolder(path) {
  const parts = folderOf(path).split("/").filter(Boolean);
  return parts.length > 2 ? `…/${parts.slice(-2).join("/")}` : `/${parts.join("/")}`;
}

export const count = (number, one, many = `${one}s`) => `${number.toLocaleString("en")} ${number === 1 ? one : many}`;

// 1234567 -> "1.2 MB"
export function fileSize(bytes) {
  const units = ["bytes", "kB", "MB", "GB", "TB"];
  const step = bytes < 1000 ? 0 : Math.min(Math.floor(Math.log10(bytes) / 3), units.length - 1);
  const number = bytes / 1000 ** step;
  return `${number.toLocaleString("en", { maximumFractionDigits: number < 10 && step ? 1 : 0 })} ${units[step]}`;
}

export async function copy(text) {
  try {
    return await navigator.clipboard.writeText(text);
  } catch {
    // Browsers have no clipboard API on plain HTTP from another machine, and may refuse its use.
  }
  const area = el("textarea", { class: "unseen" });
  area.value = text;
  (document.querySelector("dialog[open]") ?? document.body).append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}

export const button = (label, action, more = {}) =>
  el("button", { type: "button", class: "button", onclick: action, ...more }, label);

export const crossButton = (name, action) =>
  el("button", { type: "button", class: "button quiet icon-only", "aria-label": name, onclick: action }, icon("close"));

export function copyButton(label, text) {
  const made = button(label, async () => {
    await copy(text());
    made.textContent = "Copied";
    setTimeout(() => (made.textContent = label), 1500);
  });
  return made;
}
