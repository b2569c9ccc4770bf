"""`vop.Library`: creating, indexing, searching with every kind of query and filter, and reopening."""

from __future__ import annotations

import inspect
import logging
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import vop
from search.owners_videos import write_folder, write_video
from vop import Library, Moment, SegmentationConfig, Sentence, UsageError, VideoError, VopError
from vop.models.pretrained import create
from vop.search.filters import Filters
from vop.search.queries import Example
from vop.search.store import Store
from vop.video.clip import Clip

METADATA = "video,author,stars\na.mp4,Bob,5\nb.mp4,Ann,3\n"
MINI = {"model": "mini", "num_frames": 2, "precision": "fp32"}


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> dict[str, Path]:
    """a.mp4 to d.mp4; b is 26 s long, three windows."""
    return write_folder(tmp_path_factory.mktemp("owner") / "videos")


@pytest.fixture(scope="module")
def library(videos, tmp_path_factory) -> Library:
    """A library that no test changes, with metadata."""
    folder = tmp_path_factory.mktemp("libraries") / "library"
    table = folder.with_name("about.csv")
    table.write_text(METADATA)
    library = Library.create(folder, **MINI)
    assert library.index(videos["a"].parent, metadata=table, workers=1).added == 4
    return library


@pytest.fixture(scope="module")
def model() -> vop.TextVideoModel:
    return vop.load("mini", num_frames=2, dtype=torch.float32)


@pytest.fixture
def small(tmp_path, tiny_folder) -> Library:
    """An empty library with the tiny model, for tests that change it."""
    return Library.create(tmp_path / "small", model=str(tiny_folder), num_frames=2, precision="fp32")


def names(moments: list[Moment]) -> list[str]:
    return [Path(moment.path).name for moment in moments]


def scores(moments: list[Moment]) -> dict[str, float]:
    return {Path(moment.path).name: pytest.approx(moment.score, abs=1e-4) for moment in moments}


def naive(library: Library, vector: np.ndarray) -> dict[str, float]:
    """The highest score of each video, over all rows of the database."""
    best: dict[str, float] = {}
    for row in Store.open(library.path).table.to_arrow().to_pylist():
        score = float(np.array(row["embedding_1"], np.float32) @ vector)
        best[row["name"]] = max(score, best.get(row["name"], -1.0))
    return best


class TestContents:
    def test_a_new_library_is_empty(self, small, tiny_folder):
        assert (small.name, small.columns, small.failures(), small.restorable()) == ("small", [], [], [])
        assert small.status().to_dict() == {
            "segments": 0,
            "videos": 0,
            "hours": 0.0,
            "outdated": 0,
            "failures": 0,
            "unreadable": 0,
            "partial": 0,
            "duplicates": 0,
            "columns": [],
            "index": None,
        }
        assert [(own.name, own.method) for own in small.models] == [(str(tiny_folder), "zero-shot")]
        assert small.search("a dog") == []

    def test_settings_are_kept(self, tmp_path, tiny_folder):
        segmentation = SegmentationConfig(window_seconds=4, overlap_seconds=1)
        settings = {"segmentation": segmentation, "num_frames": 3, "keep_frames": True, "precision": "bf16"}
        made = Library.create(tmp_path / "library", model=str(tiny_folder), **settings)
        for manifest in (made.manifest, Library.open(str(tmp_path / "library")).manifest):
            assert (manifest.segmentation, manifest.num_frames, manifest.keep_frames) == (segmentation, 3, True)
            assert manifest.models[0].precision == "bf16"

    def test_status_counts_videos_and_segments(self, library):
        status = library.status()
        assert (status.videos, status.segments, status.columns, status.index) == (4, 6, ["author", "stars"], None)
        assert status.hours == pytest.approx(38 / 3600, abs=1e-3)

    def test_segments_and_videos_are_found_by_id(self, library, videos):
        moment = library.search(videos["b"], start_seconds=16, end_seconds=26, k=1)[0]
        segment, video = library.segment(moment.segment), library.video(moment.video)
        assert (segment.path, video.path) == (str(videos["b"]), str(videos["b"]))
        assert (segment.start_seconds, segment.end_seconds) == (moment.start_seconds, moment.end_seconds) == (16, 26)
        assert video.duration_seconds == pytest.approx(26, abs=0.3)
        assert Image.open(BytesIO(segment.strip)).format == "JPEG"

    def test_create_refuses_folders_with_files(self, library, tmp_path):
        (tmp_path / "notes.txt").write_text("mine")
        for folder, message in ((library.path, "a library already"), (tmp_path, "is not a library")):
            with pytest.raises(UsageError, match=message):
                Library.create(folder, **MINI)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.txt"]

    def test_nothing_is_created_without_a_model(self, tmp_path):
        with pytest.raises(UsageError, match="nothing-here"):
            Library.create(tmp_path / "library", model="nothing-here")
        assert not (tmp_path / "library").exists()

    def test_opening_a_missing_library_is_refused(self, tmp_path):
        with pytest.raises(UsageError, match=str(tmp_path)):
            Library.open(tmp_path)


