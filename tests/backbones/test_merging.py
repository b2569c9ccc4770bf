"""Token merging against a loop over images and pairs, and refused uses."""

from __future__ import annotations

import json

import pytest
import torch
import torch.nn.functional as F

import vop
from tiny_backbones import make_siglip_folder
from tiny_clip import make_clip_folder
from tiny_data import write_table, write_videos
from vop.backbones import VisionSizes, layers
from vop.backbones.embedding_config import TokenMerging
from vop.backbones.merging import Merger
from vop.backbones.sizes import Rope
from vop.cli import main
from vop.errors import UsageError
from vop.methods.base import Method
from vop.models.pretrained import create
from vop.search.models import fingerprint

FRAMES = 4
VISION = {"vision": {"image_size": 64, "patch_size": 16}}  # 16 patches, 3 layers


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_clip_folder(tmp_path_factory.mktemp("clip"), **VISION)


def some_frames(model, videos: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    shape = (videos, FRAMES, 3, model.image_size, model.image_size)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def merged_by_loops(patches, sizes, keys, count):
    """Merge `count` patches (n, d) of one image; return the tokens and their sizes."""
    even, odd = range(0, len(patches), 2), range(1, len(patches), 2)
    found = []
    for a in even:
        similar, b = max((F.cosine_similarity(keys[a], keys[b], dim=0).item(), b) for b in odd)
        found.append((similar, a, b))
    chosen = {a: b for _, a, b in sorted(found, reverse=True)[:count]}
    kept = [(patches[a], sizes[a]) for a in even if a not in chosen]
    for b in odd:
        group = [b, *(a for a, into in chosen.items() if into == b)]
        total = sum(sizes[i] for i in group)
        kept.append((sum(sizes[i] * patches[i] for i in group) / total, total))
    return torch.stack([token for token, _ in kept]), torch.stack([size for _, size in kept])


@pytest.mark.parametrize("patches", [16, 25])
def test_matching_equals_a_loop(patches):
    torch.manual_seed(0)
    side = round(patches**0.5)
    tower = VisionSizes(layers=4, image_size=16 * side, patch_size=16)
    merging = TokenMerging(0.7)
    merger = Merger(merging.schedule(tower), tower, images=3, device=torch.device("cpu"))
    tokens, expected = torch.randn(3, 2 + patches, 8), [torch.ones(patches)] * 3
    counts = merging.schedule(tower)
    assert counts[-1] == round(0.3 * patches)
    for left in counts[:-1]:
        keys = torch.randn(3, 2, tokens.shape[1], 5)
        after = merger.merge(tokens, keys)
        for image in range(3):
            old, mean = tokens[image, 2:], keys[image].mean(dim=0)[2:]
            by_loops, sizes = merged_by_loops(old, expected[image], mean, len(old) - left)
            torch.testing.assert_close(after[image, 2:], by_loops)
            torch.testing.assert_close(merger.sizes[image], sizes)
            expected[image] = sizes
        assert torch.equal(after[:, :2], tokens[:, :2])
        assert after.shape[1] == 2 + left
        assert torch.equal(merger.sizes.sum(dim=1), torch.full((3,), float(patches)))
        tokens = after
    assert torch.equal(merger.merge(tokens, keys), tokens)  # the last layer merges nothing


def test_tokens_are_weighted_by_their_size():
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 1, 2, 5, 8)
    sizes = torch.tensor([[1, 3, 1, 2, 1]])
    repeated = [x.repeat_interleave(sizes[0], dim=2) for x in (k, v)]
    torch.testing.assert_close(layers.attend(q, k, v, bias=sizes.log()), layers.attend(q, *repeated))


@pytest.mark.parametrize("method", ["zero-shot", "adapter-ffn", "vop", "vop-f+c"])
def test_ratio_0_changes_no_bit(method, folder, tmp_path):
    torch.manual_seed(0)
    settings = {"text_prompts": 4} if method.startswith("vop") else {}
    create(method, str(folder), num_frames=FRAMES, **settings).save_pretrained(tmp_path)
    plain, zero, merged = (vop.load(tmp_path, num_frames=FRAMES, merge_tokens=ratio) for ratio in (0, 0.0, 0.5))
    frames = some_frames(plain)
    embeddings = plain.encode_frames(frames)
    assert torch.equal(zero.encode_frames(frames), embeddings)
    merged.clip.vision.merging = TokenMerging(0.0)
    assert torch.equal(merged.encode_frames(frames), embeddings)
    merged.merge_tokens(0)
    assert merged.merging is None


@pytest.mark.parametrize("method", ["zero-shot", "full", "adapter-attn", "vop", "vop-p", "vop-c", "vop-f", "vop-f+c"])
def test_every_method_can_merge_tokens(method, folder):
    torch.manual_seed(0)
    settings = {"text_prompts": 4} if method.startswith("vop") else {}
    model = create(method, str(folder), num_frames=FRAMES, **settings).eval()
    frames = some_frames(model)
    plain = model.encode_frames(frames)
    model.merge_tokens(0.5)
    merged = model.encode_frames(frames)
    assert not torch.equal(merged, plain)
    assert (merged * plain).sum(dim=1).min() > 0.9
    for n in range(2):  # each video alone
        torch.testing.assert_close(model.encode_frames(frames[n : n + 1]), merged[n : n + 1])


