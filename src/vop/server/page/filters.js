// The filters: a bar that opens, and a chip for each that is active.

import { clock, el, get, icon, readClock } from "./dom.js";
import { activeFilters, FILTERS, OPERATORS, SECONDS, withoutFilter } from "./query.js";

const PLACEHOLDERS = { folder: "garden/2024", name: "beach or IMG_*.mp4", min_seconds: "0:10", max_seconds: "2:00" };

export class FilterBar {
  // changed(filters): they were changed by hand
  constructor({ changed }) {
    this.changed = changed;
    this.form = get("filters");
    this.toggle = get("show-filters");
    this.chips = get("chips");
    this.filters = null;
    this.columns = [];
    this.#build();
    this.toggle.addEventListener("click", () => this.open(this.form.hidden));
    this.form.addEventListener("change", () => this.#read());
    this.form.addEventListener("submit", (event) => event.preventDefault());
    this.form.addEventListener("keydown", (event) => event.key === "Escape" && this.open(false));
  }

  open(open) {
    this.form.hidden = !open;
    this.toggle.setAttribute("aria-expanded", open);
    if (!open) this.toggle.focus();
  }

  // columns: of the metadata, of the library that is searched
  write(filters, columns) {
    this.filters = filters;
    this.columns = columns;
    for (const name of Object.keys(FILTERS)) {
      this.form.elements[name].value = SECONDS.includes(name) && filters[name] ? clock(Number(filters[name])) : filters[name];
    }
    this.#writeConditions();
    this.#writeChips();
  }

  #build() {
    const fields = Object.entries(FILTERS).map(([name, label]) => {
      const type = ["after", "before"].includes(name) ? "date" : "text";
      return el("label", {}, label, el("input", { name, type, placeholder: PLACEHOLDERS[name] }));
    });
    this.conditions = el("div", { class: "conditions" });
    this.form.append(el("div", { class: "fields" }, ...fields), this.conditions);
  }

  #read() {
    const said = Object.fromEntries(Object.keys(FILTERS).map((name) => [name, this.form.elements[name].value.trim()]));
    for (const name of SECONDS) {
      const field = this.form.elements[name];
      const seconds = said[name] ? readClock(said[name]) : 0;
      field.setCustomValidity(Number.isNaN(seconds) ? `${said[name]} is no time; write 90, 1:30 or 1:00:00` : "");
      if (!field.reportValidity()) return;
      said[name] = seconds ? String(seconds) : "";
    }
    const rows = [...this.conditions.querySelectorAll(".condition")];
    const where = rows.map((row) => row.read()).filter(Boolean);
    const filters = { ...said, where: [...new Set(where)] };
    if (JSON.stringify(activeFilters(filters)) === JSON.stringify(activeFilters(this.filters))) return;
    this.changed(filters);
  }

  // A row for each condition, and an empty one to add another.
  #writeConditions() {
    this.conditions.hidden = !this.columns.length;
    const rows = [...this.conditions.querySelectorAll(".condition")];
    const shown = rows.map((row) => row.read()).filter(Boolean);
    const names = this.columns.join("\n");
    if (JSON.stringify(shown) !== JSON.stringify(this.filters.where) || this.conditions.dataset.columns !== names) {
      this.conditions.dataset.columns = names;
      this.conditions.replaceChildren(...[...this.filters.where, ""].map((text) => makeCondition(text, this.columns)));
    } else if (shown.length === rows.length) {
      this.conditions.append(makeCondition("", this.columns)); // the others stay, and so does the focus
    }
  }

  #writeChips() {
    const active = activeFilters(this.filters);
    this.chips.hidden = !active.length;
    this.toggle.classList.toggle("on", active.length > 0);
    this.chips.replaceChildren(...active.map((filter) => el("li", {}, this.#chip(filter))));
  }

  #chip(filter) {
    const text = chipText(filter);
    const remove = () => this.changed(withoutFilter(this.filters, filter));
    return el("button", { type: "button", "aria-label": `Remove the filter: ${text}`, onclick: remove }, text, icon("close"));
  }
}

function chipText({ name, value }) {
  if (name === "where") return value;
  return `${FILTERS[name].toLowerCase()} ${SECONDS.includes(name) ? clock(Number(value)) : value}`;
}

function makeCondition(text, columns) {
  const [, column = columns[0], operator = "=", value = ""] = /^(.+?)\s*(!=|>=|<=|=|>|<|~)\s*(.*)$/s.exec(text) ?? [];
  const names = [...new Set([...columns, column])];
  const choices = (values, chosen) => values.map((name) => el("option", { value: name, selected: name === chosen }, name));
  const which = el("select", { "aria-label": "Column" }, ...choices(names, column));
  const how = el("select", { "aria-label": "Comparison", title: "~ contains" }, ...choices(OPERATORS, operator));
  const what = el("input", { type: "text", "aria-label": "Value", placeholder: "value" });
  what.value = value;
  const row = el("span", { class: "condition" }, which, how, what);
  row.read = () => what.value.trim() && `${which.value}${how.value}${what.value.trim()}`;
  return row;
}
