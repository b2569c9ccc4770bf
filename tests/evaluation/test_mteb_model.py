"""MTEB's tasks with our models: as MTEB calls them, and a tiny task of MTEB itself if it is installed."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

import vop
from clips import write_clip
from vop.evaluation.mteb_model import MtebModel
from vop.models.pretrained import create

FRAMES = 4
COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (20, 40, 230)}
TEXTS = [f"a {name} room" for name in COLOURS]


def film(name: str, *, count: int = 12, width: int = 64, height: int = 48) -> np.ndarray:
    """A colour that grows bright: uint8 (count, height, width, 3)."""
    light = np.linspace(0.3, 1, count)[:, None, None, None]
    return np.broadcast_to(light * COLOURS[name], (count, height, width, 3)).round().astype(np.uint8)


@pytest.fixture(scope="module")
def model(tiny_folder):
    return create("vop-p", str(tiny_folder), num_frames=FRAMES)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("films")
    return [write_clip(folder / f"{name}.mp4", [*film(name)]) for name in COLOURS]


def batches(kind: str, items: list, *, size: int = 2) -> DataLoader:
    """A loader as MTEB makes it of rows with an id; inputs of different sizes stay a list."""
    rows = [{"id": str(number), kind: item} for number, item in enumerate(items)]
    return DataLoader(
        rows, batch_size=size, collate_fn=lambda some: {key: [row[key] for row in some] for key in some[0]}
    )


class Pictures(list):
    """Like MTEB's data set of pairs of pictures and texts, which has features and nothing else of a data set."""

    features = {"image": []}  # noqa: RUF012


def encode(model: MtebModel, inputs, **settings) -> np.ndarray:
    """Call `encode` with the arguments that MTEB passes."""
    task = SimpleNamespace(name="Rooms", type="Any2AnyRetrieval", modalities=["text", "video"])
    named = {"task_metadata": task, "hf_split": "test", "hf_subset": "default", "prompt_type": "document"}
    return model.encode(inputs, **named, batch_size=2, show_progress_bar=False, **settings)


@dataclass(frozen=True)
class VideoColumn:
    """Stands in for `datasets.Video`, which decodes with torchcodec unless told not to."""

    decode: bool = True


@dataclass
class Rows:
    """Stands in for `datasets.Dataset`: columns with features."""

    columns: dict[str, list]
    features: dict[str, object]
    log: list = field(default_factory=list)

    def select_columns(self, names: list[str]) -> Rows:
        return Rows({n: self.columns[n] for n in names}, {n: self.features[n] for n in names}, self.log)

    def cast_column(self, name: str, feature: VideoColumn) -> Rows:
        return Rows(self.columns, self.features | {name: feature}, self.log)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, place: int) -> dict:
        if place >= len(self):
            raise IndexError(place)
        assert not any(getattr(feature, "decode", False) for feature in self.features.values()), "decoded by others"
        self.log.append(sorted(self.columns))
        return {name: values[place] for name, values in self.columns.items()}


def test_texts_are_embedded_as_by_the_model(model):
    found = encode(MtebModel(model), batches("text", TEXTS))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, model.encode_text(TEXTS).numpy(), atol=1e-6)


def test_videos_in_every_form(model, files):
    """A path, MTEB's files on disk and in memory: one embedding, that of `encode_video`."""
    (path, *_), wrapped = files, MtebModel(model)
    forms = [str(path), path, {"path": str(path), "bytes": None}, {"path": "gone.mp4", "bytes": path.read_bytes()}]
    found = encode(wrapped, batches("video", [*forms, files[1]]))
    expected = model.encode_video([path] * len(forms) + [files[1]]).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert np.abs(found[0] - found[-1]).max() > 1e-3


