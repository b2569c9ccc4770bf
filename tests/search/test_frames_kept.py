"""The decoded frames that a library keeps."""

from __future__ import annotations

import numpy as np
import pytest

from search.libraries import a_manifest
from vop.search import frames as kept_frames
from vop.search.frames import SegmentFrames
from vop.search.schema import segment_id
from vop.video.clip import DECODER_VERSION

ID = segment_id("0123456789abcdef" * 2, (0.0, 10.0))
OTHER = segment_id("fedcba9876543210" * 2, (8.0, 18.0))


def some_frames(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (4, 3, 32, 32), np.uint8)


@pytest.fixture
def kept(tmp_path) -> SegmentFrames:
    return SegmentFrames.of(a_manifest().with_(keep_frames=True), tmp_path)


def files(folder) -> list:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_frames_are_read_as_they_were_written(kept, tmp_path):
    kept.write(ID, some_frames())
    kept.write(OTHER, some_frames(1))
    assert np.array_equal(kept.read(ID), some_frames())
    assert np.array_equal(kept.read(OTHER), some_frames(1))
    assert np.array_equal(SegmentFrames.of(a_manifest().with_(keep_frames=True), tmp_path).read(ID), some_frames())
    assert [path.parts[-2:] for path in files(tmp_path)] == [
        ("01", f"{ID}.safetensors"),
        ("fe", f"{OTHER}.safetensors"),
    ]


def test_missing_frames_are_none(kept):
    assert kept.read(ID) is None
    kept.write(ID, some_frames())
    assert kept.read(ID) is not None
    assert kept.read(OTHER) is None


def test_frames_are_not_kept_by_default(tmp_path):
    assert SegmentFrames.of(a_manifest(), tmp_path) is None


@pytest.mark.parametrize("harm", ["cut", "empty", "bit", "text"])
def test_damaged_frames_are_none_until_written_again(kept, tmp_path, harm):
    kept.write(ID, some_frames())
    (path,) = files(tmp_path)
    data = bytearray(path.read_bytes())
    data[-100] ^= 4
    path.write_bytes({"cut": data[: len(data) // 2], "empty": b"", "bit": data, "text": b"no frames"}[harm])
    assert kept.read(ID) is None
    kept.write(ID, some_frames(2))  # which replaces it
    assert np.array_equal(kept.read(ID), some_frames(2))


def test_frames_of_other_settings_are_stored_apart(kept, tmp_path, monkeypatch):
    kept.write(ID, some_frames())
    manifest = a_manifest().with_(keep_frames=True)
    others = {"num_frames": 12}, {"image_size": 224}, {"resize": "squash"}, {"interpolation": "bilinear"}
    for other in (manifest.with_(**change) for change in others):
        assert SegmentFrames.of(other, tmp_path).read(ID) is None
    monkeypatch.setattr(kept_frames, "DECODER_VERSION", "another")
    assert SegmentFrames.of(manifest, tmp_path).read(ID) is None
    monkeypatch.undo()
    assert SegmentFrames.of(manifest, tmp_path).read(ID) is not None


def test_frames_of_another_shape_are_none(kept):
    kept.write(ID, some_frames()[:2])
    assert kept.read(ID) is None


def test_the_folder_name_omits_the_resizing_of_clip(kept, tmp_path):
    kept.write(ID, some_frames())
    assert [path.parent.parent.name for path in files(tmp_path)] == [f"4x32-{DECODER_VERSION}"]