class TestQueries:
    def test_a_sentence_ranks_as_a_naive_search(self, library, model):
        moments = library.search("a dog runs", k=3)
        expected = naive(library, model.encode_text(["a dog runs"])[0].numpy())
        assert names(moments) == sorted(expected, key=lambda name: -expected[name])[:3]
        assert scores(moments) == {name: expected[name] for name in names(moments)}

    @pytest.mark.parametrize(
        ("query", "weights"),
        [
            (["a dog", "a park"], (1, 1)),
            ([("a dog", 2), ("a park", -0.5)], (2, -0.5)),
            ([("a dog", np.float32(2)), "a park"], (2, 1)),
            ((Sentence("a dog"), Sentence("a park", -1)), (1, -1)),
            ([Sentence("a dog", 0.5), ("a park", 0)], (1, 0)),
            (Sentence("a dog", 3.0), (1, 0)),
        ],
    )
    def test_weighted_sentences(self, library, model, query, weights):
        dog, park = model.encode_text(["a dog", "a park"]).numpy()
        vector = weights[0] * dog + weights[1] * park
        assert scores(library.search(query)) == naive(library, vector / np.linalg.norm(vector))

    def test_a_video_finds_itself_first(self, library, videos, model):
        moments = library.search(videos["a"])
        assert names(moments)[0] == "a.mp4"
        assert moments[0].score == pytest.approx(1, abs=1e-4)
        assert scores(moments) == naive(library, model.encode_video([videos["a"]])[0].numpy())

    def test_a_clip_finds_its_segment(self, library, videos):
        best = library.search(videos["b"], start_seconds=8, end_seconds=18)[0]
        assert (Path(best.path).name, best.start_seconds, best.end_seconds) == ("b.mp4", 8, 18)
        assert best.score == pytest.approx(1, abs=1e-4)
        same = library.search(Example(videos["b"], clip=Clip(8, 18)))[0]
        assert (same.segment, same.score) == (best.segment, best.score)

    def test_pictures_are_detected_by_content(self, library, videos, model, tmp_path):
        frame = vop.read_frames(videos["c"], num_frames=1, size=model.image_size)[0]
        pixels = np.moveaxis(np.asarray(frame), 0, -1)
        Image.fromarray(pixels).save(tmp_path / "still.png")
        shutil.copy(tmp_path / "still.png", tmp_path / "still.mp4")
        still = torch.from_numpy(np.array(pixels)).permute(2, 0, 1).expand(1, 2, -1, -1, -1)
        expected = naive(library, _embedded(model, still))
        assert scores(library.search(tmp_path / "still.png")) == expected
        assert scores(library.search(tmp_path / "still.mp4")) == expected

    def test_a_moment_finds_other_videos(self, library):
        found = library.search("a dog", k=1)[0]
        vector = library.segment(found.segment).embeddings[0]
        moments = library.search(found)
        expected = naive(library, vector)
        del expected[Path(found.path).name]
        assert scores(moments) == expected

    def test_sentences_and_examples_are_a_weighted_sum(self, library, model, videos):
        found, *_ = library.search("a dog", k=1)
        segment, file = library.segment(found.segment).embeddings[0], model.encode_video([videos["c"]])[0].numpy()
        dog, cat = model.encode_text(["a dog", "a cat"]).numpy()

        def unit(vector):
            return vector / np.linalg.norm(vector)

        wanted = naive(library, unit(dog - 0.5 * cat + 0.5 * segment))  # an example counts half
        del wanted[Path(found.path).name]
        assert scores(library.search([("a dog", 1.0), ("a cat", -0.5), found])) == wanted
        wanted = naive(library, unit(dog + 2 * file))
        assert scores(library.search(["a dog", (videos["c"], 2.0)])) == wanted
        assert scores(library.search([videos["c"]])) == scores(library.search(videos["c"]))

    @pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor, lambda vector: 7 * vector])
    def test_vectors_may_be_arrays_tensors_or_unscaled(self, library, model, kind):
        vector = model.encode_text(["a dog"])[0].numpy()
        assert scores(library.search(kind(vector))) == naive(library, vector)

    def test_models_are_loaded_once(self, library, monkeypatch):
        library.search("a dog")
        monkeypatch.setattr("vop.search.opened_models.open_models", lambda *_, **__: pytest.fail("loaded again"))
        assert library.search("a cat")
        assert library.model() is library.model(0)

    def test_several_threads_load_a_model_once(self, library, monkeypatch):
        again, loads = Library.open(library.path), []
        real = vop.search.opened_models.open_models
        monkeypatch.setattr("vop.search.opened_models.open_models", lambda *a, **k: loads.append(a) or real(*a, **k))
        queries = [f"a dog and {number} cats" for number in range(8)]
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(again.search, queries))
        assert len(loads) == 1
        assert list(map(names, found)) == [names(library.search(query)) for query in queries]

    @pytest.mark.parametrize(
        ("query", "message"),
        [
            ("", "an empty sentence"),
            ([], "the query is empty"),
            (["a dog", 3], "3 is not a sentence"),
            ([("a dog", "much")], "'much'"),
            ([Path("x.mp4"), ""], "an empty sentence"),
            ([Path("x.mp4"), 3], "3 is not a sentence"),
            ([(Path("x.mp4"), "much")], "'much'"),
            ([(Path("x.mp4"), 0.0), ("a dog", 0)], "all weights"),
            ([("a dog", 1), ("a dog", -1)], "cancel each other out"),
            (3, "not int"),
            (np.zeros(5, np.float32), r"shape \(5,\)"),
            (np.zeros((1, 256), np.float32), r"shape \(1, 256\)"),
        ],
    )
    def test_invalid_queries_are_refused(self, library, query, message):
        with pytest.raises(UsageError, match=message):
            library.search(query)

    def test_vectors_without_direction_are_refused(self, library):
        for number in (0.0, float("nan"), float("inf")):
            with pytest.raises(UsageError, match="no direction"):
                library.search(np.full(library.models[0].embed_dim, number, np.float32))

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"k": 0}, "k is 0"),
            ({"model": 1}, "model is 1"),
            ({"model": -1}, "model is -1"),
            ({"where": "author_=Bob"}, "did you mean author"),
            ({"where": ["nothing"]}, "'nothing'"),
            ({"after": "yesterday"}, "'yesterday'"),
            ({"min_seconds": -1}, "min_seconds is -1"),
            ({"start_seconds": 3}, "start_seconds"),
        ],
    )
    def test_invalid_arguments_are_refused_before_a_model_is_loaded(self, library, monkeypatch, arguments, message):
        again = Library.open(library.path)
        monkeypatch.setattr("vop.search.opened_models.open_models", lambda *_, **__: pytest.fail("a model was loaded"))
        with pytest.raises(UsageError, match=message):
            again.search("a dog", **arguments)

    def test_times_need_a_video_file(self, library, videos):
        for query in (["a dog"], Example(videos["a"])):
            with pytest.raises(UsageError, match="give a Path"):
                library.search(query, end_seconds=3)
        with pytest.raises(VideoError, match="99 s"):
            library.search(videos["a"], start_seconds=99)

    def test_unreadable_files_are_refused(self, library, videos, tmp_path):
        (tmp_path / "text.mp4").write_text("text")
        for path in (tmp_path / "text.mp4", tmp_path / "missing.mp4"):
            with pytest.raises(VideoError, match=path.name):
                library.search(path)
        with pytest.raises(VideoError, match="a.mp4.*PNG"):
            library.search(Example(videos["a"], "picture"))

    def test_a_truncated_sentence_gives_a_warning(self, library, caplog):
        warnings: list[str] = []
        library.search("word " * 1000, warn=warnings.append)
        assert len(warnings) == 1
        with caplog.at_level(logging.WARNING):
            library.search(["a dog", "word " * 1000])
        assert [record.getMessage() for record in caplog.records] == warnings


