"""Our towers against `transformers`' CLIPModel with the same random weights."""

from __future__ import annotations

import pytest
import torch
from transformers import CLIPModel

from tiny_clip import make_clip_folder
from vop.backbones import find_backbone
from vop.backbones.layers import free_parameter
from vop.backbones.sizes import VIT_B_16, VIT_B_32, VIT_L_14
from vop.backbones.towers import CLIP


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_towers_equal_transformers(tmp_path, activation):
    text, vision = {"hidden_act": activation}, {"hidden_act": "gelu", "layer_norm_eps": 0.02}  # the towers differ
    folder = make_clip_folder(tmp_path, seed=3, text=text, vision=vision)
    theirs, ours = CLIPModel.from_pretrained(folder).eval(), find_backbone(str(folder)).load()
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(5, 3, 32, 32, generator=generator)
    sizes = ours.sizes
    ids = torch.randint(0, sizes.text.vocab_size - 2, (6, 40), generator=generator)
    for row, end in enumerate([1, 5, 11, 20, 38, 39]):
        ids[row, end:] = sizes.text.eos_token_id
    with torch.no_grad():
        images = theirs.get_image_features(pixel_values=pixels).pooler_output
        texts = theirs.get_text_features(input_ids=ids).pooler_output
        torch.testing.assert_close(ours.vision(pixels), images, rtol=0, atol=1e-5)
        torch.testing.assert_close(ours.text(ids), texts, rtol=0, atol=1e-5)
    assert ours.log_logit_scale.item() == pytest.approx(theirs.logit_scale.item())


def test_padding_after_eos_changes_nothing(tiny):
    clip = tiny.load()
    ids = torch.tensor([[1, 2, 3, clip.sizes.text.eos_token_id]])
    padded = torch.cat([ids, torch.zeros(1, 7, dtype=torch.long)], dim=1)
    with torch.no_grad():
        torch.testing.assert_close(clip.text(ids), clip.text(padded), rtol=0, atol=1e-6)


def test_openai_sizes_are_built_in():
    for sizes, name in [(VIT_B_32, 151_277_313), (VIT_B_16, 149_620_737), (VIT_L_14, 427_616_513)]:
        with torch.device("meta"):
            assert sum(p.numel() for p in CLIP(sizes).parameters()) == name


def test_the_meta_device_gives_the_same_parameters_without_values(tiny):
    with torch.device("meta"):
        empty = dict(CLIP(tiny.sizes).named_parameters())
    assert all(parameter.is_meta and parameter.requires_grad for parameter in empty.values())
    made = CLIP(tiny.sizes).named_parameters()
    assert {name: tuple(p.shape) for name, p in made} == {name: tuple(p.shape) for name, p in empty.items()}


def test_parameters_are_drawn_with_clips_standard_deviation():
    torch.manual_seed(0)
    table = free_parameter(100, 50, std=0.02)
    assert (table.mean().item(), table.std().item()) == pytest.approx((0, 0.02), abs=1e-3)
    torch.manual_seed(0)
    assert torch.equal(table, torch.randn(100, 50) * 0.02)
    assert free_parameter(std=0).item() == 0


def test_a_text_without_eos_is_refused(tiny):
    clip = tiny.load()
    with pytest.raises(ValueError, match=r"text 1 .*\[EOS\]"):
        clip.text(torch.tensor([[1, clip.sizes.text.eos_token_id], [1, 2]]))


def test_a_wrong_image_size_is_refused(tiny):
    with pytest.raises(ValueError, match="64 x 32"):
        tiny.load().vision(torch.zeros(1, 3, 64, 32))
