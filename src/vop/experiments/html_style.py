"""The style and the script of a study's page."""

from __future__ import annotations

from vop.experiments.svg import theme

_RULES = """
:root { color-scheme: light dark; --best: #0b6e3a; --bad: #b3261e; --film: #f3f4f6 }
@media (prefers-color-scheme: dark) { :root { --best: #6fd39b; --bad: #ff9c94; --film: #20252b } }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 1320px; padding: 1.5rem 1rem 4rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif }
h1 { font-size: 1.6rem; margin: 0 0 1rem } h2 { font-size: 1.35rem; margin: 2.5rem 0 .75rem }
h2, details { border-top: 1px solid var(--line); padding-top: .75rem }
h3 { font-size: 1.1rem; margin: 2rem 0 .5rem } h4 { font-size: 1rem; margin: 1.5rem 0 .5rem }
a { color: inherit } nav a { margin-right: 1rem }
dl { display: grid; gap: .15rem 1.5rem; margin: 0;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 22rem), 1fr)) }
dl div { display: flex; gap: .75rem } dt { flex: 0 0 5.5rem; color: var(--quiet) }
dd { margin: 0; min-width: 0; overflow-wrap: anywhere }
.wide, figure > div { overflow-x: auto; max-width: 100%; margin: .75rem 0 }
table { border-collapse: separate; border-spacing: 0; font-size: 13.5px; font-variant-numeric: tabular-nums }
th, td { padding: .3rem .5rem; text-align: right; vertical-align: top; white-space: nowrap;
  border-bottom: 1px solid var(--line) }
th:first-child, td:first-child { position: sticky; left: 0; z-index: 1; background: var(--paper); text-align: left;
  min-width: 7.5rem; max-width: 14rem; white-space: normal; overflow-wrap: anywhere }
.text { text-align: left }
td.text { white-space: normal; min-width: 7.5rem; max-width: 40rem; overflow-wrap: anywhere }
tbody th { font-weight: 600 }
b { color: var(--best) }
small { display: block; font-weight: 400; font-size: 11.5px; color: var(--quiet) }
th button { all: unset; cursor: pointer; font-weight: 600 } th button:focus-visible { outline: 2px solid var(--ink) }
[aria-sort=ascending] button::after { content: " ▴" } [aria-sort=descending] button::after { content: " ▾" }
figure { margin: 1.5rem 0 } figcaption { color: var(--quiet); font-size: 13px }
figure svg { display: block; width: 100%; min-width: 660px; max-width: 900px; height: auto }
figure svg * { stroke-linejoin: round }
summary { cursor: pointer; font-weight: 600 } details { margin-top: .75rem }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 17rem), 1fr)); gap: 1rem }
.card { padding: .5rem; background: var(--film); border-left: 4px solid var(--best) }
.card.wrong { border-color: var(--bad) }
.card img { display: block; width: 100%; height: auto } .card p { margin: .4rem 0 .2rem; overflow-wrap: anywhere }
.card q { font-size: 13.5px; color: var(--quiet); overflow-wrap: anywhere } .unread { font-style: italic }
footer { margin-top: 2rem; color: var(--quiet); font-size: 13px }
"""

# Sorts a table by the column whose heading is clicked: numbers from the largest, and at the next click the other way.
SCRIPT = """
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
"""


def style() -> str:
    """The CSS of the page, its colours and its figures'."""
    return theme() + _RULES