def _embedded(model: vop.TextVideoModel, frames: torch.Tensor) -> np.ndarray:
    with torch.inference_mode():
        return torch.nn.functional.normalize(model.embed_frames(model.normalise(frames)), dim=-1)[0].numpy()


class TestFilters:
    @pytest.mark.parametrize(
        ("given", "found"),
        [
            ({"name": "B.mp4"}, ["b.mp4"]),
            ({"folder": "videos"}, ["a.mp4", "b.mp4", "c.mp4", "d.mp4"]),
            ({"folder": "video"}, []),
            ({"min_seconds": 10}, ["b.mp4"]),
            ({"max_seconds": 10, "where": "author=Bob"}, ["a.mp4"]),
            ({"where": ["stars<4", "author~n"]}, ["b.mp4"]),
            ({"before": "1990"}, []),
            ({"after": "1990-07", "name": "c"}, ["c.mp4"]),
            ({"folder": "", "name": "", "where": ()}, ["a.mp4", "b.mp4", "c.mp4", "d.mp4"]),
        ],
    )
    def test_each_filter_is_applied(self, library, given, found):
        assert sorted(names(library.search("a dog", **given))) == found

    def test_a_folder_path_is_resolved_on_this_machine(self, library, videos, monkeypatch):
        monkeypatch.chdir(videos["a"].parent.parent)
        assert len(library.search("a dog", folder=Path("videos"))) == 4
        assert len(library.search("a dog", folder=Path("videos/../videos"))) == 4
        assert len(library.search("a dog", folder=videos["a"].parent)) == 4
        assert library.search("a dog", folder=Path("deeper")) == []

    def test_filters_apply_to_every_kind_of_query(self, library, videos):
        moment = library.search("a dog", name="a.mp4")[0]
        for query in ("a dog", ["a dog"], videos["a"], moment, np.ones(library.models[0].embed_dim, np.float32)):
            assert names(library.search(query, name="b.mp4")) == ["b.mp4"]

    def test_search_has_a_parameter_for_each_filter(self):
        parameters = inspect.signature(Library.search).parameters
        own = [field.name for field in fields(Filters)]
        assert [name for name in parameters if name in own] == own
        assert all(parameters[name].kind is inspect.Parameter.KEYWORD_ONLY for name in own)
        assert all(parameters[field.name].default == field.default for field in fields(Filters))
        with pytest.raises(TypeError, match="min_second'"):
            Library.search(None, "a dog", min_second=3)