def test_frames_of_any_number_and_size(model):
    frames = film("red", count=12)
    chosen = model.encode_frames(frames[[1, 4, 7, 10]][None])  # the middles of four intervals of three frames
    channels_first = torch.from_numpy(frames).permute(0, 3, 1, 2)
    found = encode(MtebModel(model), batches("video", [frames, channels_first, film("red", count=2, width=31)]))
    np.testing.assert_allclose(found[:2], chosen.expand(2, -1).numpy(), atol=1e-6)
    repeated = model.encode_frames(film("red", count=2, width=31)[[0, 0, 1, 1]][None]).numpy()
    np.testing.assert_allclose(found[2:], repeated, atol=1e-6)


def test_frames_of_a_torchcodec_decoder_are_chosen_by_time(model):
    frames = torch.from_numpy(film("blue", count=8)).permute(0, 3, 1, 2)  # two a second, from 1 s on
    decoder = SimpleNamespace(
        metadata=SimpleNamespace(begin_stream_seconds=1.0, end_stream_seconds=5.0),
        get_frames_played_at=lambda seconds: SimpleNamespace(data=frames[[int((s - 1) * 2) for s in seconds]]),
    )
    expected = model.encode_frames(frames[[1, 3, 5, 7]][None]).numpy()
    np.testing.assert_allclose(encode(MtebModel(model), batches("video", [decoder])), expected, atol=1e-6)


def test_a_picture_is_a_video_of_equal_frames(model):
    picture = Image.fromarray(film("green")[5])
    expected = model.encode_frames(np.stack([np.asarray(picture)] * FRAMES)[None]).numpy()
    clear = picture.copy()
    clear.putalpha(255)
    loader = batches("image", [picture, clear])
    for inputs in (loader, DataLoader(Pictures(loader.dataset), batch_size=1, collate_fn=loader.collate_fn)):
        found = encode(MtebModel(model), inputs)
        np.testing.assert_allclose(found, np.repeat(expected, 2, axis=0), atol=1e-6)


def test_a_data_set_gives_its_videos_as_files(model, files):
    """Nothing but the needed columns is read, and videos are not decoded by the data set."""
    videos = [{"path": str(path), "bytes": None} for path in files]
    columns = {"id": ["a", "b", "c"], "text": TEXTS, "video": videos, "audio": [None] * 3}
    features = {"id": "string", "text": "string", "video": VideoColumn(), "audio": VideoColumn()}
    rows = Rows(columns, features)
    found = encode(MtebModel(model), DataLoader(rows, batch_size=2))
    both = model.encode_text(TEXTS) + model.encode_video(files)
    np.testing.assert_allclose(found, torch.nn.functional.normalize(both, dim=-1).numpy(), atol=1e-6)
    assert rows.log == [["text"]] * 3 + [["video"]] * 3


def test_similarity_is_the_cosine(model):
    wrapped, (one, two) = MtebModel(model), np.random.default_rng(0).normal(size=(2, 5, 16)).astype(np.float32)
    lengths = np.linalg.norm(one, axis=1)[:, None] * np.linalg.norm(two, axis=1)
    expected = one @ two.T / lengths
    np.testing.assert_allclose(wrapped.similarity(one, torch.from_numpy(two)), expected, atol=1e-6)
    np.testing.assert_allclose(wrapped.similarity_pairwise(one, two), expected.diagonal(), atol=1e-6)
    assert wrapped.similarity(one[0], two).shape == (1, 5)


def test_the_revision_tells_weights_apart(tiny_folder, model):
    other = create("vop-p", str(tiny_folder), num_frames=FRAMES)
    for name, parameter in model.trainable().items():
        other.trainable()[name].data.copy_(parameter.data)
    assert MtebModel(other).revision == MtebModel(model).revision
    next(iter(other.trainable().values())).data[0] += 1
    assert MtebModel(other).revision != MtebModel(model).revision
    assert MtebModel(model, name="me/run", revision="1").revision == "1"
    assert re.fullmatch(r"vop/vop-p-tiny-clip\d*", MtebModel(model).name)


