"""The prompts of a tower without [CLS] and [BOS], written out on the modules of `transformers`' SigLIP.

The summary of a frame, for the CMM of VoP^C and for the upper layers of VoP^F, is what the tower's own read-out makes
of the frame's tokens as they enter the layer: attention pooling of the normalised tokens.
"""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import normalize
from transformers import SiglipModel

from tiny_backbones import make_siglip_folder
from vop.models.pretrained import create

FRAMES = 4
SETTINGS = {"text_prompts": 3, "visual_prompts": 5, "num_frames": FRAMES}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_siglip_folder(tmp_path_factory.mktemp("siglip"))


@pytest.fixture(scope="module")
def theirs(folder):
    return SiglipModel.from_pretrained(folder).eval()


def made(folder, method, **settings):
    """A model whose method has large random parameters."""
    model = create(method, str(folder), **SETTINGS | settings)
    generator = torch.Generator().manual_seed(3)
    for parameter in model.method.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
    return model


def made_pixels():
    return torch.randn(2, FRAMES, 3, 32, 32, generator=torch.Generator().manual_seed(4))


def summary(vision, tokens):
    return vision.head(vision.post_layernorm(tokens))


def through(layer, tokens, prompts):
    """Pass (b, n, d) through a layer with prompts (b, P, d) in front, and drop their outputs."""
    out = layer(torch.cat([prompts, tokens], dim=1), None)
    return out[:, prompts.shape[1] :]


def shared(prompts, number):
    return prompts.tokens[prompts.row[number]]


def frames_of_vop(vision, method, video):
    x = vision.embeddings(video)  # (f, n, d)
    for number, layer in enumerate(vision.encoder.layers, start=1):
        x = through(layer, x, shared(method.shared_prompts, number).expand(len(x), -1, -1))
    return summary(vision, x)


def frames_of_vop_c(vision, method, video):
    x = vision.embeddings(video)
    for number, layer in enumerate(vision.encoder.layers, start=1):
        summaries = torch.stack([summary(vision, frame[None])[0] for frame in x])  # (f, d)
        context, _ = method.context.cmm.lstm(summaries[None])
        specific = method.context.fc(context[0]).view(len(x), -1, x.shape[-1])
        prompts = shared(method.shared_prompts, number).expand(len(x), -1, -1)
        x = through(layer, x, torch.cat([prompts, specific], dim=1))
    return summary(vision, x)


def frames_of_vop_f(vision, method, video):
    x = vision.embeddings(video)
    f, n, d = x.shape
    layers = vision.encoder.layers
    for number, layer in enumerate(layers[: method.split_layer], start=1):
        x = through(layer, x, shared(method.shared_prompts, number).expand(f, -1, -1))
    c = summary(vision, x) + method.frame_positions
    x = x + method.frame_positions[:, None]
    for number, layer in enumerate(layers[method.split_layer :], start=method.split_layer + 1):
        prompts = shared(method.video_prompts, number)
        out = layer(torch.cat([c, prompts, x.reshape(f * n, d)])[None], None)[0]
        c, x = out[:f], out[f + len(prompts) :].view(f, n, d)
    return summary(vision, torch.cat([c[:, None], x], dim=1))


FRAMES_OF = {"vop": frames_of_vop, "vop-c": frames_of_vop_c, "vop-f": frames_of_vop_f}


@pytest.mark.parametrize("method", FRAMES_OF)
def test_videos_equal_the_method_written_out(folder, theirs, method):
    model, pixels = made(folder, method, **{"specific_prompts": 2} if method == "vop-c" else {}), made_pixels()
    with torch.no_grad():
        expected = torch.stack([FRAMES_OF[method](theirs.vision_model, model.method, video) for video in pixels])
        torch.testing.assert_close(model.frame_features(pixels), expected, rtol=0, atol=1e-5)
        videos = normalize(normalize(expected, dim=-1).mean(dim=1), dim=-1)
        torch.testing.assert_close(model.embed_frames(pixels), videos, rtol=0, atol=1e-5)


def test_gradients_equal_the_method_written_out(folder, theirs):
    """The gradients of the prompts, through pooling, CMM and layers."""
    model, pixels = made(folder, "vop-c", specific_prompts=2), made_pixels()
    trained = list(model.method.shared_prompts.parameters()) + list(model.method.context.parameters())
    ours = torch.autograd.grad(model.frame_features(pixels).square().sum(), trained)
    frames = [frames_of_vop_c(theirs.vision_model, model.method, video) for video in pixels]
    expected = torch.autograd.grad(torch.stack(frames).square().sum(), trained)
    for one, other in zip(ours, expected, strict=True):
        torch.testing.assert_close(one / other.abs().max(), other / other.abs().max(), rtol=0, atol=1e-4)


def test_texts_equal_the_method_written_out(folder, theirs):
    """Prompts come first and take positions; the text is read at its last position."""
    model, text = made(folder, "vop"), theirs.text_model
    ids = model.tokenize(["a dog runs", "собака"])
    assert ids.shape == (2, 24 - 3)
    prompts = model.method.text_prompts
    with torch.no_grad():
        x = text.embeddings.token_embedding(ids)
        x = torch.cat([shared(prompts, 1).expand(2, -1, -1), x], dim=1) + text.embeddings.position_embedding.weight
        x = text.encoder.layers[0](x, None)[:, 3:]
        for number, layer in enumerate(text.encoder.layers[1:], start=2):
            x = through(layer, x, shared(prompts, number).expand(2, -1, -1))
        expected = text.head(text.final_layer_norm(x[:, -1]))
        torch.testing.assert_close(model.text_features(ids), expected, rtol=0, atol=1e-5)


def test_the_summary_adds_no_parameters(folder, tiny):
    """VoP^C has as many parameters as on a tower of the same size with a [CLS]."""
    width = 48
    assert tiny.sizes.vision.width == width
    counts = [
        sum(p.numel() for name, p in create("vop-c", backbone, **SETTINGS).trainable().items() if "text" not in name)
        for backbone in (str(folder), tiny)
    ]
    assert counts[0] == counts[1]


def test_replacing_the_class_token_is_refused(folder):
    with pytest.raises(ValueError, match=r"cmm_role.*\[CLS\]"):
        create("vop-c", str(folder), cmm_role="replace")