class TestCaptions:
    def test_captions_may_be_a_list_or_a_file(self, library, videos, model, tmp_path):
        texts = ["a dog", "a cat", "rain"]
        (tmp_path / "captions.txt").write_text("a dog\n\na cat\nrain\n")
        similarity = model.encode_text(texts) @ model.encode_video([videos["a"]])[0]
        order = similarity.argsort(descending=True).tolist()
        for captions, lines in ((texts, [1, 2, 3]), (tmp_path / "captions.txt", [1, 3, 4])):
            found = library.captions(videos["a"], captions, k=2)
            assert [(one.caption, one.line) for one in found] == [(texts[n], lines[n]) for n in order[:2]]
            assert [one.score for one in found] == pytest.approx([float(similarity[n]) for n in order[:2]], abs=1e-4)

    def test_captions_of_a_clip_differ_from_the_videos(self, library, videos):
        whole, clip = (
            library.captions(str(videos["b"]), ["a dog"], **given)[0].score
            for given in ({}, {"start_seconds": 8, "end_seconds": 10})
        )
        assert whole != pytest.approx(clip, abs=1e-4)

    def test_invalid_calls_are_refused(self, library, videos):
        with pytest.raises(UsageError, match="k is 0"):
            library.captions(videos["a"], ["a dog"], k=0)
        with pytest.raises(UsageError, match="captions is empty"):
            library.captions(videos["a"], [])
        with pytest.raises(UsageError, match="gone.txt"):
            library.captions(videos["a"], "gone.txt")


class TestReopening:
    def test_a_reopened_library_gives_the_same_results(self, library):
        again = Library.open(str(library.path))
        assert again.search("a dog") == library.search("a dog")
        assert (again.models, again.manifest, again.path) == (library.models, library.manifest, library.path)

    def test_a_moved_model_can_be_given(self, small, videos, tiny_folder, tmp_path):
        create("vop", str(tiny_folder), num_frames=2, device="cpu").save_pretrained(tmp_path / "run")
        moved = Library.create(tmp_path / "library", model=tmp_path / "run", precision="fp32")
        moved.index(videos["a"], workers=1)
        (tmp_path / "run").rename(tmp_path / "elsewhere")
        with pytest.raises(UsageError, match="run"):
            Library.open(moved.path).search("a dog")
        again = Library.open(moved.path, model=str(tmp_path / "elsewhere"))
        assert names(again.search("a dog")) == ["a.mp4"]
        assert again.index(videos["c"], workers=1).added == 1  # which stores the new path of the model
        assert names(Library.open(moved.path).search("a dog", name="c")) == ["c.mp4"]

    def test_a_replaced_model_is_refused(self, videos, tiny_folder, tmp_path):
        for _ in range(2):  # with other random prompts
            create("vop", str(tiny_folder), num_frames=2, device="cpu").save_pretrained(tmp_path / "run")
            if not (tmp_path / "library").exists():
                Library.create(tmp_path / "library", model=str(tmp_path / "run"))
        with pytest.raises(VopError, match="reembed"):
            Library.open(tmp_path / "library").search("a dog")

    def test_an_unknown_model_number_is_refused(self, library):
        with pytest.raises(UsageError, match="model is 1"):
            Library.open(library.path, model={1: "mini"})


