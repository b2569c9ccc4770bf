"""Evaluation of files of embeddings: every layout, the round trip, and refused files."""

from __future__ import annotations

import collections
import json
import os
import pickle
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.numpy import save_file

import vop
from vop.converters.gallery import read_gallery
from vop.datasets.types import Split, Video
from vop.errors import DataError, UsageError, VopError
from vop.evaluation.embedding import SplitEmbeddings
from vop.evaluation.embeddings_file import read_embeddings, save_embeddings
from vop.evaluation.job import report_from_embeddings
from vop.evaluation.report import ReportFacts

D = 8
SUFFIXES = (".npz", ".safetensors", ".parquet")


def vectors(*shape, seed):
    return np.random.default_rng(seed).normal(size=(*shape, D)).astype(np.float32)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def content(texts=6, videos=3, /, **changes):
    """Two texts per video, in another order than the videos."""
    of_texts = [f"video{n % videos}" for n in range(texts)]
    found = {"text_embeds": vectors(texts, seed=1), "video_embeds": vectors(videos, seed=2)}
    found |= {"video_ids": [f"video{n}" for n in range(videos)], "text_video_ids": of_texts}
    found |= {"texts": [f"caption {n}" for n in range(texts)]}
    return {name: value for name, value in (found | changes).items() if value is not None}


def write(path, found):
    """Write the content in the documented layout of other tools."""
    if path.suffix == ".npz":
        np.savez(path, **{name: np.asarray(value) for name, value in found.items()})
    elif path.suffix == ".safetensors":
        arrays = {name: np.ascontiguousarray(value) for name, value in found.items() if name.endswith("embeds")}
        save_file(arrays, path, metadata={name: json.dumps(v) for name, v in found.items() if name not in arrays})
    elif path.suffix == ".pkl":
        path.write_bytes(pickle.dumps(found))
    else:
        texts = [None] * len(found["text_embeds"])
        rows = [
            {"kind": "text", "video_id": v, "text": t, "embedding": e.tolist()}
            for v, t, e in zip(found["text_video_ids"], found.get("texts", texts), found["text_embeds"], strict=True)
        ]
        rows += [
            {"kind": "video", "video_id": v, "text": None, "embedding": e.tolist()}
            for v, e in zip(found["video_ids"], found["video_embeds"], strict=True)
        ]
        pq.write_table(pa.Table.from_pylist(rows[::-1]), path)  # the order of rows is free
    return path


def naive_t2v(found, *, score="cosine"):
    """The rank of each text's video, by sorting one text at a time."""
    videos = unit(found["video_embeds"]) if score == "cosine" else found["video_embeds"]
    ranks = []
    for text, wanted in zip(found["text_embeds"], found["text_video_ids"], strict=True):
        order = np.argsort(-(videos @ text))
        ranks.append(1 + [found["video_ids"][n] for n in order].index(wanted))
    return ranks


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".pkl"])
def test_all_layouts_give_the_same_ranks(tmp_path, suffix):
    found = content(40, 20)
    report = vop.evaluate_embeddings(write(tmp_path / f"clip{suffix}", found))
    expected = naive_t2v(found)
    got = report.metrics.t2v.ranks.tolist()
    assert got == (expected[::-1] if suffix == ".parquet" else expected)
    assert max(expected) > 1
    assert (report.method, report.data, report.split, report.gallery_size) == ("embeddings", "clip", "test", 20)
    assert list(report.rescored) == ["dual softmax"]
    assert report.ambiguous.texts == 0
    assert (report.settings["score"], report.settings["dimension"]) == ("cosine", D)


