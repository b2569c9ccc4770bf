// The owner's favourites and tags: they belong to a video or to a moment of it.

import { ApiError, call } from "./api.js";
import { button, el, icon } from "./dom.js";
import { quotedTag, tagsIn } from "./query.js";

const targetOf = (library, moment) => {
  const times = new URLSearchParams({ start_seconds: moment.start_seconds, end_seconds: moment.end_seconds });
  const start = `api/libraries/${encodeURIComponent(library)}/marks/${encodeURIComponent(moment.segment)}`;
  return (rest) => `${start}/${rest}?${times}`;
};

const change = (library, moment, rest, on) => call(targetOf(library, moment)(rest), { method: on ? "PUT" : "DELETE" });

// Returns a button that makes a moment a favourite, or no favourite any more. failed(sentence): the server has refused.
export function favouriteButton(library, moment, failed) {
  const made = el("button", { type: "button", class: "link favourite" }, icon("star"));
  const show = () => {
    const label = moment.is_favourite ? "Remove from favourites" : "Add to favourites";
    made.title = label;
    made.setAttribute("aria-label", label);
    made.setAttribute("aria-pressed", Boolean(moment.is_favourite));
  };
  made.addEventListener("click", async () => {
    await attempt(failed, async () => {
      const state = await change(library, moment, "favourite", !moment.is_favourite);
      moment.is_favourite = state.is_favourite;
    });
    show();
  });
  show();
  return made;
}

// Returns the tags of a moment, each with a button that removes it, and a field for more. Tags that the server refuses
// stay in the field.
export function tagField(library, moment) {
  const list = el("ul", { class: "chips" });
  const field = el("input", { type: "text", class: "tag-field", placeholder: "Add a tag", "aria-label": "Add a tag", list: "own-tags" });
  const note = el("p", { class: "warn", role: "alert", hidden: true });
  const say = (sentence) => {
    note.textContent = sentence;
    note.hidden = !sentence;
  };
  const set = (tag, on) =>
    attempt(say, async () => {
      const state = await change(library, moment, `tags/${encodeURIComponent(tag)}`, on);
      moment.tags = state.tags;
      show();
    });
  const drop = async (tag) => {
    const place = moment.tags.indexOf(tag);
    if (!(await set(tag, false))) return;
    const chips = [...list.querySelectorAll("button")];
    (chips[place] ?? chips.at(-1) ?? field).focus();
  };
  const show = () => {
    const chips = (moment.tags ?? []).map((tag) => {
      const remove = { class: "", "aria-label": `Remove tag: ${tag}` };
      const chip = button(tag, () => drop(tag), remove);
      chip.append(icon("close"));
      return el("li", {}, chip);
    });
    list.replaceChildren(...chips);
  };
  field.addEventListener("keydown", async (event) => {
    if (event.key !== "Enter") return;
    event.preventDefault();
    const refused = [];
    for (const tag of tagsIn(field.value)) if (refused.length || !(await set(tag, true))) refused.push(tag);
    field.value = refused.map(quotedTag).join(", ");
  });
  show();
  return el("div", { class: "own-tags" }, list, field, note);
}

// Returns whether the work succeeded; otherwise says why it did not.
async function attempt(failed, work) {
  try {
    failed("");
    await work();
    return true;
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    failed(error.message);
    return false;
  }
}
