"""The figures of a comparison: marks, positions and labels."""

from __future__ import annotations

from itertools import combinations
from xml.etree import ElementTree

import matplotlib
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex

from experiments.documents import (
    ARMS,
    ablation_document,
    arm,
    compare_document,
    typed,
    typed_arm,
    with_paper,
    with_paper_average,
)
from vop.errors import UsageError
from vop.experiments import figures
from vop.experiments.figures import COLOURS, PAPER, file_name, looks, save_figure, svg_text
from vop.experiments.results import ABLATION_TITLES, file_stems


def of_document(draw):
    """Takes one or several documents instead of typed results."""
    return lambda given: draw([typed(one) for one in given] if isinstance(given, list) else typed(given))


ablation = of_document(figures.ablation)
gain_by_parameters = of_document(figures.gain_by_parameters)
gains_by_benchmark = of_document(figures.gains_by_benchmark)
learning_rates = of_document(figures.learning_rates)
training_curves = of_document(figures.training_curves)
figures_of = of_document(figures.figures_of)
stems = of_document(file_stems)


def paper_average(document: dict, row: dict) -> float | None:
    return typed(document).paper_average(typed_arm(row))


def paper_gain(document: dict, row: dict) -> float | None:
    return typed(document).paper_gain(typed_arm(row))


def save_figures(documents, folder) -> None:
    for stem, drawn in figures_of(documents).items():
        for name, draw in drawn.items():
            save_figure(draw(), folder, f"{stem}-{name}" if stem else name)


TRAINED = [name for name in ARMS if name != "zero-shot"]


def texts(figure) -> list[str]:
    root = ElementTree.fromstring(svg_text(figure))
    return [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]


def hollow(axes, marker: str) -> dict[float, float]:
    """The paper's points."""
    lines = [line for line in axes.lines if line.get_marker() == marker and line.get_markerfacecolor() == PAPER]
    return {x: y for line in lines for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)}


def test_arms_are_points_of_parameters_and_gain():
    figure = gain_by_parameters(compare_document())
    (axes,) = figure.axes
    found = [(bar[0].get_xdata()[0], bar[0].get_ydata()[0]) for bar in axes.containers]
    rows = {row["name"]: row for row in compare_document()["arms"]}
    full = rows["full"]["mean"]["t2v"]["r1"]
    for (x, y), name in zip(found, TRAINED, strict=True):
        assert x == rows[name]["parameters"]["true_percent"]
        assert y == pytest.approx(rows[name]["mean"]["t2v"]["r1"] - full)
    assert axes.get_xscale() == "log"
    assert set(TRAINED) | {"zero-shot", "t2v R@1, points over full"} <= set(texts(figure))
    dashed = [line for line in axes.lines if line.get_linestyle() == "--"]
    assert [line.get_ydata()[0] for line in dashed] == [pytest.approx(18.6 - full)]


def test_error_bars_show_the_spread():
    (axes,) = gain_by_parameters(compare_document(names=("full", "vop"))).axes
    for bar in axes.containers:
        ((_, low), (_, high)) = bar[2][0].get_segments()[0]
        assert high - low == pytest.approx(2 * 1.1)


def test_without_a_baseline_the_figure_shows_recall():
    figure = gain_by_parameters(compare_document(names=("vop", "vop-p")))
    (axes,) = figure.axes
    assert [bar[0].get_ydata()[0] for bar in axes.containers] == [32.5, 37.9]
    assert "t2v R@1" in texts(figure)


def test_labels_of_close_points_do_not_overlap():
    rows = compare_document(baseline=None)["arms"][1:]
    for n, row in enumerate(rows):
        row["mean"]["t2v"]["r1"] = 30 + 0.15 * (n % 4)
        row["parameters"]["true_percent"] = 1 + 0.02 * n
        row.pop("gain", None)
    figure = gain_by_parameters(compare_document(baseline=None) | {"arms": rows})
    (axes,) = figure.axes
    figure.draw_without_rendering()
    renderer = FigureCanvasAgg(figure).get_renderer()
    names = [text for text in axes.texts if text.get_text() in TRAINED]
    assert len(names) == len(TRAINED)
    boxes = [matplotlib.text.Text.get_window_extent(text, renderer) for text in names]  # without the leading line
    assert not [pair for pair in combinations(boxes, 2) if pair[0].overlaps(pair[1])]
    inside = axes.get_window_extent(renderer)
    assert all(inside.contains(*corner) for box in boxes for corner in (box.min, box.max))


def test_long_labels_stay_inside_the_figure():
    name = "full-with-a-very-long-name-of-forty-signs"
    document = compare_document(names=("vop", "full"), baseline=None)
    document["arms"][1]["name"] = name
    figure = gain_by_parameters(document)
    (axes,) = figure.axes
    figure.draw_without_rendering()
    renderer = FigureCanvasAgg(figure).get_renderer()
    (text,) = (text for text in axes.texts if text.get_text() == name)
    box, inside = text.get_window_extent(renderer), axes.get_window_extent(renderer)
    assert inside.contains(*box.min)
    assert inside.contains(*box.max)


