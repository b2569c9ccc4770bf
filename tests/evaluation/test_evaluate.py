"""Evaluation of a simple model with known embeddings, on videos in memory."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
import torch
from torch.nn.functional import normalize

from vop.datasets.types import Split, Video
from vop.errors import DataError, UsageError, VideoError
from vop.evaluation import job
from vop.evaluation.embedding import embed_split, embed_texts
from vop.evaluation.job import evaluate_split, report_from_embeddings
from vop.evaluation.metrics import retrieval_metrics
from vop.evaluation.report import ReportFacts

WIDTH = 6


class Model(torch.nn.Module):
    """A caption "3" and a video of pixels 3 both become direction 3."""

    def __init__(self):
        super().__init__()
        self.video_batches, self.text_batches, self.modes = [], [], []

    def tokenize(self, texts):
        self.text_batches.append(list(texts))
        return torch.tensor([[int(text.split()[0])] for text in texts])

    def embed_tokens(self, ids):
        self.modes.append((self.training, torch.is_grad_enabled()))
        return torch.eye(WIDTH, requires_grad=True)[ids[:, 0]]

    def normalise(self, frames):
        assert frames.dtype == torch.uint8
        return frames.float() / 255

    def embed_frames(self, pixels):
        self.video_batches.append(tuple(pixels.shape))
        self.modes.append((self.training, torch.is_grad_enabled()))
        return torch.eye(WIDTH)[(pixels[:, 0, 0, 0, 0] * 255).round().long()]


class Store:
    def __init__(self, bad=()):
        self.bad, self.threads = set(bad), set()

    def load(self, video):
        self.threads.add(threading.current_thread())
        if video.id in self.bad:
            raise VideoError(video.path, "no video stream")
        return torch.full((2, 3, 4, 4), int(video.id), dtype=torch.uint8)


def make_split(name="test", videos=WIDTH, wrong=()):
    """Two captions per video; the first caption of videos in `wrong` names video 0."""
    captions = [f"{0 if v in wrong else v} first" for v in range(videos)] + [f"{v} second" for v in range(videos)]
    listed = tuple(Video(str(v), Path(f"/videos/{v}.mp4")) for v in range(videos))
    return Split(name, listed, tuple(captions), tuple(range(videos)) * 2)


@pytest.mark.parametrize("batch_size", [1, 4, 6, 100])
def test_batches_find_all_videos(batch_size):
    model, store = Model(), Store()
    report = evaluate_split(
        model, make_split(), store, batch_size=batch_size, facts=ReportFacts(method="vop", data="digits")
    )
    assert report.metrics.t2v.r1 == report.metrics.v2t.r1 == 100.0
    assert (report.metrics.texts, report.gallery_size) == (12, 6)
    assert [shape[1:] for shape in model.video_batches] == [(2, 3, 4, 4)] * -(-6 // batch_size)
    assert sum(shape[0] for shape in model.video_batches) == 6
    assert set(model.modes) == {(False, False)}
    assert model.training  # restored
    assert threading.main_thread() not in store.threads


def test_wrong_captions_lower_recall():
    report = evaluate_split(Model(), make_split(wrong=(4, 5)), Store())
    assert report.metrics.t2v.r1 == pytest.approx(100 * 10 / 12)
    assert report.metrics.v2t.r1 == pytest.approx(100 * 5 / 6)  # "0 first" of videos 4 and 5 ties with video 0's own
    assert report.metrics.t2v.ranks.tolist()[4:6] == [6, 6]


def test_bad_videos_are_skipped_with_their_captions():
    split = make_split()
    report = evaluate_split(Model(), split, Store(bad={"1", "5"}), batch_size=2, on_bad_video="skip")
    assert (report.gallery_size, report.metrics.texts) == (4, 8)
    assert (report.listed_videos, report.listed_texts) == (6, 12)
    assert report.metrics.t2v.r1 == 100.0  # texts and videos still belong together
    assert [video.id for video in report.skipped] == ["1", "5"]
    found = json.loads(json.dumps(report.to_dict()))
    assert found["skipped"][0] == {"id": "1", "path": "/videos/1.mp4", "reason": "no video stream"}
    assert found["gallery_size"] == found["videos"] == 4


def test_the_report_describes_the_ranked_gallery():
    split = make_split()
    whole, part = evaluate_split(Model(), split, Store()), evaluate_split(Model(), split, Store(bad={"1"}))
    assert (whole.fingerprint, whole.targets) == (split.fingerprint, split.targets)
    assert part.fingerprint == split.keep(set("02345")).fingerprint != whole.fingerprint
    assert part.ranks.targets.tolist() == [0, 1, 2, 3, 4] * 2
    assert whole.confidence.t2v["r1"] == (100, 100)
    low, high = evaluate_split(Model(), make_split(wrong=(4, 5)), Store()).confidence.t2v["r1"]
    assert low < 100 * 10 / 12 < high


def test_bad_videos_can_fail_the_run():
    model = Model()
    with pytest.raises(VideoError, match=r"/videos/1\.mp4: no video stream"):
        evaluate_split(model, make_split(), Store(bad={"1", "5"}), on_bad_video="fail")
    assert model.training


def test_no_readable_video_names_the_first_reason():
    with pytest.raises(DataError, match=r"none of the 6 videos .*/videos/0\.mp4: no video stream"):
        evaluate_split(Model(), make_split(), Store(bad=map(str, range(6))))


def test_other_errors_are_raised():
    class Broken(Store):
        def load(self, video):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        evaluate_split(Model(), make_split(), Broken())


def test_at_most_one_batch_is_decoded_ahead():
    class Counting(Store):
        started = 0

        def load(self, video):
            self.started += 1
            assert self.started <= 2 * sum(shape[0] for shape in model.video_batches) + 2 + 1 + 2
            return super().load(video)

    model = Model()
    store = Counting()
    assert evaluate_split(model, make_split(), store, batch_size=2, workers=1).gallery_size == 6
    assert store.started == 6


def test_equal_captions_are_embedded_once():
    model = Model()
    embeddings = embed_texts(model, ["3 b", "1 a", "3 b", "2", "1 a"], batch_size=2)
    assert model.text_batches == [["3 b", "1 a"], ["2"]]
    assert embeddings.argmax(dim=1).tolist() == [3, 1, 3, 2, 1]


def test_progress_ends_at_the_total():
    seen = []
    embed_split(Model(), make_split(), Store(bad={"5"}), batch_size=4, progress=lambda *step: seen.append(step))
    assert [step for step in seen if step[0] == "videos"][-1] == ("videos", 6, 6)
    assert seen[-1] == ("texts", 10, 10)


def test_rescored_metrics_are_separate():
    split = make_split()
    plain = evaluate_split(Model(), split, Store())
    banked = evaluate_split(Model(), split, Store(), bank=make_split("train", videos=3))
    assert set(plain.rescored) == {"dual softmax"}
    assert set(banked.rescored) == {"dual softmax", "qb-norm"}
    assert banked.metrics == plain.metrics
    assert banked.rescored["qb-norm"].settings == {"beta": 20.0, "top_k": 1, "bank_texts": 6, "bank_videos": 3}


def test_metrics_equal_the_matrix_and_large_ones_are_not_rescored(monkeypatch):
    embedded = embed_split(Model(), make_split(wrong=(2,)), Store())
    report = report_from_embeddings(
        embedded, listed=embedded.split, facts=ReportFacts(epoch=3, selection="last", notes=("a note",))
    )
    assert report.metrics == retrieval_metrics(embedded.similarity(), targets=embedded.split.targets)
    assert (report.epoch, report.selection, report.notes) == (3, "last", ("a note",))
    monkeypatch.setattr(job, "RESCORING_LIMIT", 71)
    large = report_from_embeddings(embedded, listed=embedded.split)
    assert large.rescored == {}
    assert "not rescored" in large.notes[0]


def test_invalid_settings_are_refused():
    with pytest.raises(UsageError, match="'skipp'.*did you mean skip"):
        evaluate_split(Model(), make_split(), Store(), on_bad_video="skipp")
    with pytest.raises(UsageError, match="batch_size is 0"):
        evaluate_split(Model(), make_split(), Store(), batch_size=0)
    with pytest.raises(UsageError, match="'guessed'"):
        evaluate_split(Model(), make_split(), Store(), facts=ReportFacts(selection="guessed"))
    with pytest.raises(DataError, match="0 captions"):
        embed_texts(Model(), [])


def test_the_real_model_has_this_interface(tiny_folder):
    from vop.models.pretrained import create

    class Noise:
        def load(self, video):
            return torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))

    model = create("vop", backbone=str(tiny_folder), device="cpu")
    embedded = embed_split(model, make_split(), Noise(), batch_size=4)
    assert embedded.texts.shape == (12, 16)
    assert embedded.videos.shape == (6, 16)
    torch.testing.assert_close(embedded.texts, normalize(embedded.texts, dim=1))
    torch.testing.assert_close(embedded.texts, model.encode_text(embedded.split.captions).float())
