// "/" focuses the search field. The arrow keys move between moments by their position on the screen.

const WRITING = "input:not([type=range], [type=file]), textarea, select, [contenteditable]";

// search: the search field; films(): the strips in the order of the page
export function listen({ search, films }) {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    const writing = event.target.matches(WRITING);
    if (event.key === "/" && !writing) {
      event.preventDefault();
      search.focus();
      search.select();
    } else if (event.key.startsWith("Arrow") && (!writing || (event.target === search && event.key === "ArrowDown"))) {
      if (event.target.matches("input[type=range]")) return;
      const next = neighbour(films(), document.activeElement, event.key);
      if (!next) return;
      event.preventDefault();
      next.focus({ focusVisible: true });
      next.scrollIntoView({ block: "nearest" });
    }
  });
}

function neighbour(films, from, key) {
  const here = films.indexOf(from.closest(".card")?.querySelector(".film"));
  if (here < 0) return key === "ArrowDown" || key === "ArrowRight" ? films[0] : undefined;
  const sideways = key === "ArrowLeft" || key === "ArrowRight";
  const way = key === "ArrowDown" || key === "ArrowRight" ? 1 : -1;
  return nearest(films, films[here], sideways, way) ?? (sideways ? films[here + way] : undefined);
}

// Returns the nearest strip in a direction: in the same row, or in the next row above or below.
function nearest(films, from, sideways, way) {
  const a = from.getBoundingClientRect();
  const steps = films.map((film) => {
    const b = film.getBoundingClientRect();
    const [across, down] = [b.left - a.left, b.top - a.top];
    const [along, aside] = sideways ? [across, down] : [down, across];
    const lies = way * along > 2 && (!sideways || Math.abs(aside) < a.height / 2);
    return { film, far: lies ? way * along + 2 * Math.abs(aside) : Infinity };
  });
  const best = steps.reduce((least, step) => (step.far < least.far ? step : least), { far: Infinity });
  return best.film;
}
