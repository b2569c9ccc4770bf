// Sort a table by the column whose heading is clicked: first in descending order, with the next click in ascending order.
for (const button of document.querySelectorAll("th button")) button.onclick = () => {
  const head = button.closest("th"), body = head.closest("table").tBodies[0], n = head.cellIndex
  const key = row => row.cells[n].dataset.value ?? ""
  const text = row => row.cells[n].firstChild?.textContent ?? ""
  const down = head.getAttribute("aria-sort") !== "descending", way = down ? -1 : 1
  for (const other of head.parentNode.cells) other.removeAttribute("aria-sort")
  head.setAttribute("aria-sort", down ? "descending" : "ascending")
  const rows = [...body.rows], some = rows.some(row => key(row) !== "")
  rows.sort((a, b) => !some ? way * text(a).localeCompare(text(b))
    : key(a) === "" ? 1 : key(b) === "" ? -1 : way * (key(a) - key(b)))
  body.append(...rows)
}