def test_gains_are_bars_next_to_the_papers():
    documents = [compare_document(), with_paper(compare_document(data="msrvtt-9k", names=("full", "vop", "vop-p")))]
    ours, paper = gains_by_benchmark(documents).axes
    assert [axes.get_title(loc="left") for axes in (ours, paper)] == ["emoji-motion", "msrvtt-9k"]
    names = [label.get_text() for label in ours.get_yticklabels()]
    assert names == [name for name in ARMS if name != "full"]
    widths = {names[round(bar.get_y() + 0.31)]: bar.get_width() for bar in paper.patches}
    assert widths == {"vop": pytest.approx(32.5 - 34.1), "vop-p": pytest.approx(37.9 - 34.1)}
    (low, _), (high, _) = paper.collections[0].get_segments()[0]
    assert high - low == pytest.approx(2 * 1.1)
    assert hollow(ours, "D") == {}
    found = {names[int(y)]: x for x, y in hollow(paper, "D").items()}
    assert found == {"vop": pytest.approx(39.6 - 41.7), "vop-p": pytest.approx(40.1 - 41.7)}


def test_the_papers_average_gain_has_its_own_marker_and_label():
    names = ("zero-shot", "full", "vop", "vop-p")
    documents = [with_paper_average(compare_document(names=names)), with_paper(compare_document(names=names[1:]))]
    figure = gains_by_benchmark(documents)
    average, own = figure.axes
    assert hollow(average, "D") == hollow(own, "o") == {}
    for points in (hollow(average, "o"), hollow(own, "D")):
        assert {round(x, 6): y for x, y in points.items()} == {-2.1: 1, -1.6: 2}
    said = "the paper, average over its five benchmarks"
    assert {said, "the paper"} <= set(texts(figure))
    assert said not in texts(gains_by_benchmark(documents[1:]))
    assert not gains_by_benchmark([compare_document(names=names)]).legends


def test_the_papers_gains_are_shown_only_over_full():
    document = with_paper_average(compare_document(names=("zero-shot", "full", "vop", "vop-p")))
    zero_shot, _, vop, _ = document["arms"]
    assert paper_average(document, vop) == pytest.approx(39.6 - 41.7)
    assert paper_average(document, zero_shot | {"paper_average_gain": -10.2}) is None  # of one benchmark
    for baseline in ("vop-p", None):
        assert paper_average(document | {"baseline": baseline}, vop) is None
    measured = with_paper(document)
    own = measured["arms"][2]
    assert paper_gain(measured, own) == pytest.approx(39.6 - 41.7)
    assert paper_average(measured, own) is None
    assert paper_gain(measured | {"baseline": "vop-p"}, own) is None


def test_curves_show_each_seed_and_the_mean():
    document = compare_document(names=("zero-shot", "full", "vop"))
    short = document["arms"][2]["runs"][0]
    short["history"] = short["history"][:7]
    figure = training_curves(document)
    loss, recall = figure.axes
    colour = COLOURS["vop"]
    lines = [line for line in recall.lines if to_hex(line.get_color()) == colour and line.get_marker() == "None"]
    *seeds, mean = lines
    assert [len(line.get_xdata()) for line in seeds] == [7, 12, 12]
    assert list(mean.get_xdata()) == list(range(1, 8))
    assert mean.get_ydata()[3] == pytest.approx(sum(line.get_ydata()[3] for line in seeds) / 3)
    assert [text.get_text() for text in recall.get_legend().get_texts()] == ["full", "vop"]
    chosen = [line for line in recall.lines if line.get_marker() == "o" and to_hex(line.get_color()) == colour]
    assert [line.get_xdata()[0] for line in chosen] == [11, 11]  # the short history ends before epoch 11
    assert loss.get_ylabel() == "training loss"


def test_searches_show_pruned_failed_and_chosen_rates():
    document = compare_document(names=("full", "vop", "vop-p", "vop-c", "vop-f"))
    document["arms"][1]["trials"].append({"learning_rate": 0.03, "score": 12.0, "state": "failed"})
    figure = learning_rates(document)
    panels = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title(loc="left") for axes in panels] == ["full", "vop", "vop-p", "vop-c", "vop-f"]
    points = [line for line in panels[1].lines if len(line.get_xdata()) == 1]
    hollow = [line for line in points if line.get_markerfacecolor() == PAPER and line.get_marker() == "o"]
    assert [line.get_xdata()[0] for line in hollow] == [pytest.approx(0.3)]
    ringed = [line for line in points if line.get_markerfacecolor() == "none"]
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in ringed] == [(0.03, 32.5)]
    assert [line.get_xdata()[0] for line in points if line.get_marker() == "x"] == [0.03, pytest.approx(0.9)]
    assert "0.03" in texts(figure)


