"""Every method against the paper's section 3 written naively over `transformers`' CLIP: one frame or caption at a time,
explicit masks, nothing of ours but the values of the trained tensors.
"""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F
from transformers import CLIPModel

from vop.models import pretrained

FRAMES, PROMPTS = 4, 8
CASES = [
    ("zero-shot", {}),
    ("vop", {}),
    ("vop", {"text_layers": [2], "visual_layers": [2, 3], "text_prompts": 3, "visual_prompts": 5}),
    ("vop-p", {}),
    ("vop-p", {"specific_prompts": 8}),
    ("vop-c", {}),
    ("vop-c", {"cmm": "lstm", "specific_prompts": 2}),
    ("vop-c", {"cmm_role": "replace"}),
    ("vop-f", {}),
    ("vop-f+p", {}),
    ("vop-f+p", {"text_layers": [2]}),
    ("vop-f+c", {}),
    ("vop-f+c", {"split_layer": 1}),
]


class Reference:
    """`tensors` holds the trained tensors by name. Their names determine the method."""

    def __init__(self, folder, tensors, settings):
        self.clip = CLIPModel.from_pretrained(folder, attn_implementation="eager").eval().requires_grad_(False)
        self.tensors = {name.removeprefix("method."): t for name, t in tensors.items()}
        self.layers = {tower: settings.get(f"{tower}_layers") for tower in ("text", "visual")}
        depth = len(self.clip.vision_model.encoder.layers)
        self.split = settings.get("split_layer") if "frame_positions" in self.tensors else depth
        self.replace = settings.get("cmm_role") == "replace"

    def row(self, name, number, *, tower):
        """The prompts of layer `number`: (P, d), or more axes in front; None if it has none."""
        layers = self.layers[tower] or list(range(1, 1 + 9))
        if name not in self.tensors or number not in layers:
            return None
        return self.tensors[name][layers.index(number)]

    def text(self, ids):
        """Embed a caption's ids, whose last is [EOS]."""
        tower = self.clip.text_model
        x = tower.embeddings.token_embedding(ids)
        for number, layer in enumerate(tower.encoder.layers, start=1):
            prompts = self.row("text_prompts.tokens", number, tower="text")
            prompts = x[:0] if prompts is None else prompts
            x = torch.cat([x[:1], prompts, x[1:]])
            if number == 1:
                x = x + tower.embeddings.position_embedding.weight[: len(x)]
            mask = torch.full((len(x), len(x)), float("-inf")).triu(1)
            x = layer(x[None], mask[None, None])[0]
            x = torch.cat([x[:1], x[1 + len(prompts) :]])
        return F.normalize(self.clip.text_projection(tower.final_layer_norm(x[-1])), dim=0)

    def layer(self, number, x):
        """Pass (n, d) through layer `number` of the vision tower with full attention."""
        tower = self.clip.vision_model
        if number == 1:
            x = tower.pre_layrnorm(x)
        return tower.encoder.layers[number - 1](x[None], torch.zeros(1, 1, len(x), len(x)))[0]

    def lstm(self, sequence, suffix=""):
        """The equations of an LSTM, (f, d) to (f, d); gates in PyTorch's order: input, forget, cell, output."""
        w_x, w_h, b_x, b_h = (
            self.tensors[f"context.cmm.lstm.{kind}_l0{suffix}"]
            for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        h = c = torch.zeros_like(sequence[0])
        outputs = []
        for x in sequence:
            i, f, g, o = (w_x @ x + b_x + w_h @ h + b_h).chunk(4)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            outputs.append(h)
        return torch.stack(outputs)

    def contexts(self, cls):
        """From the [CLS] of all frames (f, d) to each frame's generated tokens (f, S, d)."""
        out = self.lstm(cls)
        if "context.cmm.lstm.weight_ih_l0_reverse" in self.tensors:
            out = torch.cat([out, self.lstm(cls.flip(0), "_reverse").flip(0)], dim=1)
        weight, bias = self.tensors["context.fc.weight"], self.tensors["context.fc.bias"]
        return torch.stack([(weight @ row + bias).reshape(-1, cls.shape[1]) for row in out])

    def frame_layer(self, number, frames):
        """Process each frame alone: from a list of (1 + n, d) to the same shapes."""
        shared = self.row("shared_prompts.tokens", number, tower="visual")
        by_position = self.row("position_prompts.tokens", number, tower="visual")
        if "context.fc.weight" in self.tensors:
            generated = self.contexts(torch.stack([frame[0] for frame in frames]))
            if self.replace:
                frames = [torch.cat([one, frame[1:]]) for one, frame in zip(generated, frames, strict=True)]
        outputs = []
        for j, frame in enumerate(frames):
            prompts = [] if shared is None else [shared]
            if by_position is not None:
                prompts.append(by_position[j])
            if "context.fc.weight" in self.tensors and not self.replace:
                prompts.append(generated[j])
            out = self.layer(number, torch.cat([frame[:1], *prompts, frame[1:]]))
            outputs.append(torch.cat([out[:1], out[len(out) - len(frame) + 1 :]]))
        return outputs

    def joint_layer(self, number, frames):
        """Process all frames together: [C_1 .. C_f, P, E_1, ..., E_f]."""
        prompts = self.tensors["video_prompts.tokens"][number - self.split - 1]
        patches = len(frames[0]) - 1
        x = torch.cat([*(frame[:1] for frame in frames), prompts, *(frame[1:] for frame in frames)])
        x = self.layer(number, x)
        cls, rest = x[: len(frames)], x[len(frames) + len(prompts) :]
        return [torch.cat([cls[j : j + 1], rest[j * patches : (j + 1) * patches]]) for j in range(len(frames))]

    def video(self, pixels):
        """(f, 3, h, w) to (e,)."""
        tower = self.clip.vision_model
        frames = [tower.embeddings(frame[None])[0] for frame in pixels]
        for number in range(1, 1 + len(tower.encoder.layers)):
            if number <= self.split:
                frames = self.frame_layer(number, frames)
                continue
            if number == self.split + 1:
                frames = [frame + self.tensors["frame_positions"][j] for j, frame in enumerate(frames)]
            frames = self.joint_layer(number, frames)
        embeddings = [self.clip.visual_projection(tower.post_layernorm(frame[0])) for frame in frames]
        unit = [F.normalize(embedding, dim=0) for embedding in embeddings]
        return F.normalize(torch.stack(unit).mean(dim=0), dim=0)


def build(tiny, name, settings):
    torch.manual_seed(2)
    built = pretrained.create(name, tiny, device="cpu", num_frames=FRAMES, **settings)
    for parameter in built.trainable().values():  # far from the small initial values, so that each parameter matters
        parameter.data.add_(torch.randn_like(parameter) * 0.3)
    return built


def data(tiny):
    generator = torch.Generator().manual_seed(7)
    eos = tiny.sizes.text.eos_token_id
    captions = [torch.randint(0, eos - 1, (length,), generator=generator) for length in (1, 2, 9, 30)]
    captions = [torch.cat([ids, torch.tensor([eos])]) for ids in captions]
    ids = torch.nn.utils.rnn.pad_sequence(captions, batch_first=True, padding_value=eos)
    return captions, ids, torch.randn(2, FRAMES, 3, 32, 32, generator=generator)


@pytest.mark.parametrize(("name", "settings"), CASES)
def test_outputs_and_gradients_equal_the_reference(tiny, name, settings):
    built = build(tiny, name, settings)
    captions, ids, pixels = data(tiny)
    leaves = {key: p.detach().clone().requires_grad_() for key, p in built.trainable().items()}
    reference = Reference(tiny.folder, leaves, {"split_layer": 2, **settings})
    texts, videos = built.embed_tokens(ids), built.embed_frames(pixels)
    expected_texts = torch.stack([reference.text(caption) for caption in captions])
    expected_videos = torch.stack([reference.video(video) for video in pixels])
    torch.testing.assert_close(texts, expected_texts, rtol=0, atol=1e-5)
    torch.testing.assert_close(videos, expected_videos, rtol=0, atol=1e-5)
    if not leaves:
        return
    torch.logsumexp(10 * texts @ videos.T, dim=1).sum().backward()
    torch.logsumexp(10 * expected_texts @ expected_videos.T, dim=1).sum().backward()
    for key, parameter in built.trainable().items():
        assert float(leaves[key].grad.abs().max()) > 1e-3, f"{key} hardly matters here"
        torch.testing.assert_close(
            parameter.grad, leaves[key].grad, rtol=1e-4, atol=1e-4, msg=lambda m, key=key: f"{key}: {m}"
        )