def test_other_names_without_texts_are_read(tmp_path):
    found = {"text_embeds": vectors(5, seed=1), "vid_embeds": vectors(5, seed=2), "vid_ids": np.arange(5)}
    np.savez(tmp_path / "pairs.npz", **found)
    report = vop.evaluate_embeddings(tmp_path / "pairs.npz")
    pairs = {"text_embeds": found["text_embeds"], "video_embeds": found["vid_embeds"]}
    ids = [str(n) for n in range(5)]
    assert report.metrics.t2v.ranks.tolist() == naive_t2v(pairs | {"video_ids": ids, "text_video_ids": ids})
    assert report.ambiguous is None
    assert report.to_dict()["ambiguous"] is None


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_numbers_that_pandas_made_floats_are_ids(tmp_path, suffix):
    numbers = {"video_ids": [7, 8, 9], "text_video_ids": [7, 8, 9, 9, 8, 7]}
    floats = {name: [float(number) for number in listed] for name, listed in numbers.items()}
    write(tmp_path / f"whole{suffix}", content(**numbers))
    write(tmp_path / f"floats{suffix}", content(**floats))
    whole, made_floats = (vop.evaluate_embeddings(tmp_path / f"{name}{suffix}") for name in ("whole", "floats"))
    assert made_floats.metrics == whole.metrics
    write(tmp_path / f"halves{suffix}", content(**floats | {"video_ids": [7.5, 8.0, 9.0]}))
    with pytest.raises(DataError, match="7.5"):
        vop.evaluate_embeddings(tmp_path / f"halves{suffix}")


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_dot_products_and_cosines_rank_differently(tmp_path, suffix):
    found = content(40, 20)
    found["video_embeds"] *= np.linspace(0.05, 1, 20, dtype=np.float32)[:, None] / 10
    path = write(tmp_path / f"a{suffix}", found)
    cosine, dot = (vop.evaluate_embeddings(path, score=score).metrics.t2v.ranks.tolist() for score in ("cosine", "dot"))
    assert cosine == naive_t2v(found)
    assert dot == naive_t2v(found, score="dot")
    assert cosine != dot
    assert "dual softmax" not in vop.evaluate_embeddings(path, score="dot").rescored  # texts are longer than 1
    with pytest.raises(UsageError, match="'l2'.*cosine"):
        vop.evaluate_embeddings(path, score="l2")


def test_frames_are_pooled(tmp_path):
    frames = vectors(3, 4, seed=5)
    found = content(video_embeds=frames)
    stored = read_embeddings(write(tmp_path / "a.npz", found), score="dot")
    np.testing.assert_allclose(stored.embedded.videos.numpy(), unit(frames).mean(axis=1), atol=1e-6)
    stored = read_embeddings(tmp_path / "a.npz")
    np.testing.assert_allclose(stored.embedded.videos.numpy(), unit(unit(frames).mean(axis=1)), atol=1e-6)


def embedded(texts=30, videos=10, *, seed=7, scale=1.0):
    names = tuple(Video(f"v {n}", f"{n}.mp4") for n in range(videos))
    split = Split("val", names, tuple(f"größer, 犬 {n}" for n in range(texts)), tuple(n % videos for n in range(texts)))
    parts = (unit(vectors(texts, seed=seed)), scale * unit(vectors(videos, seed=seed + 1)))
    return SplitEmbeddings(split, *map(torch.from_numpy, parts))


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("scale", [1.0, 0.7])
def test_the_round_trip_gives_the_same_report(tmp_path, suffix, scale):
    """The authors' releases have video embeddings shorter than 1, as with scale 0.7."""
    ours, bank = embedded(scale=scale), embedded(4, 4, seed=20, scale=scale)
    facts = ReportFacts(method="vop", data="cooking")
    expected = report_from_embeddings(ours, listed=ours.split, bank=bank, facts=facts).to_dict()
    save_embeddings(tmp_path / f"a{suffix}", ours, bank=bank, facts=facts)
    report = vop.evaluate_embeddings(tmp_path / f"a{suffix}").to_dict()
    assert report["settings"].pop("score") == "dot"
    for key in ("settings", "notes"):
        del report[key], expected[key]
    assert report == expected
    assert list(report["rescored"]) == ["dual softmax", "qb-norm"]


def test_only_known_files_are_written(tmp_path):
    with pytest.raises(UsageError, match=r"a\.pkl: .*\.npz"):
        save_embeddings(tmp_path / "a.pkl", embedded())
    with pytest.raises(UsageError, match=r"a\.csv: .*\.npz"):
        vop.evaluate_embeddings(tmp_path / "a.csv")
    with pytest.raises(DataError, match=r"gone\.npz"):
        vop.evaluate_embeddings(tmp_path / "gone.npz")
    assert not list(tmp_path.iterdir())


