"""Small files in OpenAI's and the authors' formats with random weights, and naive code that computes their outputs."""

from __future__ import annotations

import gzip
import json

import torch
from torch import nn
from torch.nn import functional as F

MERGES = ["t h", "i n", "th e</w>", "a n</w>", "c u", "cu t</w>", "o n", "in g</w>", "on i", "o n</w>", "oni on</w>"]
VOCAB = 512 + len(MERGES) + 2
EOS = VOCAB - 1
FRAMES = 3
HYPERPARAM = {
    "vp_token_num": 8,
    "tp_prefix_token_num": 3,
    "tp_suffix_token_num": 5,
    "num_frames": FRAMES,
    "input_res": 16,
    "pooling_type": "avg",
    "topk": 10,
    "video_sample_type": "uniform",
    "seed": 42,
}
PREFIX, SUFFIX = 3, 5


def make_state(*, positions=77, vision_layers=3, text_layers=2, seed=0) -> dict[str, torch.Tensor]:
    """Tensors with OpenAI's names: vision 128 wide (2 heads), 2 x 2 patches of 8 pixels; text 64 wide (1 head)."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape, std=0.2):
        return torch.randn(*shape, generator=generator) * std

    def norm(name, width):
        return {f"{name}.weight": 1 + random(width), f"{name}.bias": random(width)}

    def blocks(prefix, layers, width):
        state = {}
        for i in range(layers):
            at = f"{prefix}.resblocks.{i}"
            state |= norm(f"{at}.ln_1", width) | norm(f"{at}.ln_2", width)
            shapes = {"attn.in_proj_": (3 * width, width), "attn.out_proj.": (width, width)}
            shapes |= {"mlp.c_fc.": (4 * width, width), "mlp.c_proj.": (width, 4 * width)}
            for name, (rows, columns) in shapes.items():
                state |= {f"{at}.{name}weight": random(rows, columns, std=0.1), f"{at}.{name}bias": random(rows)}
        return state

    return {
        "visual.class_embedding": random(128),
        "visual.conv1.weight": random(128, 3, 8, 8),
        "visual.positional_embedding": random(5, 128),
        "visual.proj": random(128, 32),
        **norm("visual.ln_pre", 128),
        **norm("visual.ln_post", 128),
        **blocks("visual.transformer", vision_layers, 128),
        "token_embedding.weight": random(VOCAB, 64),
        "positional_embedding": random(positions, 64),
        "text_projection": random(64, 32),
        **norm("ln_final", 64),
        **blocks("transformer", text_layers, 64),
        "logit_scale": torch.tensor(4.6052),
    }


class Holder(nn.Module):
    """A module whose state dict has the given names."""

    def __init__(self, state: dict[str, torch.Tensor]) -> None:
        super().__init__()
        children: dict[str, dict] = {}
        for name, tensor in state.items():
            first, _, rest = name.partition(".")
            if rest:
                children.setdefault(first, {})[rest] = tensor
            else:
                self.register_parameter(first, nn.Parameter(tensor.clone(), requires_grad=False))
        for name, inner in children.items():
            self.add_module(name, Holder(inner))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1


def make_release(folder, clip_state, *, backbone_inside=True, prefix="", **hyperparam):
    """Write the release's files and return the tensors that the model uses."""
    generator = torch.Generator().manual_seed(5)
    state = {
        "visual_prompt_learner.visual_prompts": torch.randn(3, 1, 8, 128, generator=generator),
        "text_prompt_learner.text_prompts": torch.randn(2, PREFIX + SUFFIX, 64, generator=generator),
    }
    if backbone_inside:
        visual = {n.removeprefix("visual."): t for n, t in clip_state.items() if n.startswith("visual.")}
        state |= {f"clip.{n}": t for n, t in clip_state.items()} | {f"image_encoder.{n}": t for n, t in visual.items()}
        other = make_state(seed=9)  # the release overwrites these weights
        torch.jit.save(torch.jit.script(Holder(other)), folder / "ViT-B-32.pt")
    else:
        torch.jit.save(torch.jit.script(Holder(clip_state)), folder / "ViT-B-32.pt")
    torch.save({"epoch": 4, "state_dict": {prefix + n: t for n, t in state.items()}}, folder / "VoP_msrvtt9k.pth")
    (folder / "configuration.json").write_text(json.dumps({"hyperparam": HYPERPARAM | hyperparam}))
    return clip_state | state


