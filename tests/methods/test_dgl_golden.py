"""DGL against numbers that its released code computed (make_dgl_golden.py): embeddings, scores, loss and gradients."""

from __future__ import annotations

import json

import pytest
import torch
from make_dgl_golden import FILE, FRAMES, LAYERS, WIDTHS, WORDS, draw_batch, draw_state, draw_tensor
from torch.nn import functional as F

from vop import methods
from vop.backbones import Sizes, TextSizes, VisionSizes
from vop.backbones.open_clip.family import OpenClipFamily
from vop.backbones.towers import CLIP

GOLDEN = json.loads(FILE.read_text())
TOWER = {"layers": LAYERS, "activation": "quick_gelu"}
SIZES = Sizes(
    vision=VisionSizes(width=128, heads=2, mlp_width=512, image_size=32, patch_size=16, **TOWER),
    text=TextSizes(
        width=64, heads=1, mlp_width=256, vocab_size=100, positions=WORDS, eos_token_id=99, pad_token_id=None, **TOWER
    ),
    embed_dim=32,
)
BLOCK = {"attention_norm": "ln_1", "mlp_norm": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj"}
OF_BLOCK = {f"{ours}.{kind}": f"{theirs}.{kind}" for ours, theirs in BLOCK.items() for kind in ("weight", "bias")} | {
    f"attention.{ours}": f"attn.{theirs}"
    for ours, theirs in {
        **{f"in_proj.{kind}": f"in_proj_{kind}" for kind in ("weight", "bias")},
        **{f"out_proj.{kind}": f"out_proj.{kind}" for kind in ("weight", "bias")},
    }.items()
}
SOURCES = {  # our tensors: the release's
    "linear": {
        "global_prompts": "visual.prompt_embeddings",
        "local_prompts": "visual_prompt_embedding",
        **{f"before.{kind}": f"prefix_text_prompt_proj_layer.{kind}" for kind in ("weight", "bias")},
        **{f"after.{kind}": f"postfix_text_prompt_proj_layer.{kind}" for kind in ("weight", "bias")},
    },
    "transformer": {
        "global_prompts": "visual.prompt_embeddings",
        "text_tokens": "unified_prompt_embedding.weight",
        "frame_tokens": "unified_prompt_embedding.weight",
        **{f"block.{ours}": f"PromptTransformer.resblocks.0.{theirs}" for ours, theirs in OF_BLOCK.items()},
        **{f"hidden.{kind}": f"unified_prompt_mlp.c_fc.{kind}" for kind in ("weight", "bias")},
        **{f"to_text.{kind}": f"unified_prompt_mlp.c_proj.{kind}" for kind in ("weight", "bias")},
    },
}


def convert(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """A tensor of the release in the shape of ours, called `name`."""
    if name == "global_prompts":
        return tensor[0]
    if name not in ("local_prompts", "text_tokens", "frame_tokens"):
        return tensor
    by_layer = tensor.view(-1, LAYERS, WIDTHS["vision"]).transpose(0, 1)
    if name == "text_tokens":
        return by_layer[:, :8]
    return by_layer if name == "local_prompts" else by_layer[:, 8:].unflatten(1, (FRAMES, 4))


def build(space: str):
    state, sources = draw_state(GOLDEN[space]["shapes"]), SOURCES[space]
    clip = CLIP(SIZES).eval().requires_grad_(False)
    of_clip = {name: tensor for name, tensor in state.items() if name not in sources.values()}
    clip.load_state_dict(OpenClipFamily().rename(of_clip, SIZES, source="release"))
    method = methods.create(f"dgl-{space}", SIZES, num_frames=FRAMES)
    method.load_state_dict({name: convert(name, state[theirs]) for name, theirs in sources.items()})
    return clip, method


@pytest.mark.parametrize("space", GOLDEN)
def test_the_released_code(space):
    golden, (clip, method) = GOLDEN[space], build(space)
    ids, pixels = draw_batch()
    texts, videos = method.embed_tokens(clip, ids), method.embed_frames(clip, pixels)
    torch.testing.assert_close(texts, torch.tensor(golden["texts"]), rtol=0, atol=1e-5)
    torch.testing.assert_close(videos, torch.tensor(golden["videos"])[:, None], rtol=0, atol=1e-5)
    scores = clip.log_logit_scale.exp() * F.normalize(texts, dim=-1) @ method.pool(videos).T
    torch.testing.assert_close(scores, torch.tensor(golden["scores"]), rtol=0, atol=1e-5)
    loss = (F.cross_entropy(scores, torch.arange(3)) + F.cross_entropy(scores.T, torch.arange(3))) / 2
    assert loss.item() == pytest.approx(golden["loss"], abs=1e-5)
    loss.backward()
    gradients = {name: parameter.grad for name, parameter in method.named_parameters()}
    for theirs, expected in golden["gradients"].items():
        ours = [name for name, source in SOURCES[space].items() if source == theirs]
        shape = golden["shapes"][theirs]
        probes = [gradients, *({n: convert(n, draw_tensor(f"{theirs} {i}", shape)) for n in ours} for i in range(2))]
        found = [sum(float((gradients[name] * other[name]).sum()) for name in ours) for other in probes]
        assert found == pytest.approx(expected, abs=1e-4), theirs
