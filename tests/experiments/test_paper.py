"""The paper's table in the package."""

from __future__ import annotations

from dataclasses import replace

import pytest

from experiments.documents import arm, metrics, typed_arm
from vop.experiments import paper
from vop.experiments.plan import arms_of
from vop.methods import METHODS


def test_rows_of_the_paper():
    assert len(paper.results()) == 5
    assert paper.row("msrvtt-9k", "vop-f+c").t2v == {"r1": 44.6, "r5": 69.9, "r10": 80.3, "mnr": 16.3, "mdr": 2}
    assert paper.row("msrvtt-9k", "zero-shot").t2v["r1"] == 31.5
    assert paper.row("emoji-motion", "vop") is None
    assert {method for rows in paper.results().values() for method in rows} <= METHODS.keys()


def test_later_methods_have_the_rows_of_their_papers():
    assert paper.row("msrvtt-9k", "tempme").t2v == {"r1": 46.1, "r5": 71.8, "r10": 80.7}
    assert paper.row("msrvtt-9k", "dgl-transformer").t2v == {"r1": 45.8, "r5": 69.3, "r10": 79.4}
    assert paper.row("msrvtt-9k", "stop").t2v == {"r1": 47.7, "r5": 71.4, "r10": 81.1}
    assert paper.average_gain("tempme") is None  # its training is not the paper's
    for arm_name in (name for rows in paper.later_results().values() for name in rows):
        assert arms_of([arm_name])[0].has_usual_settings


def test_heads_with_full_fine_tuning_have_the_rows_of_their_papers():
    assert paper.row("msrvtt-9k", "full/seqTransf").t2v == {"r1": 44.5, "r5": 71.4, "r10": 81.6}
    assert paper.row("msrvtt-9k", "full/x-pool").t2v == {"r1": 46.9, "r5": 72.8, "r10": 82.2}
    assert paper.average_gain("full/x-pool") is None
    (own,) = arms_of(["full/x-pool"])
    assert own.has_usual_settings
    assert not own.is_default
    assert not replace(own, settings={"head.dropout": 0.5}).has_usual_settings


@pytest.mark.parametrize(("method", "gain"), [("vop", -2.8), ("vop-f", 0.3), ("vop-f+p", 1.2), ("vop-f+c", 1.4)])
def test_average_gains_match_the_paper(method, gain):
    assert paper.average_gain(method) == pytest.approx(gain, abs=0.051)


def both(r1: float) -> dict:
    return {"t2v": metrics(r1), "v2t": metrics(r1)}


def test_the_verdict_depends_on_the_spread():
    means = {"vop": 30.0, "vop-p": 32.0, "vop-c": 30.4, "vop-f": 29.0}
    rows = [arm(name, (0,)) | {"mean": both(mean), "spread": both(0.5)} for name, mean in means.items()]
    rows[-1]["spread"] = None
    found = {(pair.lower, pair.higher): pair for pair in paper.order([typed_arm(row) for row in rows])}
    assert found.keys() == {("vop", "vop-p"), ("vop", "vop-c"), ("vop", "vop-f")}
    assert found["vop", "vop-p"].verdict == "holds"
    assert found["vop", "vop-c"].verdict == "within the spread"
    assert found["vop", "vop-f"].verdict == "does not hold"
    assert found["vop", "vop-p"].ours == 2.0
    assert found["vop", "vop-p"].spread == pytest.approx(0.5**0.5)
    assert found["vop", "vop-p"].paper == pytest.approx(0.56)


def test_orders_name_known_methods():
    assert {name for pair in paper.ORDER for name in pair} <= METHODS.keys()