@pytest.mark.parametrize(
    ("kind", "item", "named"),
    [
        ("video", np.zeros((4, 8, 8, 3), np.float32), "float32"),
        ("video", np.zeros((4, 8, 8), np.uint8), "(4, 8, 8)"),
        ("video", np.zeros((0, 8, 8, 3), np.uint8), "(0, 8, 8, 3)"),
        ("video", 7, "int"),
        ("video", {"url": "x"}, "url"),
        ("image", "a.jpg", "str"),
        ("audio", b"", "audio"),
    ],
)
def test_refused_inputs_are_named(model, kind, item, named):
    with pytest.raises(vop.UsageError, match=re.escape(named)):
        encode(MtebModel(model), batches(kind, [item]))


def test_an_unreadable_video_is_an_error(model):
    with pytest.raises(vop.VideoError, match="noise.mp4"):
        encode(MtebModel(model), batches("video", [{"path": "noise.mp4", "bytes": b"noise" * 99}]))


def test_refused_models(tiny_folder, model):
    pairwise = create("vop", str(tiny_folder), head="x-pool", num_frames=2)
    with pytest.raises(vop.UsageError, match="x-pool"):
        MtebModel(pairwise)
    with pytest.raises(vop.UsageError, match="'cooking'"):
        MtebModel(model, name="cooking")


def test_the_extra_is_named_if_mteb_is_missing(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "mteb", None)
    monkeypatch.delitem(sys.modules, "mteb.models.model_meta", raising=False)
    with pytest.raises(vop.UsageError, match=r"vop\[mteb\]"):
        _ = MtebModel(model).mteb_model_meta


@pytest.fixture(scope="module")
def task(files):
    """Text-to-video retrieval in MTEB's form: three films and a text for each."""
    pytest.importorskip("mteb", reason="the extra mteb is not installed")
    from mteb import TaskMetadata
    from mteb.abstasks.retrieval import AbsTaskRetrieval
    from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData

    from datasets import Dataset, Video

    class Rooms(AbsTaskRetrieval):
        metadata = TaskMetadata(
            name="Rooms",
            description="Coloured rooms.",
            dataset={"path": "local", "revision": "1"},
            type="Any2AnyRetrieval",
            category="t2v",
            modalities=["text", "video"],
            eval_splits=["test"],
            eval_langs=["eng-Latn"],
            main_score="ndcg_at_10",
        )

        def load_data(self, **_) -> None:
            keys = ["a", "b", "c"]
            corpus = Dataset.from_dict({"id": keys, "video": list(map(str, files))}).cast_column("video", Video())
            split = RetrievalSplitData(
                queries=Dataset.from_dict({"id": keys, "text": TEXTS}),
                corpus=corpus,
                relevant_docs={key: {key: 1} for key in keys},
                top_ranked=None,
            )
            self.dataset, self.data_loaded = {"default": {"test": split}}, True

    return Rooms()


@pytest.mark.slow
def test_mteb_evaluates_a_model(task, model, files):
    import mteb
    from mteb.models.models_protocols import EncoderProtocol

    wrapped = MtebModel(model)
    assert isinstance(wrapped, EncoderProtocol)
    meta = wrapped.mteb_model_meta
    assert (meta.embed_dim, {*meta.modalities}) == (16, {"text", "image", "video"})
    assert meta.n_parameters == sum(parameter.numel() for parameter in model.parameters())

    result = mteb.evaluate(wrapped, task, cache=None, co2_tracker=False, show_progress_bar=False)
    (scores,) = result.task_results[0].scores["test"]
    metrics = vop.retrieval_metrics(model.encode_text(TEXTS) @ model.encode_video(files).T)
    assert scores["recall_at_1"] == pytest.approx(metrics.t2v.r1 / 100, abs=1e-4)
    expected = np.mean(1 / np.log2(1 + metrics.t2v.ranks))
    assert scores["ndcg_at_10"] == pytest.approx(expected, abs=1e-4)
    assert (result.model_name, result.model_revision) == (wrapped.name, wrapped.revision)
