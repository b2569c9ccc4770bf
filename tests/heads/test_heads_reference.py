"""Every head against its published equations, one pair of a text and a video at a time, with nothing of ours but the
values of the trained tensors."""

from __future__ import annotations

import pytest
import torch
from head_data import VARIANTS, build, embeddings, moved
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F


def cosine(a, b):
    return (a * b).sum() / (a.norm() * b.norm())


def mean_pooled(frames):
    return torch.stack([frame / frame.norm() for frame in frames]).mean(dim=0)


def norm(p, name, x):
    x = x - x.mean(dim=-1, keepdim=True)
    return x / (x.pow(2).mean(dim=-1, keepdim=True) + 1e-5).sqrt() * p[f"{name}.weight"] + p[f"{name}.bias"]


def quick_gelu(x):
    return x * torch.sigmoid(1.702 * x)


def affine(p, name, x):
    return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]


def attention(query, context, *, heads, **tensors):
    """PyTorch's attention of (q, e) to (n, e) with the given tensors."""
    width = query.shape[-1]
    module = nn.MultiheadAttention(width, heads)
    tensors = {name.replace("out_proj_", "out_proj."): tensor for name, tensor in tensors.items()}
    return functional_call(module, tensors, (query, context, context))[0]


def transformer(p, x, *, heads=2):
    """Pass tokens (n, e) through all layers of a head."""
    for i in range(sum(name.endswith("attention_norm.weight") for name in p)):
        layer = f"layers.{i}"
        normed = norm(p, f"{layer}.attention_norm", x)
        x = x + attention(
            normed,
            normed,
            heads=heads,
            in_proj_weight=p[f"{layer}.attention.in_proj.weight"],
            in_proj_bias=p[f"{layer}.attention.in_proj.bias"],
            out_proj_weight=p[f"{layer}.attention.out_proj.weight"],
            out_proj_bias=p[f"{layer}.attention.out_proj.bias"],
        )
        hidden = quick_gelu(affine(p, f"{layer}.mlp.fc1", norm(p, f"{layer}.mlp_norm", x)))
        x = x + affine(p, f"{layer}.mlp.fc2", hidden)
    return x


def mean_p(p, text, frames, settings):
    return cosine(text, mean_pooled(frames))


def seq_lstm(p, text, frames, settings):
    """Gates in PyTorch's order: input, forget, cell, output."""
    h = c = torch.zeros_like(frames[0])
    outputs = []
    for x in frames:
        gates = p["lstm.weight_ih_l0"] @ x + p["lstm.bias_ih_l0"] + p["lstm.weight_hh_l0"] @ h + p["lstm.bias_hh_l0"]
        i, f, g, o = gates.chunk(4)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        outputs.append(x + h)
    return cosine(text, mean_pooled(outputs))


def seq_transf(p, text, frames, settings):
    return cosine(text, mean_pooled(transformer(p, frames + p["positions"]) + frames))


def tight_transf(p, text, frames, settings):
    tokens = torch.stack([text, *frames]) + torch.cat([p["text_position"], p["positions"]])
    types = torch.stack([p["types"][0]] + [p["types"][1]] * len(frames))
    first = norm(p, "pooler_norm", transformer(p, tokens + types))[0]
    return p["similarity.weight"][0] @ quick_gelu(affine(p, "pooler", first))


def x_pool(p, text, frames, settings):
    """The released code has a bias of the keys. It does not change the result."""
    key_bias = torch.linspace(-2, 2, len(text))
    attended = attention(
        norm(p, "input_norm", text[None]),
        norm(p, "input_norm", frames),
        heads=settings.get("heads", 1),
        in_proj_weight=torch.cat([p["query.weight"], p["key.weight"], p["value.weight"]]),
        in_proj_bias=torch.cat([p["query.bias"], key_bias, p["value.bias"]]),
        out_proj_weight=p["out.weight"],
        out_proj_bias=p["out.bias"],
    )[0]
    pooled = norm(p, "pooled_norm", attended)
    return cosine(text, norm(p, "output_norm", pooled + affine(p, "linear", pooled)))


REFERENCES = {
    "meanP": mean_p,
    "seqLSTM": seq_lstm,
    "seqTransf": seq_transf,
    "tightTransf": tight_transf,
    "x-pool": x_pool,
}


@pytest.mark.parametrize(("name", "settings"), VARIANTS)
def test_scores_and_gradients_equal_the_equations(name, settings):
    head = moved(build(name, **settings))
    ours = [x.requires_grad_() for x in embeddings()]
    theirs = [x.detach().clone().requires_grad_() for x in ours]
    leaves = {key: p.detach().clone().requires_grad_() for key, p in head.named_parameters()}
    scores = head.score(*ours)
    expected = torch.stack(
        [torch.stack([REFERENCES[name](leaves, text, video, settings) for video in theirs[1]]) for text in theirs[0]]
    )
    torch.testing.assert_close(scores, expected, rtol=1e-5, atol=1e-5)
    assert float(expected.detach().std()) > 0.01, "the scores hardly differ here"
    torch.logsumexp(10 * scores, dim=1).sum().backward()
    torch.logsumexp(10 * expected, dim=1).sum().backward()
    both = {key: (p, leaves[key]) for key, p in head.named_parameters()}
    both |= {"texts": (ours[0], theirs[0]), "frames": (ours[1], theirs[1])}
    for key, (one, other) in both.items():
        largest = float(other.grad.abs().max())
        assert largest > 1e-3, f"{key} hardly matters here"
        torch.testing.assert_close(
            one.grad, other.grad, rtol=1e-4, atol=1e-5 * max(1.0, largest), msg=lambda m, key=key: f"{key}: {m}"
        )


@pytest.mark.parametrize("name", ["meanP", "seqLSTM", "seqTransf"])
def test_scores_are_cosines_with_pooled_videos(name):
    head = moved(build(name))
    texts, frames = embeddings()
    pooled = head.pool(frames)
    torch.testing.assert_close(pooled.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(F.normalize(texts, dim=1) @ pooled.T, head.score(texts, frames))
