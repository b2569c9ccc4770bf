"""The page of a comparison: its content, no requests, and no markup from names."""

from __future__ import annotations

import re
from base64 import b64encode
from hashlib import sha256
from html.parser import HTMLParser

import pytest

from experiments.documents import ARMS, ablation_document, arm, compare_document, typed, with_paper
from tiny_data import write_videos
from vop.errors import UsageError
from vop.experiments import report as reporting
from vop.experiments.report import write_html
from vop.experiments.tables import Cell, Column, Table

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """A parsed page; fails if a tag is not closed, or closed twice."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict]] = []
        self.pieces: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.handle_startendtag(tag, attributes)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("style", "script"):
            self.pieces.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.pieces).split())

    def attributes(self, name: str) -> list[str]:
        return [found[name] for _, found in self.elements if name in found]


@pytest.fixture
def report(tmp_path):
    """Writes the page of the documents: (source, parsed page)."""

    def write(*documents):
        source = write_html(list(map(typed, documents)), tmp_path / "pages" / "report.html").read_text(encoding="utf-8")
        return source, Page(source)

    return write


@pytest.fixture
def text_report(report, monkeypatch):
    """As `report`, without figures."""
    monkeypatch.setattr(reporting, "_inline", lambda *_, **__: [])
    return report


def rows(source: str) -> list[str]:
    """The lines of the first table's body."""
    return re.findall("<tr>(.*?)</tr>", source[source.index("<tbody>") : source.index("</tbody>")])


def render_table(table: Table) -> str:
    module = reporting.environment().get_template("macros.html.j2").module
    return module.sortable(table)


def small(**changes) -> dict:
    return compare_document(names=("zero-shot", "full", "vop"), **changes)


def test_the_page_states_the_protocol(text_report):
    _, page = text_report(small())
    for words in (
        "vop compare: emoji-motion",
        "vop compare --data emoji-motion --backbone mini --seeds 3",
        "Intel(R) Xeon(R) Processor, 2 cores",
        "190.4 minutes of training in all; written 2025-01-31 09:30:00+00:00",
        "version vop 0.1.0",
        "emoji-motion, split test",
        "500 texts, gallery of 500 videos (501 listed); ties: pessimistic",
        "1 video could not be read: missing from the gallery, with their captions",
        "validation-selected, epoch 11",
        "12 epochs, batch 32, 6 frames, fp32",
        "seeds 0, 1, 2: mean ± standard deviation",
        "searched on validation videos, 1e-06 to 0.01; trials: 6, epochs per trial: 2, steps per trial: at most 1,000",
        "epochs: 12, batch_size: 32",
        "baseline full",
        "videos/test-0500.mp4 the file is empty (0 bytes)",
        "runs/vop-seed2",
        "0.03: 32.5, 0.095: 31.0, 0.3: 26.5 (pruned), 0.9 (failed) 3.0",
        "vop < vop-f +3.1 +0.6 ± 1.1 ≈ within the spread",
        "✗ does not hold",
        "Order accuracy by kind of content (videos; chance 50), mean over seeds arm leave (56) move (115) zero-shot",
        "vop 38.1 44.0 36.0",
    ):
        assert words in page.text


def test_failures_are_shown(text_report):
    source, page = text_report(small(notes=["a note & more"], failures=["lora, seed 1: the loss is not finite"]))
    assert "a note & more 1 video could not be read" in page.text
    assert "failed: lora, seed 1: the loss is not finite" in page.text
    document = small()
    document["gallery"]["skipped"] = []
    assert "<li>" not in text_report(document)[0]
    assert source.index("<li>") < source.index("<table>")


def test_the_table_shows_every_number_of_an_arm(text_report):
    source, _ = text_report(small())
    row = next(row for row in rows(source) if ">vop<" in row)
    for words in ("32.5 ± 1.1", "95 %: 28.5–36.5", "30.4 ± 1.1", "49.1 ± 1.1", "-1.6", "-4.8 to +1.5", "0.0123"):
        assert f">{words}<" in row
    for words in ("21,504", "0.265 %", "0.03", "3.1 ± 0.1", "812 MB", "86 kB"):
        assert f">{words}<" in row


def test_only_the_best_value_of_a_column_is_bold(text_report):
    source, _ = text_report(compare_document())
    assert re.findall("<b>(.*?)</b>", source)[:4] == ["35.3 ± 1.1", "76.3 ± 1.1", "87.3 ± 1.1", "6.2 ± 1.1"]
    best = next(row for row in rows(source) if ">vop-f+p<" in row)
    assert re.findall("<b>(.*?)</b>", best) == ["39.7 ± 1.1", "80.7 ± 1.1", "91.7 ± 1.1", "5.6 ± 1.1", "408.9 ± 0.0"]


