// The search field: a sentence, more sentences with weights, and the file or moment to search with.

import { crossButton, el, get, icon } from "./dom.js";
import { WEIGHTS } from "./query.js";

const FIELD = { type: "text", enterkeyhint: "search", spellcheck: "false", maxlength: 2000 };
const RANGE = { type: "range", ...WEIGHTS, title: "Weight of the sentence. A negative weight finds less of it." };

export class Sentences {
  #object = ""; // the object URL of the chip's picture, if the picture is a file
  #like = "";
  #file = "";

  // changed(): the user has changed a weight or removed something, so the search must be repeated
  constructor({ changed }) {
    this.changed = changed;
    this.field = get("sentence");
    this.rows = get("sentences");
    this.chip = get("subject");
    this.weight = makeWeight("sentence 1", changed);
    get("first-weight").append(this.weight.node);
    get("add-sentence").addEventListener("click", () => this.#add().field.focus());
    this.#arrange();
  }

  // {sentences, like, file}: sentences beside a moment or file are combined with it.
  read() {
    const typed = [{ text: this.field.value.trim(), weight: this.weight.get() }, ...this.#further()];
    return { sentences: typed.filter(({ text }) => text), like: this.#like, file: this.#file };
  }

  // `picture`: a File, or the URL of a strip, for the chip.
  write(query, { label = "", picture = null } = {}) {
    const [first, ...further] = query.sentences;
    if (this.field.value.trim() !== (first?.text ?? "")) this.field.value = first?.text ?? "";
    this.weight.set(first?.weight ?? 1);
    this.#writeFurther(further);
    this.#setChip(query, label, picture);
    this.#arrange();
  }

  #further() {
    return [...this.rows.children].map((row) => ({ text: row.field.value.trim(), weight: row.weight.get() }));
  }

  #writeFurther(sentences) {
    const same = JSON.stringify(this.#further().filter(({ text }) => text)) === JSON.stringify(sentences);
    if (same) return; // does not disturb the row in which the user types
    this.rows.replaceChildren();
    for (const sentence of sentences) this.#add(sentence);
  }

  #add({ text = "", weight = 1 } = {}) {
    const number = this.rows.children.length + 2;
    const row = el("li", { class: "field further" });
    row.field = el("input", { ...FIELD, "aria-label": `Sentence ${number}`, placeholder: "Another sentence" });
    row.field.value = text;
    row.weight = makeWeight(`sentence ${number}`, this.changed);
    row.weight.set(weight);
    row.append(row.field, row.weight.node, crossButton(`Remove sentence ${number}`, () => this.#remove(row)));
    this.rows.append(row);
    this.#arrange();
    return row;
  }

  #remove(row) {
    row.remove();
    this.#arrange();
    this.field.focus();
    if (row.field.value.trim()) this.changed();
  }

  // The weight of a single sentence is shown only where an address gives it.
  #arrange() {
    this.weight.node.hidden = !this.rows.children.length && this.weight.get() === 1;
  }

  #setChip({ like, file }, label, picture) {
    URL.revokeObjectURL(this.#object);
    [this.#like, this.#file, this.#object] = [like, file, picture instanceof File ? URL.createObjectURL(picture) : ""];
    this.chip.hidden = !like && !file;
    if (this.chip.hidden) return this.chip.replaceChildren();
    const remove = el("button", { type: "button", "aria-label": `Remove ${label}` }, icon("close"));
    remove.addEventListener("click", () => this.#removeChip());
    this.chip.replaceChildren(thumbnail(picture, this.#object), el("span", { class: "label", title: label }, label), remove);
  }

  #removeChip() {
    this.#setChip({ like: "", file: "" }, "", null);
    this.field.focus();
    this.changed();
  }
}

// Returns an element with the picture or the first frame of the video, or an icon if the browser cannot show it.
function thumbnail(picture, object) {
  const video = picture instanceof File && picture.type.startsWith("video/");
  const address = picture instanceof File ? object + (video ? "#t=0.1" : "") : picture;
  if (!address) return icon("file");
  const shown = video ? el("video", { preload: "metadata", tabindex: -1 }) : el("img", { alt: "" });
  shown.muted = true;
  shown.className = "thumbnail";
  shown.addEventListener("error", () => shown.replaceWith(icon("file")));
  shown.src = address;
  return shown;
}

function makeWeight(name, changed) {
  const range = el("input", { ...RANGE, "aria-label": `Weight of ${name}` });
  const shown = el("output", {});
  const say = () => {
    const weight = Number(range.value);
    shown.textContent = weight < 0 ? `−${-weight}` : `${weight}`;
    shown.classList.toggle("less", weight < 0);
  };
  range.addEventListener("input", say);
  range.addEventListener("change", changed);
  range.value = 1;
  say();
  const set = (weight) => {
    range.value = weight;
    say();
  };
  return { node: el("span", { class: "weight" }, range, shown), get: () => Number(range.value), set };
}
