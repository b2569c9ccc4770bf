"""DGL written out on the towers of `transformers`: one video or caption at a time, all tokens of a video in one
sequence with an explicit mask. A CLIP has [CLS], [BOS] and causal texts, a SigLIP has none of them.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers import CLIPModel, SiglipModel

from tiny_backbones import make_siglip_folder
from vop import methods
from vop.backbones.sizes import VIT_B_32
from vop.models.params import count_parameters
from vop.models.pretrained import create

FRAMES, GLOBAL, LOCAL = 3, 4, 4


@pytest.fixture(scope="module")
def folders(tiny_folder, tmp_path_factory):
    return {"clip": tiny_folder, "siglip": make_siglip_folder(tmp_path_factory.mktemp("siglip"))}


class Reference:
    def __init__(self, folder, family, tensors, sizes):
        kind = CLIPModel if family == "clip" else SiglipModel
        self.model = kind.from_pretrained(folder, attn_implementation="eager").eval().requires_grad_(False)
        self.is_clip, self.tensors, self.sizes = family == "clip", tensors, sizes

    def linear(self, name, x):
        return x @ self.tensors[f"{name}.weight"].T + self.tensors[f"{name}.bias"]

    def norm(self, name, x):
        return F.layer_norm(x, x.shape[-1:], self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"])

    def block(self, x):
        """A pre-norm layer over (n, d), one head at a time."""
        heads = self.sizes.vision.heads
        h = self.norm("block.attention_norm", x)
        q, k, v = (part.chunk(heads, dim=1) for part in self.linear("block.attention.in_proj", h).chunk(3, dim=1))
        each = [(q[i] @ k[i].T / q[i].shape[1] ** 0.5).softmax(dim=1) @ v[i] for i in range(heads)]
        x = x + self.linear("block.attention.out_proj", torch.cat(each, dim=1))
        return x + self.linear("block.mlp.fc2", self.gelu(self.linear("block.mlp.fc1", self.norm("block.mlp_norm", x))))

    def gelu(self, x):
        return x * torch.sigmoid(1.702 * x)

    def prompts(self, number):
        """Prompts of layer `number`: before and after the words, and of each frame."""
        if "local_prompts" in self.tensors:
            local = self.tensors["local_prompts"][number]
            return self.linear("before", local), self.linear("after", local), [local] * FRAMES
        text, frames = self.tensors["text_tokens"][number], self.tensors["frame_tokens"][number]
        out = self.block(torch.cat([text, *frames]))
        words = self.linear("to_text", self.gelu(self.linear("hidden", out[: len(text)])))
        middle = len(text) // 2
        return words[:middle], words[middle:], out[len(text) :].split(LOCAL)

    def text(self, ids):
        tower, marks = self.model.text_model, 1 if self.is_clip else 0
        x = tower.embeddings(ids[None])[0]
        for number, layer in enumerate(tower.encoder.layers):
            before, after, _ = self.prompts(number)
            x = torch.cat([x[:marks], before, x[marks:], after])
            mask = torch.full((len(x), len(x)), float("-inf")).triu(1) if self.is_clip else torch.zeros(len(x), len(x))
            x = layer(x[None], mask[None, None])[0]
            x = torch.cat([x[:marks], x[marks + len(before) : len(x) - len(after)]])
        last = tower.final_layer_norm(x[-1])
        return self.model.text_projection(last) if self.is_clip else tower.head(last)

    def video(self, pixels):
        tower, cls = self.model.vision_model, 1 if self.is_clip else 0
        frames = list(tower.embeddings(pixels))
        if self.is_clip:
            frames = [tower.pre_layrnorm(frame) for frame in frames]
        shared = self.tensors["global_prompts"]
        for number, layer in enumerate(tower.encoder.layers):
            own = self.prompts(number)[2]
            parts = [torch.cat([x[:cls], own[j], x[cls:]]) for j, x in enumerate(frames)]
            owner = torch.tensor([-1] * len(shared) + [j for j, part in enumerate(parts) for _ in part])
            sees = (owner[:, None] == owner) | (owner == -1) | (owner[:, None] == -1)
            mask = torch.zeros(len(owner), len(owner)).masked_fill(~sees, float("-inf"))
            out = layer(torch.cat([shared, *parts])[None], mask[None, None])[0]
            shared, *parts = out.split([len(shared), *map(len, parts)])
            frames = [torch.cat([x[:cls], x[cls + LOCAL :]]) for x in parts]
        if self.is_clip:
            return self.model.visual_projection(tower.post_layernorm(shared[0]))
        return tower.head(tower.post_layernorm(shared)[None])[0]


@pytest.mark.parametrize("family", ["clip", "siglip"])
@pytest.mark.parametrize("name", ["dgl-linear", "dgl-transformer"])
def test_embeddings_and_gradients(folders, family, name):
    torch.manual_seed(3)
    model = create(name, str(folders[family]), device="cpu", num_frames=FRAMES)
    for parameter in model.method.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.2)
    leaves = {key: p.detach().clone().requires_grad_() for key, p in model.method.named_parameters()}
    reference = Reference(folders[family], family, leaves, model.backbone.sizes)
    pixels = torch.randn(2, FRAMES, 3, 32, 32)
    captions = [model.tokenize([text])[0] for text in ("a dog", "a man cuts an onion")]
    ids = nn.utils.rnn.pad_sequence(captions, batch_first=True, padding_value=model.backbone.sizes.text.eos_token_id)
    found = model.text_features(ids), model.frame_features(pixels)
    expected = (
        torch.stack([reference.text(caption) for caption in captions]),
        torch.stack([reference.video(video) for video in pixels])[:, None],
    )
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-5)
        assert ours.std(dim=0).max() > 1e-3  # the items differ
    sum(part.square().sum() for part in found).backward()
    sum(part.square().sum() for part in expected).backward()
    for key, parameter in model.method.named_parameters():
        if family == "clip" and key.startswith("after."):  # behind [EOS]
            assert not parameter.grad.any()
            assert not leaves[key].grad.any()
            continue
        size = leaves[key].grad.abs().max()
        assert size > 1e-3, key
        torch.testing.assert_close(parameter.grad / size, leaves[key].grad / size, rtol=0, atol=1e-4)


def test_counts_are_the_published_ones():
    """0.83 M and 9.6 M on ViT-B/32; the parts in the order of the paper."""
    counts = count_parameters(VIT_B_32, only=["dgl-linear", "dgl-transformer"])
    shared = 4 * 768  # global prompts
    linear = 12 * 4 * 768 + 2 * (768 * 512 + 512)
    tokens = 12 * (8 + 12 * 4) * 768
    block = 4 * (768 * 768 + 768) + 2 * 2 * 768 + 2 * 4 * 768 * 768 + 5 * 768
    mlp = 768 * 1536 + 1536 + 1536 * 512 + 512
    assert counts["dgl-linear"].true_count == counts["dgl-linear"].paper_count == shared + linear == 827_392
    assert counts["dgl-transformer"].true_count == shared + tokens + block + mlp == 9_575_168


def test_one_global_prompt_cannot_be_averaged_without_the_first():
    from dataclasses import replace

    sizes = replace(VIT_B_32, vision=replace(VIT_B_32.vision, readout="mean"))
    with pytest.raises(ValueError, match="global_prompts is 1; .* 2 or more"):
        methods.create("dgl-linear", sizes, global_prompts=1)
