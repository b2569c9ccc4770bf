// The filters: a bar that can be opened, and a chip for each active filter.

import { clock, el, get, icon, readClock } from "./dom.js";
import { activeFilters, FIELDS, OPERATORS, quotedTag, withoutFilter } from "./query.js";

export class FilterBar {
  // changed(filters): the user has changed them
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

  // columns: names of the metadata's columns in the library that is searched
  write(filters, columns) {
    this.filters = filters;
    this.columns = columns;
    for (const field of FIELDS) {
      const input = this.form.elements[field.name];
      if (field.kind === "switch") input.checked = Boolean(filters[field.name]);
      else input.value = shownValue(field, filters[field.name]);
    }
    this.#writeConditions();
    this.#writeChips();
  }

  // Suggests the tags that the library has.
  suggest(tags) {
    this.tags.replaceChildren(...tags.map((tag) => el("option", { value: quotedTag(tag) })));
  }

  #build() {
    const fields = FIELDS.map(({ name, kind, label, placeholder }) => {
      const type = { date: "date", switch: "checkbox" }[kind] ?? "text";
      return el("label", { class: kind }, label, el("input", { name, type, placeholder, list: kind === "tag" && "own-tags" }));
    });
    this.conditions = el("div", { class: "conditions" });
    this.tags = el("datalist", { id: "own-tags" });
    this.form.append(el("div", { class: "fields" }, ...fields), this.conditions, this.tags);
  }

  #read() {
    const filters = {};
    for (const { name, kind } of FIELDS) {
      const input = this.form.elements[name];
      const text = kind === "switch" ? (input.checked ? "true" : "") : input.value.trim();
      const seconds = kind === "seconds" && text ? readClock(text) : 0;
      input.setCustomValidity(Number.isNaN(seconds) ? `“${text}” is not a time. Write 90, 1:30 or 1:00:00.` : "");
      if (!input.reportValidity()) return;
      filters[name] = kind === "seconds" ? (seconds ? String(seconds) : "") : text;
    }
    const rows = [...this.conditions.querySelectorAll(".condition")];
    filters.conditions = [...new Set(rows.map((row) => row.read()).filter(Boolean))];
    if (JSON.stringify(activeFilters(filters)) === JSON.stringify(activeFilters(this.filters))) return;
    this.changed(filters);
  }

  // Shows a row for each condition, and an empty row for another one.
  #writeConditions() {
    this.conditions.hidden = !this.columns.length;
    const rows = [...this.conditions.querySelectorAll(".condition")];
    const shown = rows.map((row) => row.read()).filter(Boolean);
    const names = this.columns.join("\n");
    if (JSON.stringify(shown) !== JSON.stringify(this.filters.conditions) || this.conditions.dataset.columns !== names) {
      this.conditions.dataset.columns = names;
      this.conditions.replaceChildren(...[...this.filters.conditions, ""].map((text) => makeCondition(text, this.columns)));
    } else if (shown.length === rows.length) {
      this.conditions.append(makeCondition("", this.columns)); // the other rows stay, and keep the focus
    }
  }

  #writeChips() {
    const active = activeFilters(this.filters);
    this.chips.hidden = !active.length;
    this.toggle.classList.toggle("on", active.length > 0);
    this.chips.replaceChildren(...active.map((filter, place) => el("li", {}, this.#chip(filter, place))));
  }

  // Removing a chip moves the focus to the next one.
  #chip(filter, place) {
    const text = chipText(filter);
    const remove = () => {
      this.changed(withoutFilter(this.filters, filter));
      const chips = [...this.chips.querySelectorAll("button")];
      (chips[place] ?? chips.at(-1) ?? this.toggle).focus();
    };
    return el("button", { type: "button", "aria-label": `Remove filter: ${text}`, onclick: remove }, text, icon("close"));
  }
}

function chipText({ value, field }) {
  if (!field) return value;
  const label = field.label.toLowerCase();
  return field.kind === "switch" ? label : `${label} ${shownValue(field, value)}`;
}

const shownValue = ({ kind }, value) => (kind === "seconds" && value ? clock(Number(value)) : value);

function makeCondition(text, columns) {
  const [, column = columns[0], operator = "=", value = ""] = /^(.+?)\s*(!=|>=|<=|=|>|<|~)\s*(.*)$/s.exec(text) ?? [];
  const names = [...new Set([...columns, column])];
  const choices = (values, chosen) => values.map((name) => el("option", { value: name, selected: name === chosen }, name));
  const which = el("select", { "aria-label": "Column" }, ...choices(names, column));
  const how = el("select", { "aria-label": "Comparison", title: "~ means: contains" }, ...choices(OPERATORS, operator));
  const what = el("input", { type: "text", "aria-label": "Value", placeholder: "value" });
  what.value = value;
  const row = el("span", { class: "condition" }, which, how, what);
  row.read = () => what.value.trim() && `${which.value}${how.value}${what.value.trim()}`;
  return row;
}
