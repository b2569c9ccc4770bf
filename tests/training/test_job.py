"""A whole training on real files."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import vop
from tiny_data import write_table, write_videos
from vop.backbones import find_backbone
from vop.datasets.frames import FrameStore
from vop.datasets.readers import load
from vop.datasets.types import Dataset
from vop.datasets.validation import cache_dataset
from vop.datasets.views import RandomViews
from vop.errors import FileFailure, UsageError, VopError
from vop.models.pretrained import create
from vop.training.job import train
from vop.training.recipe import Recipe, TrainingConfig
from vop.training.trainer import Trainer
from vop.video.isolated import DecodingProcesses

RECIPE = Recipe(epochs=2, batch_size=2, validation=0.2, workers=0, precision="fp32")


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    return write_videos(tmp_path_factory.mktemp("videos"))


@pytest.fixture
def dataset(videos):
    """Five training videos, of which one is missing, and two test videos."""
    names = [path.name for path in videos[:4]] + ["gone.mp4"]
    rows = [(name, f"clip {name}", "train") for name in names]
    rows += [(path.name, f"clip {path.name}", "test") for path in videos[4:6]]
    return load(str(write_table(videos[0].parent / "some.csv", rows)))


def test_the_result_describes_the_run(dataset, tiny_folder, tmp_path):
    seen = []
    trained = train(
        dataset,
        method="vop",
        out=tmp_path,
        backbone=str(tiny_folder),
        recipe=RECIPE,
        progress=lambda *at: seen.append(at),
    )
    opened = vop.load(tmp_path)
    texts = ["clip", "another clip"]
    assert torch.equal(trained.model.encode_text(texts), opened.encode_text(texts))
    assert not trained.model.training
    assert len(trained.result.history) == 2
    assert trained.skipped == (
        FileFailure(
            id="gone.mp4",
            path=str(dataset.split("train").videos[4].path),
            reason="the file does not exist",
            kind="missing",
        ),
    )
    assert {stage for stage, *_ in seen} == {"decoding train", "training"}
    assert opened.card["training_videos"] + opened.card["validation_videos"] == 4


def test_the_test_split_is_never_read(dataset, tiny_folder, tmp_path, monkeypatch):
    read = []
    call = DecodingProcesses.call

    def recorded(self, function, path, **how):
        read.append(path.name)
        return call(self, function, path, **how)

    monkeypatch.setattr(DecodingProcesses, "call", recorded)
    train(dataset, method="vop", out=tmp_path, backbone=str(tiny_folder), recipe=RECIPE)
    assert sorted(read) == ["clip0.mp4", "clip1.mp4", "clip2.mp4", "clip3.mp4"]  # each once, over two epochs


def test_two_trainings_do_not_share_a_folder(dataset, tiny_folder, tmp_path):
    given = {"out": tmp_path, "backbone": str(tiny_folder), "recipe": replace(RECIPE, validation=0)}
    refused = []

    def second(line: str) -> None:
        with pytest.raises(VopError) as error:
            train(dataset, method="proj", **given)
        refused.append(type(error.value))

    train(dataset, method="vop", note=second, **given)
    assert refused[0] is VopError
    assert vop.load(tmp_path).method_name == "vop"
    train(dataset, method="vop", resume=True, **given)  # the folder is free again


def test_the_largest_seed_trains(dataset, tiny_folder, tmp_path):
    recipe = replace(RECIPE, epochs=1, validation=0, seed=2**63 - 1)
    assert train(dataset, method="vop", out=tmp_path, backbone=str(tiny_folder), recipe=recipe).result.best_epoch == 1


def test_training_removes_what_killed_processes_left(dataset, tiny_folder, tmp_path):
    left = [tmp_path / ".tmp-0123abcd-config.json", tmp_path / "training" / ".tmp-4567cdef-state.safetensors"]
    left[1].parent.mkdir()
    for path in left:
        path.write_bytes(b"half")
    train(dataset, method="vop", out=tmp_path, backbone=str(tiny_folder), recipe=RECIPE, resume=True)
    assert not [path for path in left if path.exists()]


@pytest.mark.parametrize("augment", ["none", "release"])
def test_resumed_training_gives_the_same_weights(dataset, tiny_folder, tmp_path, augment):
    class Killed(BaseException):
        pass

    def kill(stage, done, total, note=""):
        if (stage, done) == ("training", 2):
            raise Killed

    at_once = replace(RECIPE, checkpoint_seconds=0, augment=augment)
    given = {"backbone": str(tiny_folder), "recipe": at_once, "settings": {"num_frames": 2}}
    train(dataset, method="vop-p", out=tmp_path / "whole", **given)
    with pytest.raises(Killed):
        train(dataset, method="vop-p", out=tmp_path / "cut", progress=kill, **given)
    train(dataset, method="vop-p", out=tmp_path / "cut", resume=True, **given)
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "cut"))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_only_training_sees_random_views(dataset, tiny_folder, tmp_path, monkeypatch):
    viewed, loaded = [], []
    load_view, load_frames = RandomViews.load, FrameStore.load

    def view(self, video, *, captions, key):
        viewed.append((video.id, key))
        return load_view(self, video, captions=captions, key=key)

    monkeypatch.setattr(RandomViews, "load", view)
    monkeypatch.setattr(FrameStore, "load", lambda self, video: loaded.append(video.id) or load_frames(self, video))
    given = {"backbone": str(tiny_folder), "settings": {"num_frames": 2}}
    trained = train(dataset, method="vop-p", out=tmp_path, recipe=replace(RECIPE, augment="release"), **given)
    assert len(set(viewed)) == len(viewed) == 2 * 2  # two epochs of one batch of two
    assert {key[0] for _, key in viewed} == {0, 1}
    assert set(loaded).isdisjoint(name for name, _ in viewed)
    assert trained.model.card["augment"] == "release"


def test_caches_hold_the_frames_of_random_views(dataset, tiny_folder, tmp_path, monkeypatch):
    recipe = replace(RECIPE, augment="release")
    store = FrameStore(2, find_backbone(str(tiny_folder)).resizing, cache=tmp_path / "cache")
    report = cache_dataset(dataset, store, augmentation=recipe.augmentation)
    assert (report.decoded, report.reused, len(report.failed)) == (6 + 4, 0, 1)  # four of the six are for training
    monkeypatch.setattr(DecodingProcesses, "call", lambda self, call, path, **how: pytest.fail(f"decoded {path}"))
    readable = dataset.split("train").keep({f"clip{number}.mp4" for number in range(4)})
    settings = {"num_frames": 2}
    train(
        Dataset(dataset.name, {"train": readable}),
        method="vop",
        out=tmp_path / "run",
        backbone=str(tiny_folder),
        settings=settings,
        recipe=recipe,
        cache=store.cache,
    )


def test_random_views_need_files(dataset, tiny, tmp_path):
    class Made:
        def load(self, video):
            return torch.zeros(2, 3, 32, 32, dtype=torch.uint8)

    model = create("vop", tiny, num_frames=2)
    with pytest.raises(UsageError, match="store is Made; random views need a FrameStore"):
        Trainer(model, dataset.split("train"), None, replace(RECIPE, flip=0.5), tmp_path, store=Made())


def test_without_validation_the_last_epoch_is_kept(dataset, tiny_folder, tmp_path):
    recipe = Recipe(epochs=2, batch_size=2, validation=0, workers=0)
    trained = train(dataset, method="vop", out=tmp_path, backbone=str(tiny_folder), recipe=recipe)
    assert (trained.result.best_epoch, trained.result.selection) == (2, "last")
    assert trained.model.card["validation_videos"] == 0


def test_only_readable_videos_are_held_out(dataset, tiny_folder, tmp_path):
    """One of five videos is missing: a fifth of the other four is held out."""
    trained = train(dataset, method="vop", out=tmp_path, backbone=str(tiny_folder), recipe=RECIPE)
    assert trained.model.card["validation_videos"] == 1
    assert trained.model.card["training_videos"] == 3


def test_notes_are_printed_before_training(dataset, tiny_folder, tmp_path):
    said = []
    noted = replace(dataset, notes=("7 of 12 videos have no caption",))
    train(
        noted,
        method="vop",
        out=tmp_path,
        backbone=str(tiny_folder),
        recipe=RECIPE,
        note=said.append,
        progress=lambda name, *_: said.append(name),
    )
    first = said.index("training")
    assert "7 of 12 videos have no caption" in said[:first]
    assert any("2 steps are few" in line for line in said[:first])
    assert any("1 validation video cannot tell" in line for line in said[:first])


def test_invalid_trainings_are_refused_before_decoding(dataset, tiny_folder, tmp_path, monkeypatch):
    train(dataset, method="vop", out=tmp_path / "run", backbone=str(tiny_folder), recipe=RECIPE)
    silent = Path(shutil.copytree(tiny_folder, tmp_path / "silent"))
    for vocabulary in ("tokenizer.json", "vocab.json", "merges.txt"):
        (silent / vocabulary).unlink(missing_ok=True)
    monkeypatch.setattr(DecodingProcesses, "call", lambda *_, **__: pytest.fail("it was decoded"))
    with pytest.raises(VopError, match="seed = 0, this one has 1"):
        train(
            dataset,
            method="vop",
            out=tmp_path / "run",
            backbone=str(tiny_folder),
            recipe=replace(RECIPE, seed=1),
            resume=True,
        )
    with pytest.raises(VopError, match="vocabulary .*missing"):
        train(dataset, method="vop", out=tmp_path / "other", backbone=str(silent), recipe=RECIPE)


def test_training_needs_only_a_table_and_a_recipe(dataset, tiny_folder, videos, tmp_path):
    table = videos[0].parent / "some.csv"
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"data: {table}\nmethod: vop-p\nbackbone: {tiny_folder}\nepochs: 2\nbatch_size: 2\nvalidation: 0.2\n"
        "workers: 0\nprecision: fp32\nsettings: {num_frames: 2}\n"
    )
    by_file = vop.train(recipe=recipe, out=str(tmp_path / "file"))
    by_hand = vop.train(
        str(table),
        out=tmp_path / "hand",
        method="vop-p",
        backbone=str(tiny_folder),
        settings={"num_frames": 2},
        recipe=RECIPE,
    )
    assert by_file.dataset.split("train") == dataset.split("train")
    assert by_file.result.history == by_hand.result.history
    assert (by_file.model.method_name, by_file.model.num_frames) == ("vop-p", 2)


def test_arguments_override_the_recipe(tiny_folder, videos, dataset, tmp_path):
    recipe = TrainingConfig(
        data="nothere.csv", method="vop-p", recipe=RECIPE, settings={"num_frames": 2, "text_prompts": 3}
    )
    given = {"method": "vop", "backbone": str(tiny_folder), "settings": {"num_frames": 3}}
    model = vop.train(dataset, out=tmp_path, recipe=recipe, **given).model
    assert (model.method_name, model.num_frames, model.method.settings["text_prompts"]) == ("vop", 3, 3)


def test_data_is_required(tmp_path):
    with pytest.raises(UsageError, match="no data"):
        vop.train(out=tmp_path, recipe=RECIPE)


def test_the_default_backbone_matches_the_command(dataset, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("vop.models.pretrained.find_backbone", lambda name, **_: asked.append(name) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        vop.train(dataset, out=tmp_path)
    assert asked == ["openai/clip-vit-base-patch32"]