def make_release_se(folder, clip_state, *, file="VoPSE_msrvtt9k.pth", kind="Bias", prefix="", **hyperparam):
    """Write the files of the Bias, Partial or Proj release: a tuned CLIP, and a backbone with unused weights."""
    state = {f"{prefix}clip.{n}": t for n, t in clip_state.items()}
    torch.save({"epoch": 4, "state_dict": state}, folder / file)
    torch.jit.save(torch.jit.script(Holder(make_state(seed=9))), folder / "ViT-B-32.pt")
    (folder / f"{kind}_msrvtt9k_features.pkl").write_bytes(b"")
    kept = {name: value for name, value in HYPERPARAM.items() if not name.startswith(("tp_", "vp_"))}
    configuration = {"model": {"type": "vop-retrieval-model-se"}, "hyperparam": kept | hyperparam}
    (folder / "configuration.json").write_text(json.dumps(configuration))
    return clip_state


def write_vocabulary(path) -> None:
    """Write OpenAI's format: a header line, then merges by rank, some of them unused."""
    lines = ['"bpe_simple_vocab_16e6.txt#version: 0.2', *MERGES, "unused merge", "x y"]
    path.write_bytes(gzip.compress(("\n".join(lines) + "\n").encode()))


# The outputs of the files, one sequence at a time, from their tensors by name.


def block(state, prefix, x, *, heads, causal=False, gelu=False):
    """A transformer block: (n, d) to (n, d)."""

    def part(name):
        return state[f"{prefix}.{name}"]

    n, width = x.shape
    y = F.layer_norm(x, (width,), part("ln_1.weight"), part("ln_1.bias"))
    q, k, v = (y @ part("attn.in_proj_weight").T + part("attn.in_proj_bias")).chunk(3, dim=1)
    outs, size = [], width // heads
    for h in range(heads):
        mine = slice(h * size, (h + 1) * size)
        scores = q[:, mine] @ k[:, mine].T / size**0.5
        if causal:
            scores = scores + torch.full((n, n), float("-inf")).triu(1)
        outs.append(scores.softmax(dim=1) @ v[:, mine])
    x = x + torch.cat(outs, dim=1) @ part("attn.out_proj.weight").T + part("attn.out_proj.bias")
    y = F.layer_norm(x, (width,), part("ln_2.weight"), part("ln_2.bias"))
    y = y @ part("mlp.c_fc.weight").T + part("mlp.c_fc.bias")
    y = y * (1 + torch.erf(y / 2**0.5)) / 2 if gelu else y * torch.sigmoid(1.702 * y)
    return x + y @ part("mlp.c_proj.weight").T + part("mlp.c_proj.bias")


def image_tokens(state, image):
    """(3, h, w) to (1 + patches, d), before ln_pre."""
    weight = state["visual.conv1.weight"]
    patches = F.conv2d(image[None], weight, stride=weight.shape[-1])[0].flatten(1).T
    return torch.cat([state["visual.class_embedding"][None], patches]) + state["visual.positional_embedding"]


def norm(state, name, x):
    return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"])


def layers(state, prefix):
    return len({name.split("resblocks.")[1].split(".")[0] for name in state if name.startswith(f"{prefix}.resblocks")})


def encode_image(state, image, *, heads=2, gelu=False):
    x = norm(state, "visual.ln_pre", image_tokens(state, image))
    for i in range(layers(state, "visual.transformer")):
        x = block(state, f"visual.transformer.resblocks.{i}", x, heads=heads, gelu=gelu)
    return norm(state, "visual.ln_post", x[0]) @ state["visual.proj"]


def encode_ids(state, ids, *, heads=1, gelu=False):
    """OpenAI's text encoder: (n,) ids, read at the highest id."""
    x = state["token_embedding.weight"][ids] + state["positional_embedding"][: len(ids)]
    for i in range(layers(state, "transformer")):
        x = block(state, f"transformer.resblocks.{i}", x, heads=heads, causal=True, gelu=gelu)
    return norm(state, "ln_final", x[int(ids.argmax())]) @ state["text_projection"]
