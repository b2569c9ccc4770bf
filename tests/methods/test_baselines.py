"""The baselines against `transformers`' CLIP, with adapters and LoRA written out here."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F
from transformers import CLIPModel

from vop.backbones.clip.weights import from_transformers
from vop.models import pretrained

FRAMES = 3


def build(tiny, name, **settings):
    torch.manual_seed(2)
    built = pretrained.create(name, tiny, device="cpu", num_frames=FRAMES, **settings)
    for key, parameter in built.trainable().items():
        if not key.startswith("clip.") or "lora" in key:  # far from the initial values, so that each parameter matters
            parameter.data.add_(torch.randn_like(parameter) * 0.2)
    return built


def data(tiny):
    generator = torch.Generator().manual_seed(7)
    eos = tiny.sizes.text.eos_token_id
    ids = torch.randint(0, eos - 1, (3, 8), generator=generator)
    ids[:, -1] = eos
    return ids, torch.randn(3, FRAMES, 3, 32, 32, generator=generator)


def reference(tiny) -> CLIPModel:
    return CLIPModel.from_pretrained(tiny.folder, attn_implementation="eager").eval()


def embed(clip: CLIPModel, ids, pixels):
    """Embeddings of texts and videos, of unit length."""
    texts = clip.text_projection(clip.text_model(ids).pooler_output)
    frames = clip.visual_projection(clip.vision_model(pixels.flatten(0, 1)).pooler_output).unflatten(
        0, pixels.shape[:2]
    )
    return F.normalize(texts, dim=-1), F.normalize(F.normalize(frames, dim=-1).mean(dim=1), dim=-1)


def loss(texts, videos, scale):
    return F.cross_entropy(scale * texts @ videos.T, torch.arange(len(texts)))


@pytest.mark.parametrize("name", ["full", "bias", "proj", "partial"])
def test_gradients_equal_those_of_transformers(tiny, name):
    built, clip = build(tiny, name, **({"attention_biases": True} if name == "bias" else {})), reference(tiny)
    ids, pixels = data(tiny)
    loss(built.embed_tokens(ids), built.embed_frames(pixels), built._scale()).backward()
    loss(*embed(clip, ids, pixels), clip.logit_scale.exp()).backward()
    zero = {key: torch.zeros_like(p) for key, p in clip.named_parameters()}
    gradients = zero | {key: p.grad for key, p in clip.named_parameters() if p.grad is not None}
    expected = from_transformers(gradients, source="gradients")
    checked = built.trainable()
    assert checked
    for key, parameter in checked.items():
        torch.testing.assert_close(
            parameter.grad,
            expected[key.removeprefix("clip.")],
            rtol=1e-3,
            atol=1e-5,
            msg=lambda m, key=key: f"{key}: {m}",
        )


def bottleneck(built, tower, number, h):
    down, up = (built.method.get_submodule(f"{tower}.{number}.{part}") for part in ("down", "up"))
    return torch.clamp(h @ down.weight.T + down.bias, min=0) @ up.weight.T + up.bias


@pytest.mark.parametrize("name", ["adapter-attn", "adapter-ffn"])
def test_adapters_are_parallel_to_their_modules(tiny, name):
    """Hooks on `transformers`' modules add the bottleneck of a module's input to its output."""
    built, clip = build(tiny, name, hidden=5), reference(tiny)
    for tower, layers in (("text", clip.text_model.encoder.layers), ("vision", clip.vision_model.encoder.layers)):
        for number, layer in enumerate(layers):

            def add(module, args, kwargs, output, tower=tower, number=number):
                h = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
                extra = bottleneck(built, tower, number, h)
                return (output[0] + extra, *output[1:]) if isinstance(output, tuple) else output + extra

            part = layer.self_attn if name == "adapter-attn" else layer.mlp
            part.register_forward_hook(add, with_kwargs=True)
    ids, pixels = data(tiny)
    with torch.no_grad():
        ours = built.embed_tokens(ids), built.embed_frames(pixels)
        for one, other in zip(ours, embed(clip, ids, pixels), strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-5)
    plain = embed(reference(tiny), ids, pixels)
    assert not torch.allclose(ours[1], plain[1], atol=1e-3)


def test_lora_adds_a_low_rank_product(tiny):
    built, clip = build(tiny, "lora", rank=2, alpha=6), reference(tiny)
    tensors = built.trainable()
    for tower, layers in (("text", clip.text_model.encoder.layers), ("vision", clip.vision_model.encoder.layers)):
        for number, layer in enumerate(layers):
            prefix = f"clip.{tower}.layers.{number}.attention"
            b, a = (tensors[f"{prefix}.in_proj.lora_{part}.default.weight"] for part in "BA")
            update = (6 / 2 * b @ a).chunk(3)
            parts = (layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj)
            for part, own in zip(parts, update, strict=True):
                part.weight.data += own.detach()
            b, a = (tensors[f"{prefix}.out_proj.lora_{part}.default.weight"] for part in "BA")
            layer.self_attn.out_proj.weight.data += (6 / 2 * b @ a).detach()
    ids, pixels = data(tiny)
    with torch.no_grad():
        ours = built.embed_tokens(ids), built.embed_frames(pixels)
        for one, other in zip(ours, embed(clip, ids, pixels), strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-5)