class TestWriting:
    def test_index_adds_new_videos(self, small, videos, tmp_path):
        seen: list[str] = []
        report = small.index(
            [videos["a"], str(videos["c"]), tmp_path / "missing"],
            workers=1,
            progress=lambda stage, done, total, note="": seen.append(stage),
            warn=seen.append,
        )
        assert (report.added, list(report.missing)) == (2, [str(tmp_path / "missing")])
        assert any("missing" in text for text in seen)
        assert seen[-1] == "tidying up"
        assert sorted(names(small.search("a dog"))) == ["a.mp4", "c.mp4"]
        preview = small.preview(videos["a"].parent)
        assert sorted(Path(path).name for path in preview.new) == ["b.mp4", "d.mp4"]
        assert small.index(videos["a"].parent, exclude=["d.*"], workers=1).added == 1
        assert small.status().videos == 3

    def test_forgotten_videos_can_be_restored(self, small, videos):
        small.index([videos["a"], videos["c"]], workers=1)
        assert small.forget(videos["a"]) == 1
        assert names(small.search("a dog")) == ["c.mp4"]
        assert small.restorable() == [str(videos["a"])]
        assert small.restore() == [str(videos["a"])]
        assert small.forget([videos["a"]], for_good=True) == 1
        with pytest.raises(UsageError, match="nothing to restore"):
            small.restore(videos["a"])

    def test_exclude_changes_the_globs(self, small):
        assert small.exclude(add=["private", "*.avi"]) == ("private", "*.avi")
        assert small.exclude(drop=["private"]) == ("*.avi",)
        assert small.manifest.exclude == ("*.avi",)

    def test_check_finds_and_repairs_damage(self, small, videos):
        small.index(videos["a"], workers=1)
        report = small.check()
        assert (report.sound, report.videos, report.segments) == (True, 1, 1)
        (small.path / "library.json").write_text((small.path / "library.json").read_text().replace("zero", "hero"))
        assert small.check(repair=True).repaired

    def test_reembed_adds_a_second_model(self, small, videos, tiny_folder, tmp_path):
        small.index([videos["a"], videos["c"]], workers=1)
        create("vop-f+p", str(tiny_folder), num_frames=2, device="cpu").save_pretrained(tmp_path / "run")
        before = scores(small.search("a dog"))
        report = small.reembed(str(tmp_path / "run"), keep=True, precision="fp32", workers=1)
        assert (report.videos, len(small.models)) == (2, 2)
        by_name = {own.name: scores(small.search("a dog", model=n)) for n, own in enumerate(small.models)}
        assert before in by_name.values()
        assert by_name[str(tmp_path / "run")] != before

    def test_an_open_library_switches_to_the_new_model(self, small, videos, tiny_folder, tmp_path):
        small.index([videos["a"], videos["c"]], workers=1)
        reader = Library.open(small.path)
        old, moment = reader.search("a dog"), reader.search("a dog", k=1)[0]
        create("vop-f+p", str(tiny_folder), num_frames=2, device="cpu").save_pretrained(tmp_path / "run")
        small.reembed(str(tmp_path / "run"), precision="fp32", workers=1)
        assert [own.name for own in reader.models] == [str(tmp_path / "run")]
        new = reader.search("a dog")
        assert scores(new) == scores(Library.open(small.path).search("a dog"))
        assert scores(new) != scores(old)
        assert len(reader.search(moment)) == 1

    def test_failures_list_unreadable_files(self, small, tmp_path):
        (tmp_path / "broken.mp4").write_text("nothing")
        write_video(tmp_path / "fine.mp4", seed=1)
        small.index([tmp_path / "broken.mp4", tmp_path / "fine.mp4"], workers=1)
        assert [(Path(one.path).name, one.kind) for one in small.failures()] == [("broken.mp4", "unreadable")]
        assert (small.status().unreadable, small.status().videos) == (1, 1)