def spoiled(name, row, value):
    array = content()[name]
    array[row] = value
    return {name: array}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (spoiled("text_embeds", 4, 0), r"text_embeds\[4\] is zero"),
        (spoiled("video_embeds", 1, np.nan), r"video_embeds\[1\] is not finite"),
        ({"video_embeds": vectors(3, seed=2)[:, :5]}, r"text_embeds \(6, 8\), video_embeds \(3, 5\)"),
        ({"text_embeds": vectors(6, 2, seed=1)}, r"text_embeds .*\(6, 2, 8\)"),
        ({"video_ids": ["video0", "video1", "video0"]}, "'video0' more than once"),
        ({"video_ids": ["video0", "video1"]}, "video_ids has 2 entries, video_embeds has 3"),
        ({"text_video_ids": ["video0"] * 5 + ["video9"]}, "text_video_ids has 'video9'"),
        ({"text_video_ids": ["video0"] * 6}, "'video1' has no caption"),
        ({"text_video_ids": None}, "6 texts and 3 videos are not pairs: .*text_video_ids"),
        ({"texts": ["one"]}, "texts has 1 entries"),
        ({"video_ids": None}, "video_ids is missing"),
        ({"bank_text_embeds": vectors(2, seed=3)}, "bank_text_embeds is alone"),
        ({"text_embeds": vectors(6, seed=1).astype(np.float64) * 1e200}, r"text_embeds\[0\] is too long"),
        ({"vid_ids": ["video0", "video1", "video2"]}, "both vid_ids and video_ids"),
        ({"score": np.array(["dot"])}, r"score is array\(.*; it must be a string"),
    ],
)
def test_invalid_content_is_named(tmp_path, changes, says):
    with pytest.raises(DataError, match=rf"a\.npz: .*{says}"):
        vop.evaluate_embeddings(write(tmp_path / "a.npz", content(**changes)))


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".pkl"])
def test_damaged_files_are_named(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    whole = write(tmp_path / f"b{suffix}", content()).read_bytes()
    for data in (b"", b"no such format", whole[: len(whole) // 2]):
        path.write_bytes(data)
        with pytest.raises(DataError, match=rf"a\{suffix}"):
            vop.evaluate_embeddings(path)


def test_an_archive_that_claims_more_than_it_has(tmp_path):
    whole = write(tmp_path / "b.npz", content()).read_bytes()
    (tmp_path / "a.npz").write_bytes(whole.replace(b"'shape': (6, 8), ", b"'shape': (10**9,)", 1))
    with pytest.raises(DataError, match=r"a\.npz"):
        vop.evaluate_embeddings(tmp_path / "a.npz")


def test_damaged_compressed_data_is_named(tmp_path):
    np.savez_compressed(tmp_path / "b.npz", **content(text_embeds=np.zeros((6, 8)) + 1))
    whole = (tmp_path / "b.npz").read_bytes()
    with zipfile.ZipFile(tmp_path / "b.npz") as archive:
        start = archive.getinfo("text_embeds.npy").header_offset + 60
    (tmp_path / "a.npz").write_bytes(whole[:start] + b"\xff" * 40 + whole[start + 40 :])
    with pytest.raises(DataError, match=r"a\.npz"):
        vop.evaluate_embeddings(tmp_path / "a.npz")


def test_metadata_of_other_tools_is_left_alone(tmp_path):
    path = write(tmp_path / "a.parquet", content())
    pq.write_table(pq.read_table(path).replace_schema_metadata({b"other": b"\xff"}), path)
    assert len(read_embeddings(path).embedded.texts) == 6


def test_deeply_nested_lists_are_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file({"text_embeds": vectors(6, seed=1)}, path, metadata={"texts": "[" * 100_000})
    with pytest.raises(DataError, match=r"a\.safetensors"):
        vop.evaluate_embeddings(path)


@pytest.mark.parametrize("number", [2**26, 2**31 - 1])
def test_a_pickle_cannot_take_memory_for_objects_that_it_does_not_have(tmp_path, number):
    (tmp_path / "a.pkl").write_bytes(b"\x80\x02Nr" + number.to_bytes(4, "little") + b".")
    with pytest.raises(DataError, match=f"object number {number}"):
        vop.evaluate_embeddings(tmp_path / "a.pkl")


def test_npz_files_run_no_pickles(tmp_path):
    np.savez(tmp_path / "a.npz", **content(texts=np.array(["a"] * 6, dtype=object)))
    with pytest.raises(DataError, match=r"a\.npz"):
        vop.evaluate_embeddings(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t.drop_columns("kind"), "'kind' is missing"),
        (lambda t: t.set_column(0, "kind", pa.array(["word"] * len(t))), "kind is 'word'"),
        (lambda t: t.set_column(0, "kind", pa.array([["text"]] * len(t))), r"kind is \['text'\]"),
        (lambda t: t.replace_schema_metadata({"method": b"\xff"}), "not a Parquet file"),
        (lambda t: t.set_column(3, "embedding", pa.array([[1.0] * (n + 1) for n in range(len(t))])), "equal length"),
    ],
)
def test_invalid_tables_are_named(tmp_path, change, says):
    path = write(tmp_path / "a.parquet", content())
    pq.write_table(change(pq.read_table(path)), path)
    with pytest.raises(DataError, match=says):
        vop.evaluate_embeddings(path)


# -- the authors' galleries


def gallery(**changes):
    found = {"text_embeds": vectors(4, seed=1), "vid_embeds": vectors(4, seed=2)}
    return found | {"vid_ids": [f"video{n}" for n in range(4)], "texts": [f"caption {n}" for n in range(4)]} | changes


def as_tensors(found):
    return {name: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for name, v in found.items()}


@pytest.mark.parametrize(
    "save",
    [
        lambda found, path: torch.save(as_tensors(found), path),  # as the release's load_data reads it
        lambda found, path: torch.save(found, path),
        lambda found, path: torch.save(
            found | {"text_embeds": torch.nn.Parameter(torch.from_numpy(found["text_embeds"]))}, path
        ),
        lambda found, path: torch.save(found | {"settings": {"frames": [[1], {"a": torch.ones(1)}]}}, path),
        *(lambda found, path, p=p: path.write_bytes(pickle.dumps(found, protocol=p)) for p in range(6)),
        *(lambda found, path, p=p: path.write_bytes(pickle.dumps(as_tensors(found), protocol=p)) for p in (2, 4, 5)),
        lambda found, path: path.write_bytes(pickle.dumps(found | {"vid_ids": np.array(found["vid_ids"])})),
        lambda found, path: path.write_bytes(pickle.dumps(found | {"vid_ids": list(np.array(found["vid_ids"]))})),
        lambda found, path: path.write_bytes(pickle.dumps(found | {"texts": np.array(found["texts"], dtype=object)})),
        lambda found, path: path.write_bytes(
            pickle.dumps(found | {"vid_embeds": np.asfortranarray(found["vid_embeds"].astype(">f8"))})
        ),
    ],
)
def test_galleries_of_all_pickle_protocols_are_read(tmp_path, save):
    found = gallery()
    save(found, tmp_path / "VoP_msrvtt9k_features.pkl")
    read = read_gallery(tmp_path / "VoP_msrvtt9k_features.pkl", names=found)
    for name in ("text_embeds", "vid_embeds"):
        np.testing.assert_array_equal(read[name], found[name])
    assert list(read["vid_ids"]) == found["vid_ids"]
    assert list(read["texts"]) == found["texts"]
    report = vop.evaluate_embeddings(tmp_path / "VoP_msrvtt9k_features.pkl")
    ids = found["vid_ids"]
    pairs = {"text_embeds": found["text_embeds"], "video_embeds": found["vid_embeds"]}
    assert report.metrics.t2v.ranks.tolist() == naive_t2v(pairs | {"video_ids": ids, "text_video_ids": ids})


@pytest.mark.parametrize(
    ("name", "save"),
    [
        ("a.npz", lambda path, content: np.savez(path, **content)),
        ("a.pkl", lambda path, content: torch.save(content, path)),
    ],
)
def test_a_file_with_other_names_is_refused_with_its_names(tmp_path, name, save):
    path = tmp_path / name
    save(path, {"queries": vectors(2, seed=1), "clips": vectors(2, seed=2)})
    with pytest.raises(DataError, match="text_embeds is missing; the file has queries, clips"):
        vop.evaluate_embeddings(path)


def test_galleries_without_a_mapping_are_refused(tmp_path):
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps(gallery(vid_embeds=vectors(2, seed=2), vid_ids=["a", "b"])))
    with pytest.raises(DataError, match="4 texts and 2 videos .*text_video_ids"):
        vop.evaluate_embeddings(path)


