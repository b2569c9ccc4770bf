"""`encode_*` takes frames as arrays or tensors, and returns ordinary tensors."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from PIL import Image

import vop
from clips import write_clip
from vop.errors import UsageError
from vop.models.pretrained import create
from vop.video.resizing import Resizing


@pytest.fixture(scope="module")
def model(tiny_folder):
    return vop.load(tiny_folder, device="cpu")


@pytest.fixture(scope="module")
def frames():
    """uint8 (2, 4, 3, 50, 70): two videos, larger than the backbone's 32 pixels."""
    return torch.randint(0, 256, (2, 4, 3, 50, 70), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


class TestFrames:
    def test_arrays_and_tensors_give_the_same_embeddings(self, model, frames):
        expected = model.encode_frames(frames)
        assert (expected.shape, expected.dtype, expected.device.type) == ((2, 16), torch.float32, "cpu")
        torch.testing.assert_close(expected.norm(dim=-1), torch.ones(2))
        last = frames.permute(0, 1, 3, 4, 2)
        for other in (last, last.contiguous(), frames.numpy(), last.numpy()):
            assert torch.equal(model.encode_frames(other), expected)
        torch.testing.assert_close(model.encode_frames(frames, batch_size=1), expected)

    def test_frames_equal_their_video(self, model, tmp_path):
        shades = [np.full((48, 64, 3), 20 * k, np.uint8) for k in range(12)]
        path = write_clip(tmp_path / "a.mp4", shades)
        read = vop.read_frames(path, num_frames=12, size=32)
        assert torch.equal(model.encode_frames(read[None]), model.encode_video([path]))

    def test_frames_are_resized_like_those_of_read_frames(self, model):
        from vop.video.shape import square

        picture = np.random.default_rng(0).integers(0, 256, (1, 1, 90, 40, 3), np.uint8)
        small = torch.from_numpy(square(picture[0, 0], resizing=Resizing(32)))[None, None]
        assert torch.equal(model.encode_frames(picture), model.encode_frames(small))

    def test_frames_are_squashed_if_the_backbone_squashes(self, squashing_folder, tmp_path):
        squashing = vop.load(squashing_folder, device="cpu")
        assert (squashing.resizing, squashing.image_size) == (Resizing(32, "squash", "bilinear"), 32)
        tiles = np.random.default_rng(0).integers(0, 256, (6, 20, 3)).repeat(8, 0).repeat(8, 1).astype(np.uint8)
        path = write_clip(tmp_path / "a.mp4", [np.roll(tiles, 8 * k, axis=1) for k in range(12)])
        how = {"num_frames": squashing.num_frames, "size": 32}
        read = vop.read_frames(path, **how, resize="squash", interpolation="bilinear")
        expected = squashing.encode_frames(read[None])
        assert torch.equal(squashing.encode_video([path]), expected)
        assert not torch.allclose(squashing.encode_frames(vop.read_frames(path, **how)[None]), expected, atol=1e-4)
        small = Image.fromarray(tiles).resize((32, 32), Image.Resampling.BILINEAR)
        stills = [np.array(image)[None, None] for image in (Image.fromarray(tiles), small)]
        assert torch.equal(*map(squashing.encode_frames, stills))

    def test_no_frames_give_no_embeddings(self, model):
        assert model.encode_frames(np.zeros((0, 4, 32, 32, 3), np.uint8)).shape == (0, 16)

    @pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
    def test_other_dtypes_than_uint8_are_refused(self, model, dtype):
        with pytest.raises(UsageError, match=f"frames is {np.dtype(dtype).name}; encode_frames takes uint8"):
            model.encode_frames(np.zeros((1, 4, 32, 32, 3), dtype))

    @pytest.mark.parametrize("shape", [(4, 3, 32, 32), (1, 4, 32, 32), (1, 4, 32, 32, 4), (1, 0, 3, 32, 32)])
    def test_other_shapes_are_refused(self, model, shape):
        with pytest.raises(UsageError, match="shape of frames is"):
            model.encode_frames(np.zeros(shape, np.uint8))

    def test_a_fixed_number_of_frames_is_enforced(self, tiny, frames):
        assert create("vop-p", tiny, num_frames=4, device="cpu").encode_frames(frames).shape == (2, 16)
        with pytest.raises(UsageError, match="4 frames.* 6 frames.*num_frames=4"):
            create("vop-p", tiny, num_frames=6, device="cpu").encode_frames(frames)


def test_texts_may_be_any_list(model):
    texts = ["a dog", "rain", "snow"]
    expected = model.encode_text(texts)
    for other in (tuple(texts), np.array(texts), np.array(texts, object), iter(texts)):
        assert torch.equal(model.encode_text(other), expected)


@pytest.mark.parametrize("texts", ["a dog", None, 5, [None], ["a dog", float("nan")], [1], [b"rain"]])
def test_other_values_than_lists_of_texts_are_refused(model, texts):
    shown = f"holds {texts[-1]!r} ({type(texts[-1]).__name__})" if isinstance(texts, list) else f"is {texts!r}"
    with pytest.raises(UsageError, match=re.escape(f"texts {shown}; it must be a list of strings")):
        model.encode_text(texts)


def test_half_characters_are_refused(model):
    with pytest.raises(UsageError, match="half"):
        model.encode_text(["half \ud83d"])


@pytest.mark.parametrize("size", [0, -1, 1.5])
def test_wrong_batch_sizes_are_refused(model, frames, size):
    """A negative one would return no embeddings."""
    for encode, given in (
        (model.encode_text, ["a dog"]),
        (model.encode_video, ["a.mp4"]),
        (model.encode_frames, frames),
    ):
        with pytest.raises(UsageError):
            encode(given, batch_size=size)


def test_a_linear_probe_trains_on_embeddings(model, frames, tmp_path):
    """Inference tensors could not be saved for the backward pass."""
    path = write_clip(tmp_path / "a.mp4", [np.full((48, 48, 3), 90, np.uint8)] * 4)
    embeddings = [model.encode_text(["one", "two"]), model.encode_video([path, path]), model.encode_frames(frames)]
    probe = torch.nn.Linear(16, 2)
    for features in embeddings:
        assert not features.requires_grad
        assert not features.is_inference()
        probe.zero_grad()
        torch.nn.functional.cross_entropy(probe(features), torch.tensor([0, 1])).backward()
        assert probe.weight.grad.abs().sum() > 0


class TestPrecision:
    def test_auto_precision_depends_on_the_hardware(self, tiny_folder, monkeypatch):
        for answer, dtype in ((True, torch.bfloat16), (False, torch.float32)):
            monkeypatch.setattr("vop.utils.device.has_bf16", lambda device, answer=answer: answer)
            assert vop.load(tiny_folder, dtype="auto", device="cpu").clip.dtype == dtype
        assert vop.load(tiny_folder, dtype="bf16", device="cpu").clip.dtype == torch.bfloat16

    def test_an_unknown_precision_is_refused(self, tiny_folder):
        with pytest.raises(UsageError, match="unknown precision 'fp16'"):
            vop.load(tiny_folder, dtype="fp16")
