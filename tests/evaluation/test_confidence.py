"""Bootstrap intervals and the paired test, against naive loops, SciPy and simulated data with a known truth."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from vop.datasets.types import Split, Video
from vop.errors import UsageError
from vop.evaluation import confidence
from vop.evaluation.confidence import CUTS, DIRECTIONS, QueryRanks, bootstrap_intervals, paired_test, read_ranks
from vop.evaluation.metrics import retrieval_metrics
from vop.evaluation.report import EvaluationReport


def random_ranks(seed=0, *, captions=(3, 1, 4, 2, 1, 5, 2, 2, 1, 3), success=0.3, **facts):
    """Geometric ranks of shuffled captions; `captions` counts those of each video."""
    rng = np.random.default_rng(seed)
    targets = np.random.default_rng(99).permutation(np.repeat(np.arange(len(captions)), captions))
    return QueryRanks(rng.geometric(success, len(targets)), rng.geometric(success, len(captions)), targets, **facts)


def pairs(t2v, v2t=None):
    """One caption per video."""
    return QueryRanks(t2v, t2v if v2t is None else v2t, np.arange(len(t2v)))


def naive_recall(ranks, videos, direction, cut):
    """R@K over a list of videos, in which a video can occur several times."""
    if direction == "v2t":
        return 100 * np.mean([ranks.v2t[video] <= cut for video in videos])
    return 100 * np.mean([rank <= cut for video in videos for rank in ranks.t2v[ranks.targets == video]])


def every_recall():
    return [(direction, name, cut) for direction in DIRECTIONS for name, cut in CUTS.items()]


class TestIntervals:
    def test_equal_a_loop_with_the_same_draws(self):
        ranks = random_ranks()
        found = bootstrap_intervals(ranks, resamples=200, level=0.9, seed=7)
        draws = np.random.default_rng(7).integers(10, size=(200, 10))
        for direction, name, cut in every_recall():
            recalls = [naive_recall(ranks, drawn, direction, cut) for drawn in draws]
            assert getattr(found, direction)[name] == pytest.approx(np.percentile(recalls, [5, 95]))

    def test_agree_with_scipy_on_clusters(self):
        ranks = random_ranks(captions=np.random.default_rng(5).integers(1, 8, size=150))
        hits = np.array([np.sum(ranks.t2v[ranks.targets == video] <= 5) for video in range(150)])
        expected = stats.bootstrap(
            (hits, np.bincount(ranks.targets)),
            lambda hit, count, axis: 100 * hit.sum(axis) / count.sum(axis),
            paired=True,
            method="percentile",
            n_resamples=20_000,
            rng=np.random.default_rng(1),
        ).confidence_interval
        found = bootstrap_intervals(ranks, resamples=20_000, seed=3)
        assert found.t2v["r5"] == pytest.approx(expected, abs=0.3)

    def test_do_not_depend_on_block_size(self, monkeypatch):
        first, second = random_ranks(1), random_ranks(2)
        whole = bootstrap_intervals(first), paired_test(first, second)
        monkeypatch.setattr(confidence, "BLOCK_CELLS", 37)
        assert (bootstrap_intervals(first), paired_test(first, second)) == whole

    def test_depend_only_on_the_seed(self):
        ranks = random_ranks()
        assert bootstrap_intervals(ranks, seed=1) == bootstrap_intervals(ranks, seed=1)
        assert bootstrap_intervals(ranks, seed=1) != bootstrap_intervals(ranks, seed=2)

    @given(
        captions=st.lists(st.integers(1, 4), min_size=1, max_size=12),
        success=st.floats(0.05, 0.9),
        seed=st.integers(0, 1000),
    )
    @settings(max_examples=40, deadline=None)
    def test_lie_in_range_and_widen_with_the_level(self, captions, success, seed):
        ranks = random_ranks(seed, captions=captions, success=success)
        narrow, wide = (bootstrap_intervals(ranks, level=level, resamples=100) for level in (0.5, 0.99))
        for direction, name, _ in every_recall():
            low, high = getattr(narrow, direction)[name]
            lowest, highest = getattr(wide, direction)[name]
            assert 0 <= lowest <= low <= high <= highest <= 100

    def test_collapse_without_variation(self):
        found = bootstrap_intervals(pairs([1, 1, 1, 7]), resamples=100)
        assert found.t2v["r10"] == (100, 100)
        assert found.t2v["r1"][0] < 75 < found.t2v["r1"][1]

    def test_ignore_videos_without_a_text(self):
        metrics = retrieval_metrics(np.eye(3)[[0, 2, 2]], targets=[0, 2, 2])
        gaps = QueryRanks(metrics.t2v.ranks, metrics.v2t.ranks, [0, 2, 2])
        assert bootstrap_intervals(gaps) == bootstrap_intervals(QueryRanks([1, 1, 1], [1, 1], [0, 1, 1]))

    def test_cover_the_truth_with_correlated_captions(self):
        """All captions of a video are easy or hard: intervals over captions would be too narrow."""
        rng = np.random.default_rng(0)
        videos, captions, datasets = 120, 6, 300
        targets = np.repeat(np.arange(videos), captions)
        covered = {"by video": 0, "by caption": 0, "v2t": 0}
        for _ in range(datasets):
            easy = rng.beta(0.8, 0.8, size=videos)  # a mean of 0.5
            t2v = np.where(rng.random(len(targets)) < easy[targets], 1, 20)
            v2t = np.where(rng.random(videos) < 0.3, 1, 20)
            found = bootstrap_intervals(QueryRanks(t2v, v2t, targets), resamples=300)
            covered["by video"] += found.t2v["r1"][0] <= 50 <= found.t2v["r1"][1]
            covered["v2t"] += found.v2t["r1"][0] <= 30 <= found.v2t["r1"][1]
            low, high = bootstrap_intervals(pairs(t2v), resamples=300).t2v["r1"]
            covered["by caption"] += low <= 50 <= high
        share = {kind: count / datasets for kind, count in covered.items()}
        assert 0.90 <= share["by video"] <= 0.985
        assert 0.90 <= share["v2t"] <= 0.985
        assert share["by caption"] < 0.85


class TestPairedTest:
    def test_equals_a_loop_with_the_same_draws(self):
        first, second = random_ranks(1, success=0.4), random_ranks(2, success=0.3)
        found = paired_test(first, second, resamples=150, swaps=99, seed=11)
        draws = np.random.default_rng(11).integers(10, size=(150, 10))
        signs = 2 * np.random.default_rng(11).integers(2, size=(99, 10)) - 1
        for direction, name, cut in every_recall():
            recalls = [naive_recall(ranks, range(10), direction, cut) for ranks in (first, second)]
            of_draws = [[naive_recall(ranks, drawn, direction, cut) for drawn in draws] for ranks in (first, second)]
            one = getattr(found, direction)[name]
            assert (one.first, one.second) == pytest.approx(recalls)
            assert one.difference == pytest.approx(recalls[0] - recalls[1])
            assert one.interval == pytest.approx(np.percentile(np.subtract(*of_draws), [2.5, 97.5]))
            assert one.p == naive_p(first, second, direction, cut, signs)

    def test_equals_mcnemars_exact_test_with_one_query_per_video(self):
        """Only the first model finds 40 of the videos, only the second another 22."""
        first = pairs([1] * 40 + [2] * 22 + [1] * 100 + [3] * 30)
        second = pairs([2] * 40 + [1] * 22 + [1] * 100 + [3] * 30)
        exact = stats.binomtest(40, 62).pvalue
        found = paired_test(first, second, swaps=40_000).t2v["r1"]
        assert found.difference == pytest.approx(100 * 18 / 192)
        assert found.p == pytest.approx(exact, abs=0.004)

    def test_agrees_with_scipys_permutations_of_clusters(self):
        first, second = random_ranks(3, success=0.45), random_ranks(4, success=0.3)
        hits = [np.bincount(ranks.targets, weights=ranks.t2v <= 1) for ranks in (first, second)]
        exact = stats.permutation_test(
            hits, lambda one, other: np.sum(one - other), permutation_type="samples", n_resamples=np.inf
        ).pvalue
        assert paired_test(first, second, swaps=40_000).t2v["r1"].p == pytest.approx(exact, abs=0.01)

    def test_finds_no_difference_between_equal_results(self):
        test = paired_test(random_ranks(1), random_ranks(1))
        for direction, name, _ in every_recall():
            found = getattr(test, direction)[name]
            assert (found.difference, found.interval, found.p) == (0, (0, 0), 1)

    def test_finds_a_clear_difference_and_its_sign(self):
        captions = [2] * 100
        good, bad = (random_ranks(4, captions=captions, success=success) for success in (0.6, 0.2))
        better, worse = paired_test(good, bad).t2v["r1"], paired_test(bad, good).t2v["r1"]
        assert better.p == worse.p == 1 / 10_001
        assert better.interval[0] > 20
        assert worse.interval == pytest.approx((-better.interval[1], -better.interval[0]), abs=1)
        assert worse.difference == -better.difference

    def test_rarely_rejects_a_true_null(self):
        """Two equally good models, with correlated captions of a video."""
        rng = np.random.default_rng(2)
        targets = np.repeat(np.arange(100), 4)
        p = []
        for _ in range(300):
            easy = rng.random((2, 100))
            models = [
                QueryRanks(np.where(rng.random(400) < e[targets], 1, 20), np.where(rng.random(100) < e, 1, 20), targets)
                for e in easy
            ]
            p.append(paired_test(*models, resamples=1, swaps=400).t2v["r1"].p)
        assert 0.02 <= np.mean(np.array(p) <= 0.05) <= 0.08
        assert stats.kstest(p, "uniform").statistic < 0.1

    def test_p_is_never_zero(self):
        found = paired_test(pairs([1] * 50), pairs([2] * 50), swaps=9)
        assert found.t2v["r1"].p == 0.1
        assert found.t2v["r5"].p == 1.0


def naive_p(first, second, direction, cut, signs):
    """(b + 1) / (m + 1) in integers, one video and one relabelling at a time."""
    if direction == "v2t":
        change = [int(a <= cut) - int(b <= cut) for a, b in zip(first.v2t, second.v2t, strict=True)]
    else:
        change = [0] * len(first.v2t)
        for video, a, b in zip(first.targets, first.t2v, second.t2v, strict=True):
            change[video] += int(a <= cut) - int(b <= cut)
    totals = [sum(int(sign) * c for sign, c in zip(row, change, strict=True)) for row in signs]
    return (sum(abs(total) >= abs(sum(change)) for total in totals) + 1) / (len(signs) + 1)


class TestGalleries:
    def test_of_other_sizes_are_refused(self):
        other = random_ranks(captions=(3, 1, 4))
        with pytest.raises(UsageError, match="24 texts and 10 videos against 8 texts and 3 videos"):
            paired_test(random_ranks(), other)

    def test_of_other_contents_are_refused(self):
        with pytest.raises(UsageError, match="fingerprint 'a1' against 'b2'"):
            paired_test(random_ranks(fingerprint="a1"), random_ranks(fingerprint="b2"))

    def test_of_other_targets_are_refused(self):
        ranks = [1, 1, 1]
        with pytest.raises(UsageError, match="captions belong to different videos"):
            paired_test(QueryRanks(ranks, ranks[:2], [0, 0, 1]), QueryRanks(ranks, ranks[:2], [0, 1, 1]))

    def test_with_another_tie_rule_are_refused(self):
        with pytest.raises(UsageError, match="pessimistic against optimistic"):
            paired_test(random_ranks(), random_ranks(tie_rule="optimistic"))


def test_fingerprints_depend_on_the_content_of_a_split():
    def split(name="test", ids=("a", "b"), captions=("x", "y", "z"), targets=(0, 1, 1), folder="videos"):
        return Split(name, tuple(Video(id, f"{folder}/{id}.mp4") for id in ids), captions, targets)

    same = split().fingerprint
    assert len(same) == 16
    assert int(same, 16) >= 0
    assert split("val", folder="elsewhere").fingerprint == same
    others = [split(ids=("a", "c")), split(captions=("x", "y", "w")), split(targets=(0, 0, 1)), split(ids=("b", "a"))]
    assert len({same, *(other.fingerprint for other in others)}) == 5


def make_report(seed, method):
    scores = np.random.default_rng(seed).random((6, 4))
    targets = (0, 1, 2, 3, 1, 1)
    metrics = retrieval_metrics(scores, targets=targets)
    return EvaluationReport(method, "mine", "test", metrics, 4, 6, fingerprint="f00d", targets=targets)


class TestSavedReports:
    def test_give_the_same_test(self, tmp_path):
        first, second = make_report(1, "vop"), make_report(2, "zero-shot")
        for name, report in (("first", first), ("second", second)):
            (tmp_path / f"{name}.json").write_text(json.dumps(report.to_dict()))
        saved = paired_test(read_ranks(tmp_path / "first.json"), read_ranks(tmp_path / "second.json"))
        assert saved == paired_test(first.ranks, second.ranks)
        assert saved.names == ("vop", "zero-shot")
        found = json.loads(json.dumps(saved.to_dict()))
        assert found["method"] == "zero-shot"
        assert found["t2v"]["r1"] == {
            "difference": pytest.approx(first.metrics.t2v.r1 - second.metrics.t2v.r1),
            "interval": list(saved.t2v["r1"].interval),
            "p": saved.t2v["r1"].p,
        }

    @pytest.mark.parametrize(
        ("content", "says"),
        [
            ("video,caption", "Expecting value"),
            ("[1, 2]", "it has no 'ranks'"),
            ("{}", "it has no 'ranks'"),
            ('{"ranks": 3}', "it has no 'ranks.t2v'"),
            (("method", None), "it has no 'method'"),
            (("fingerprint", None), "it has no 'fingerprint'"),
            (("ranks", {"t2v": [1, 1.5], "v2t": [1, 1], "targets": [0, 1]}), "t2v is float64 of shape (2,)"),
            (("ranks", {"t2v": [[1], [1, 2]], "v2t": [1], "targets": [0]}), "inhomogeneous"),
            (("ranks", {"t2v": [], "v2t": [], "targets": []}), "t2v is float64 of shape (0,)"),
            (("ranks", {"t2v": [1, 0], "v2t": [1, 1], "targets": [0, 1]}), "t2v contains 0: every value must be 1"),
            (("ranks", {"t2v": [1, 1], "v2t": [1, 1], "targets": [0, -1]}), "targets contains -1"),
            (("ranks", {"t2v": [1, 1], "v2t": [1, 1], "targets": [0]}), "2 ranks of texts, but 1 target"),
            (("ranks", {"t2v": [1, 1], "v2t": [1, 1], "targets": [0, 0]}), "2 ranks of videos, but texts of 1 video"),
        ],
    )
    def test_with_invalid_content_are_refused(self, tmp_path, content, says):
        if isinstance(content, tuple):
            key, value = content
            document = make_report(1, "vop").to_dict()
            document.pop(key)
            content = json.dumps(document if value is None else document | {key: value})
        (tmp_path / "other.json").write_text(content)
        with pytest.raises(UsageError) as refusal:
            read_ranks(tmp_path / "other.json")
        assert str(tmp_path / "other.json") in str(refusal.value)
        assert says in str(refusal.value)

    def test_that_are_missing_or_binary_are_refused(self, tmp_path):
        with pytest.raises(UsageError, match=r"gone\.json is not a report .*No such file"):
            read_ranks(tmp_path / "gone.json")
        (tmp_path / "weights.json").write_bytes(b"\xff\xfe\x00")
        with pytest.raises(UsageError, match=r"weights\.json is not a report .*decode byte 0xff"):
            read_ranks(tmp_path / "weights.json")


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ({"level": 95}, "level 95"),
        ({"level": 0}, "level 0"),
        ({"resamples": 0}, "resamples 0"),
        ({"swaps": 0}, "swaps 0"),
    ],
)
def test_invalid_settings_are_refused(setting, says):
    with pytest.raises(UsageError, match=says):
        paired_test(random_ranks(), random_ranks(), **setting)
    if "swaps" not in setting:
        with pytest.raises(UsageError, match=says):
            bootstrap_intervals(random_ranks(), **setting)