def test_the_papers_numbers_are_below_ours(text_report):
    source, _ = text_report(with_paper(small(data="msrvtt-9k")))
    vop, zero_shot = (next(row for row in rows(source) if f">{name}<" in row) for name in ("vop", "zero-shot"))
    assert "paper 39.6, -7.1" in vop
    assert "paper 40.1, -9.7" in vop
    assert ">-7.1<" in vop
    assert "paper" not in zero_shot


def test_one_seed_has_no_spread_and_empty_columns_are_omitted(text_report):
    bare = {"gain", "interval", "kinds", "trials", "settings", "head", "learning_rate"}
    document = compare_document(names=("vop", "vop-p"), seeds=(0,), order=[], search=None, examples=[])
    document["arms"] = [{key: row[key] for key in row.keys() - bare} for row in document["arms"]]
    for row in document["arms"]:
        row["mean"] = {key: row["mean"][key] for key in ("t2v", "v2t")}
        row["runs"] = []
    _, page = text_report(document)
    assert "±" not in page.text
    assert "37.9" in page.text
    source, _ = text_report(document)
    heads = re.findall("<button>(.*?)</button>", source[: source.index("</table>")])
    assert heads[:6] == ["arm", "t2v R@1", "t2v R@5", "t2v R@10", "t2v MdR", "t2v MnR"]
    assert heads[11:] == ["R-sum", "parameters", "paper&#39;s count"]
    for words in ("gain", "order of t2v", "by kind", "found first", "were tried", "Trainings"):
        assert words not in page.text


def test_heads_are_named_if_they_differ(text_report):
    document = small()
    document["arms"][2]["head"] = "x-pool"
    source, page = text_report(document)
    assert "head meanP, x-pool" in page.text
    assert "<small>head x-pool</small>" in rows(source)[2]
    assert "<small>head" not in text_report(small())[0]


def test_all_figures_are_shown_with_unique_ids(report):
    source, page = report(compare_document(), ablation_document())
    labels = [found["aria-label"] for tag, found in page.elements if tag == "svg"]
    figures = ["Gains over the baseline", "Retrieval over trained parameters", "Training", "Learning rates"]
    assert labels == [*figures, "Ablation", "Training", "Learning rates"]
    ids = page.attributes("id")
    assert len(ids) == len(set(ids))
    used = re.findall(r"url\(#(.*?)\)", source) + [link[1:] for link in page.attributes("href")]
    assert len(used) > 100
    assert set(used) <= set(ids)
    assert all(name in page.pieces for name in ARMS)


def test_all_css_colours_are_defined(report):
    source, _ = report(small())
    assert set(re.findall(r"var\((--[\w-]+)\)", source)) == set(re.findall(r"(--[\w-]+):", source))


def test_combined_figures_come_before_the_sections(report):
    source, page = report(small(), small(), ablation_document())
    sections = [found["id"] for tag, found in page.elements if tag == "section"]
    assert sections == ["emoji-motion-compare", "emoji-motion-compare-2", "emoji-motion-length"]
    assert [found["href"][1:] for tag, found in page.elements if tag == "a"] == sections
    assert source.index("<nav>") < source.index('aria-label="Gains') < source.index("<section")
    alone, _ = report(small())
    assert "<nav>" not in alone
    assert alone.index("<section") < alone.index("<table>") < alone.index('aria-label="Gains')


def test_the_page_requests_nothing(report, tmp_path):
    path = str(write_videos(tmp_path / "videos")[0])
    found = [{"arm": "vop", "path": path, "right": True, "caption": "red"}]
    source, page = report(small(examples=[{"sentence": "red", "path": path, "found": found}]))
    assert "://" not in source
    assert "@import" not in source
    assert not {"link", "iframe", "object", "embed", "base", "form"} & {tag for tag, _ in page.elements}
    assert all(link.startswith("#") for link in page.attributes("href") + page.attributes("xlink:href"))
    assert all(link.startswith("data:image/webp;base64,") for link in page.attributes("src"))
    assert len(page.attributes("src")) == 2
    policy = page.attributes("content")[0]
    assert "default-src 'none'" in policy
    (script,) = re.findall("<script>(.*?)</script>", source, re.DOTALL)
    assert f"script-src 'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'" in policy


EVIL = "<script>alert('x')</script>\"><img src=x onerror=alert(1)> </title></style> & \ud800 {0}"