class Runs:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("write_it", [pickle.dump, torch.save])
def test_pickles_run_no_code(tmp_path, write_it):
    with open(tmp_path / "a.pkl", "wb") as file:
        write_it(gallery(texts=Runs(tmp_path / "made")), file)
    with pytest.raises(DataError, match=r"a\.pkl: .*(posix|nt)\.mkdir"):
        vop.evaluate_embeddings(tmp_path / "a.pkl")
    assert not (tmp_path / "made").exists()


def reduced(*call):
    class Reduced:
        def __reduce__(self):
            return call

    return Reduced()


def _from_buffer():
    return np.arange(3, dtype=np.float32).__reduce_ex__(5)[0]


@pytest.mark.parametrize(
    "value",
    [
        reduced(np.load, ("x",)),
        reduced(collections.Counter, ("abc",)),
        reduced(getattr, ("", "format")),
        np.ma.masked_array([1.0, 2.0]),
        np.array([{"a": 1}], dtype=object),
        np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f4")]),
        reduced(_from_buffer(), (b"\0" * 8, np.dtype("f4"), (2**40,), "C")),
        reduced(_from_buffer(), (b"", np.dtype("f4"), (-1, 0), "C")),
        reduced(_from_buffer(), (b"\0" * 16, np.dtype("O"), (2,), "C")),
        {"a": {1, 2}},
        1 + 2j,
    ],
)
def test_other_content_of_a_pickle_is_refused(tmp_path, value):
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(gallery(vid_embeds=value)))
    with pytest.raises(VopError, match=r"a\.pkl"):
        vop.evaluate_embeddings(tmp_path / "a.pkl")
