"""`vop.load`, and the embeddings of texts and videos."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict

import numpy as np
import pytest
import torch

import vop
from clips import write_clip
from vop.errors import UsageError, VideoError, VopError
from vop.models.pretrained import create
from vop.training.recipe import Recipe


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    shades = [np.full((48, 48, 3), 20 * k, np.uint8) for k in range(8)]
    return [write_clip(folder / "a.mp4", shades), write_clip(folder / "b.mp4", shades[:1])]


@pytest.fixture(scope="module")
def zero_shot(tiny_folder):
    return vop.load(tiny_folder)


class TestLoad:
    def test_a_clip_folder_is_zero_shot(self, zero_shot, tiny_folder):
        assert zero_shot.method_name == "zero-shot"
        assert not zero_shot.trainable()
        assert zero_shot.backbone.folder == tiny_folder

    def test_models_open_with_another_number_of_frames(self, tiny, tmp_path, videos):
        create("vop", tiny, num_frames=4).save_pretrained(tmp_path / "any")
        create("vop-p", tiny, num_frames=4).save_pretrained(tmp_path / "fixed")
        assert vop.load(tmp_path / "any", num_frames=2).encode_video(videos[:1]).shape == (1, 16)
        assert vop.load(tmp_path / "fixed", num_frames=2).encode_video(videos[:1]).shape == (1, 16)

    @pytest.mark.parametrize("frames", [0, -3, 2.5, True, "two"])
    def test_invalid_numbers_of_frames_are_refused(self, tiny, tiny_folder, frames):
        with pytest.raises(UsageError, match=f"num_frames is {frames!r}"):
            vop.load(tiny_folder, num_frames=frames)
        with pytest.raises(UsageError, match=f"num_frames is {frames!r}"):
            create("vop", tiny, num_frames=frames)

    def test_numbers_of_numpy_are_taken(self, tiny, tiny_folder, tmp_path):
        model = create("bias", tiny_folder, num_frames=np.int64(4), train_logit_scale=False)
        model.save_pretrained(tmp_path / "run")  # as JSON
        assert vop.load(tmp_path / "run", backbone=tiny_folder).num_frames == 4
        model.resize_frames(np.int32(2))
        model.save_pretrained(tmp_path / "run")
        recipe = Recipe(epochs=np.int64(2), learning_rate=np.float32(0.5), matryoshka=[np.int64(4)])
        assert json.loads(json.dumps(asdict(recipe)))["learning_rate"] == 0.5
        assert json.loads((tmp_path / "run" / "config.json").read_text())["settings"]["num_frames"] == 2

    def test_too_many_frames_are_refused(self, tiny, tiny_folder):
        with pytest.raises(UsageError, match="num_frames is 1,000,000,000; .* 1 to 4,096"):
            vop.load(tiny_folder, num_frames=10**9)
        with pytest.raises(UsageError, match="num_frames is 1,000,000,000"):
            create("vop", tiny, num_frames=10**9)


class TestTexts:
    @pytest.mark.parametrize("wrong", [-1, 514, 10**12])
    def test_ids_outside_the_vocabulary_are_refused(self, zero_shot, wrong):
        with pytest.raises(UsageError, match="token ids are .* 0 to 513"):
            zero_shot.embed_tokens(torch.tensor([[512, wrong, 513]]))

    def test_unit_length_float32_one_by_one_or_together(self, zero_shot):
        texts = ["short", "a somewhat longer text", "x"]
        together = zero_shot.encode_text(texts)
        assert (together.dtype, together.shape, together.device.type) == (torch.float32, (3, 16), "cpu")
        torch.testing.assert_close(together.norm(dim=-1), torch.ones(3))
        alone = torch.cat([zero_shot.encode_text([text]) for text in texts])
        torch.testing.assert_close(together, alone)
        torch.testing.assert_close(together, zero_shot.encode_text(texts, batch_size=2))

    @pytest.mark.parametrize(("method", "most"), [("zero-shot", 40), ("vop", 40 - 8)])
    @pytest.mark.parametrize("text", ["word " * 10_000, "x" * 41, "\N{FAMILY}" * 99])
    def test_long_texts_are_cut_before_the_end_mark(self, tiny, method, most, text):
        model = create(method, tiny)
        ids = model.tokenize([text])
        assert ids.shape == (1, most)
        assert ids[0, -1] == tiny.sizes.text.eos_token_id
        assert (ids[0, :-1] != tiny.sizes.text.eos_token_id).all()
        assert model.encode_text([text]).isfinite().all()

    def test_unusual_texts_are_embedded(self, zero_shot):
        texts = ["", " ", "\x00", "\N{PILE OF POO}", "ñandú\n\tcafé"]
        assert zero_shot.encode_text(texts).isfinite().all()

    def test_none(self, zero_shot):
        assert zero_shot.encode_text([]).shape == (0, 16)

    def test_a_model_with_a_vocabulary_passes_the_check(self, zero_shot):
        zero_shot.check_vocabulary()

    def test_a_model_without_a_vocabulary_takes_only_ids(self, tiny_folder, tmp_path):
        bare = shutil.copytree(tiny_folder, tmp_path / "bare", ignore=shutil.ignore_patterns("tokenizer*"))
        model = vop.load(bare)
        with pytest.raises(VopError, match=r"bare: .*vocabulary \(tokenizer\.json.*embed_tokens"):
            model.encode_text(["words"])
        with pytest.raises(VopError, match=r"bare: .*vocabulary"):
            model.check_vocabulary()
        ids = torch.tensor([[model.backbone.sizes.text.vocab_size - 2, 5, 6, model.backbone.sizes.text.eos_token_id]])
        assert model.embed_tokens(ids).shape == (1, 16)


class TestVideos:
    def test_unit_length_float32_one_by_one_or_together(self, zero_shot, videos):
        together = zero_shot.encode_video(videos)
        assert (together.dtype, together.shape, together.device.type) == (torch.float32, (2, 16), "cpu")
        torch.testing.assert_close(together.norm(dim=-1), torch.ones(2))
        torch.testing.assert_close(together, zero_shot.encode_video([str(path) for path in videos], batch_size=1))

    def test_videos_equal_their_normalised_frames(self, zero_shot, videos):
        from vop.video.frames import read_frames

        frames = read_frames(videos[0], num_frames=12, size=32)
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (zero_shot.backbone.mean, zero_shot.backbone.std))
        pixels = (frames.float() / 255 - mean) / std
        torch.testing.assert_close(zero_shot.normalise(frames), pixels)
        with torch.no_grad():
            expected = zero_shot.embed_frames(pixels[None])
        torch.testing.assert_close(zero_shot.encode_video(videos[:1]), expected, atol=1e-5, rtol=0)

    def test_none(self, zero_shot):
        assert zero_shot.encode_video([]).shape == (0, 16)

    def test_a_single_path_is_refused(self, zero_shot, videos):
        with pytest.raises(UsageError, match=f"paths is '{videos[0]}'; .*list of files"):
            zero_shot.encode_video(videos[0])

    def test_a_missing_video_is_named(self, zero_shot, videos, tmp_path):
        with pytest.raises(VideoError, match=r"missing\.mp4: the file does not exist") as caught:
            zero_shot.encode_video([videos[0], tmp_path / "missing.mp4"])
        assert caught.value.path == tmp_path / "missing.mp4"