def test_ablations_over_numbers_are_lines():
    document = ablation_document(values=(20, 4, 12))
    reference = arm("vop-p", (0, 1))
    document["arms"].append(reference)
    figure = ablation(document)
    (axes,) = figure.axes
    t2v, v2t, level = axes.lines
    assert list(t2v.get_xdata()) == [4, 12, 20]
    assert list(t2v.get_ydata()) == [32.25, 32.25, 30.25]
    assert list(v2t.get_ydata()) == [29.4, 30.4, 26.4]
    assert level.get_ydata()[0] == 37.9
    assert {"text to video", "video to text", "vop-p", "4", "12", "20"} <= set(texts(figure))
    band = axes.collections[0].get_paths()[0].get_extents()
    assert (band.y0, band.y1) == (pytest.approx(30.25 - 1.1), pytest.approx(32.25 + 1.1))


def test_ablations_over_names_are_bars():
    document = ablation_document("cmm", ("lstm", "bilstm"))
    document["arms"][1]["paper"] = {"t2v": {"r1": 40.8}}
    (axes,) = ablation(document).axes
    assert [bar.get_height() for bar in axes.patches] == [30.25, 32.25, 26.4, 29.4]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["cmm=lstm", "cmm=bilstm"]
    assert hollow(axes, "D") == {0.8: 40.8}


@pytest.mark.parametrize("study", ABLATION_TITLES)
def test_ablations_use_the_papers_terms(study):
    title, axis = ABLATION_TITLES[study]
    found = texts(ablation(ablation_document(study)))
    assert f"emoji-motion: {title}" in found
    assert axis in found


def test_methods_keep_their_colour_and_arms_differ():
    def row(name, method):
        return typed_arm(arm("vop", (0,)) | {"name": name, "method": method})

    assert looks([row("vop-p", "vop-p")])["vop-p"] == looks([row("vop", "vop"), row("vop-p", "vop-p")])["vop-p"]
    many = looks([row(str(n), "vop") for n in range(20)] + [row("mine", "my-method")])
    assert many["0"].colour == COLOURS["vop"]
    assert len(set(many.values())) == 21
    assert len(set(COLOURS.values())) == len(COLOURS)


@pytest.mark.parametrize("name", [r"$\frac{", "a $b$ c", r"\$x", "<b>&"])
def test_names_are_drawn_literally(name):
    document = compare_document(names=("full", "vop"))
    document["arms"][1]["name"] = name
    drawn = figures_of([document])
    assert all(name in texts(draw()) for draw in drawn["emoji-motion-compare"].values())
    assert name in texts(drawn[""]["gains"]())


def test_unprintable_characters_are_drawn_as_question_marks():
    document = compare_document(names=("full", "vop"), data="a\ud800\x07b")
    assert "a??b: training" in texts(training_curves(document))


def test_figures_without_data_are_omitted():
    def names(document):
        return {stem: list(figures) for stem, figures in figures_of([document]).items()}

    bare = arm("vop", (0,)) | {"trials": [], "runs": []}
    assert names(compare_document(baseline=None) | {"arms": [bare]}) == {"": [], "emoji-motion-compare": ["parameters"]}
    assert names(ablation_document() | {"baseline": "length=8"})[""] == []
    assert names(compare_document()) == {"": ["gains"], "emoji-motion-compare": ["parameters", "curves", "rates"]}
    assert names(ablation_document()) == {"": [], "emoji-motion-length": ["ablation", "curves", "rates"]}


def test_figures_without_data_are_refused():
    untrained = compare_document(names=("zero-shot",))
    for draw, words in (
        (gain_by_parameters, "emoji-motion: 0 arms with trained parameters"),
        (training_curves, "emoji-motion: 0 arms with a training history"),
        (learning_rates, "emoji-motion: 0 arms with trials"),
    ):
        with pytest.raises(UsageError, match=words):
            draw(untrained)
    with pytest.raises(UsageError, match="emoji-motion: 0 arms in the ablation"):
        ablation(ablation_document() | {"arms": []})
    with pytest.raises(UsageError, match="0 comparisons with a baseline"):
        gains_by_benchmark([untrained])


def test_figure_files_are_named_and_reproducible(tmp_path):
    before = dict(matplotlib.rcParams)
    documents = [compare_document(names=("full", "vop")), ablation_document(data="My data/2")]
    save_figures(documents, tmp_path / "one")
    names = ["gains", "emoji-motion-compare-parameters", "emoji-motion-compare-curves", "emoji-motion-compare-rates"]
    names += [f"my-data-2-length-{name}" for name in ("ablation", "curves", "rates")]
    names = [f"{figure}.{kind}" for figure in names for kind in ("svg", "png")]
    assert names == [
        file_name(stem, name, kind)
        for stem, drawn in figures_of(documents).items()
        for name in drawn
        for kind in ("svg", "png")
    ]
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == sorted(names)
    save_figures(documents, tmp_path / "two")
    for name in names:
        content = (tmp_path / "one" / name).read_bytes()
        assert content == (tmp_path / "two" / name).read_bytes()
        assert content.startswith(b"\x89PNG" if name.endswith("png") else b"<?xml")
    assert dict(matplotlib.rcParams) == before


def test_documents_with_the_same_name_get_different_files():
    assert stems([compare_document(), compare_document(), compare_document(data="…")]) == [
        "emoji-motion-compare",
        "emoji-motion-compare-2",
        "compare",
    ]