def test_names_never_become_markup(report):
    document = small(command=EVIL, machines=[EVIL, EVIL], vop_versions=[EVIL], written=EVIL, data=EVIL, split=EVIL)
    document["recipe"] |= {"precision": EVIL, EVIL: EVIL}
    document["search"] |= {EVIL.replace("\ud800", ""): EVIL}
    document["arms"][2] |= {"name": EVIL, "method": EVIL, "head": EVIL, "settings": {EVIL: EVIL}}
    document["arms"][2]["mean"]["extras"] = {EVIL: 3.0}
    document["arms"][0]["kinds"] = {EVIL: {"videos": 1, "t2v_r1": 3.0}}
    document["arms"][2]["runs"][0] |= {"run": EVIL, "selection": EVIL, "machine": EVIL}
    document["arms"][2]["trials"][0]["state"] = EVIL
    document["gallery"]["skipped"] = [{"id": EVIL, "path": EVIL, "reason": EVIL}]
    document["left_out_of_training"] = [{"id": EVIL, "path": EVIL, "reason": EVIL}]
    document |= {"notes": [EVIL], "failures": [EVIL]}
    document["order"][0] |= {"lower": EVIL, "higher": EVIL, "verdict": EVIL}
    found = [{"arm": EVIL, "path": EVIL, "right": False, "caption": EVIL}]
    document["examples"] = [{"sentence": EVIL, "path": EVIL, "found": found}]
    source, page = report(document)
    assert [tag for tag, _ in page.elements if tag in ("script", "style", "img")] == ["style", "script"]
    assert not [name for _, found in page.elements for name in found if name.startswith("on")]
    assert source.count("<script>") == 1
    assert page.text.count("<script>alert('x')</script>") >= 30


def test_examples_are_film_strips_with_marks(text_report, tmp_path, monkeypatch):
    red, green, *_ = map(str, write_videos(tmp_path / "videos"))
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"")
    decoded = []
    whole = reporting.frames.read_frames
    monkeypatch.setattr(reporting.frames, "read_frames", lambda path, **kw: decoded.append(path) or whole(path, **kw))

    def clip(name, path, right, caption):
        return {"arm": name, "path": str(path), "right": right, "caption": caption}

    found = [clip("full", green, False, "it is green"), clip("vop", red, True, "it is red")]
    found += [clip("lora", green, False, "it is green"), clip("bias", broken, False, "nothing")]
    example = {"sentence": "a red thing", "path": red, "found": found}
    source, page = text_report(small(examples=[example, example]))
    assert sorted(decoded) == sorted([red, green, str(broken)])
    assert len(page.attributes("src")) == 2 * 3
    assert "“a red thing” the right video ✓ right : vop it is red ✗ wrong : full, lora it is green" in page.text
    assert f"{broken.name}: the file is empty (0 bytes) ✗ wrong : bias nothing" in page.text
    assert source.count('class="card wrong"') == 2 * 2
    assert "OpenMoji" in page.text
    assert "OpenMoji" not in text_report(small(data="mine", examples=[example]))[1].text


def test_empty_reports_are_refused(tmp_path):
    with pytest.raises(UsageError, match="no results"):
        write_html([], tmp_path / "report.html")
    assert not list(tmp_path.iterdir())


def test_columns_sort_by_unrounded_values():
    columns = [
        Column("name", lambda row: Cell(row[0])),
        Column("R@1", lambda row: Cell(f"{row[1]:.1f}", row[1]) if row[1] else Cell(), best=max),
    ]
    table = render_table(Table("", columns, [("a", 9.04), ("b", 10.52), ("c", None)]))
    assert re.findall('data-value="(.*?)"', table) == ["9.04", "10.52"]
    assert re.findall("<td>(.*?)</td>|<td [^>]*>(.*?)</td>", table) == [("", "9.0"), ("", "<b>10.5</b>"), ("–", "")]
    assert re.findall("<th scope=.row. class=.text.>(.*?)</th>", table) == ["a", "b", "c"]


def test_machines_are_named_per_run_if_they_differ(text_report):
    document = small(machines=["a laptop", "an H100"])
    document["arms"][2]["runs"][1]["machine"] = "an H100"
    source, page = text_report(document)
    assert "machine a laptop; an H100" in page.text
    trainings = source[source.index("<summary>Trainings") :]
    assert "an H100" in trainings[: trainings.index("</details>")]
    alone, _ = text_report(small())
    assert alone.count("Xeon") == 1


def test_videos_skipped_in_training_are_listed(text_report):
    left_out = [{"id": str(n), "path": f"{n}.mp4", "reason": "moov atom not found"} for n in range(2)]
    _, page = text_report(small(left_out_of_training=left_out))
    assert "2 videos could not be read: left out of the training" in page.text
    assert "Videos left out of the training (2) id path reason 0 0.mp4 moov atom not found" in page.text
    assert "left out" not in text_report(small())[1].text


def test_untrained_arms_are_reported_as_untrained(text_report):
    _, page = text_report(compare_document() | {"arms": [arm("zero-shot", (0,))]})
    assert "weights untrained" in page.text