def test_merging_across_frames(folder):
    model = vop.load(folder, num_frames=FRAMES, merge_tokens=TokenMerging(0.5, across_frames=2))
    frames = some_frames(model)
    merged = model.encode_frames(frames)
    pixels = model.normalise(frames)
    with torch.no_grad():
        features = model.frame_features(pixels)
        assert features.shape == (2, FRAMES, 16)
        other = pixels.clone()
        other[:, 2:] = 0  # the first two frames form a group
        torch.testing.assert_close(model.frame_features(other)[:, :2], features[:, :2])
        other[:, 1] = 0
        assert not torch.allclose(model.frame_features(other)[:, 0], features[:, 0])
    for n in range(2):
        torch.testing.assert_close(model.encode_frames(frames[n : n + 1]), merged[n : n + 1])
    with pytest.raises(UsageError, match=r"2.*3"):
        model.encode_frames(frames[:, :3])


def test_identical_patches_are_merged_without_loss(tmp_path):
    """With proportional attention and pooling, a merged token has the weight of its copies."""
    folder = make_siglip_folder(tmp_path)
    model = vop.load(folder)
    vision = model.clip.vision
    vision.positions.data[:] = vision.positions.data[:1].clone()
    pixels = torch.full((1, 1, 3, model.image_size, model.image_size), 0.5)
    with torch.no_grad():
        plain = model.frame_features(pixels)
        model.merge_tokens(0.5)
        torch.testing.assert_close(model.frame_features(pixels), plain)


def test_libraries_record_the_merge_ratio(folder):
    ratios = [0.0, 0.25, 0.5, TokenMerging(0.5, across_frames=2)]
    assert len({fingerprint(vop.load(folder, num_frames=FRAMES, merge_tokens=ratio)) for ratio in ratios}) == 4
    plain = vop.load(folder, num_frames=FRAMES)
    assert vop.load(folder, num_frames=FRAMES, merge_tokens=0.5, beside=[plain]).clip is not plain.clip
    assert plain.merging is None


class TestRefused:
    @pytest.mark.parametrize("ratio", [-0.1, 1, 1.5, float("nan")])
    def test_ratios(self, ratio):
        with pytest.raises(UsageError, match=str(ratio)):
            TokenMerging(ratio)

    def test_too_few_layers(self, folder):
        with pytest.raises(UsageError, match=r"0\.9"):
            vop.load(folder, merge_tokens=0.9)  # 16 patches, and two layers that halve them

    def test_rotary_positions(self):
        with pytest.raises(UsageError, match="rotary"):
            TokenMerging(0.5).check_tower(VisionSizes(rope=Rope(reference=16)))

    def test_training(self, folder):
        model = vop.load(folder, num_frames=FRAMES, merge_tokens=0.5).train()
        with pytest.raises(UsageError, match="eval"):
            model.encode_frames(some_frames(model))

    def test_methods(self, folder):
        model = create("vop", str(folder), num_frames=FRAMES, text_prompts=4)
        with pytest.raises(UsageError, match="across_frames is 2"):
            model.merge_tokens(TokenMerging(0.5, across_frames=2))

        class Other(Method):
            def embed_frames(self, clip, pixels):
                return clip.embed_frames(pixels)

        assert (Other.token_merging, Method.token_merging) == ("nowhere", "across frames")

    def test_merging_across_frames(self, folder, tmp_path):
        with pytest.raises(UsageError, match="across_frames is 3"):
            vop.load(folder, num_frames=FRAMES, merge_tokens=TokenMerging(0.5, across_frames=3))
        with pytest.raises(UsageError, match="across_frames is 2"):
            vop.load(make_siglip_folder(tmp_path), num_frames=2, merge_tokens=TokenMerging(0.5, across_frames=2))


def test_evaluate_can_merge_tokens(folder, tmp_path):
    videos = write_videos(tmp_path)
    table = write_table(tmp_path / "some.csv", [(path.name, f"clip {path.name}", "test") for path in videos[:4]])
    call = ["evaluate", str(folder), "--data", str(table), "--num-frames", "3", "--json", str(tmp_path / "r")]
    assert main([*call, "--merge-tokens", "0.5"]) == 0
    document = json.loads((tmp_path / "r").read_text())
    assert document["settings"]["merge_tokens"] == 0.5
    assert document == vop.evaluate(folder, table, num_frames=3, merge_tokens=0.5).to_dict()
    assert main([*call, "--merge-tokens", "1"]) == 2
    assert "merge_tokens" not in vop.evaluate(folder, table, num_frames=3).settings
