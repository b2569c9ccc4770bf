"""PE-Video: the video encoder of the Perception Encoder's audio-visual models, with ModernBERT for texts.

A transformer reads the embeddings of the frames, which timm's PE-Core computes: the library timm is needed. The folders
that Meta publishes (`pe_audio_video`) also hold an encoder of sounds, which is not used.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vop.backbones.config_values import read_part, read_token_id, read_value
from vop.backbones.preprocessing import HALF
from vop.backbones.sizes import Sizes, TextSizes, VisionSizes
from vop.backbones.video_native.family import VideoFamily, check_layers, read_widths

if TYPE_CHECKING:
    from torch import Tensor

    from vop.backbones.video_native.encoder import VideoEncoder

NUM_FRAMES = 16  # the configuration names none; Meta's variants with a fixed number have 16
ARCHITECTURE = "vit_pe_core_large_patch14_336"


class PeVideoFamily(VideoFamily):
    title = "PE-Video"
    mean, std = HALF, HALF

    def encoder(self) -> type[VideoEncoder]:
        from vop.backbones.video_native.encoders import PeVideoEncoder

        return PeVideoEncoder

    def read_sizes(self, config: Mapping[str, Any]) -> Sizes:
        config = self.model_config(config)
        video, text = read_part(config, "video_config"), read_part(config, "text_config")
        check_layers(video, "num_hidden_layers")
        check_layers(text, "num_hidden_layers")
        kind = text.get("model_type", "modernbert")
        if kind != "modernbert":
            raise ValueError(f"the model_type of its text_config is {kind!r}; only modernbert is supported")
        image_size = _image_size(read_part(video, "vision_config"))
        vocab_size = read_value(text, "vocab_size", 50_368)
        texts = read_widths(text, width=1024, mlp_width=2624)
        return Sizes(
            vision=VisionSizes(
                **read_widths(video, width=1792, mlp_width=4800),
                image_size=image_size,
                patch_size=image_size,
                class_token=False,
            ),
            text=TextSizes(
                **texts,
                vocab_size=vocab_size,
                positions=read_value(text, "max_position_embeddings", 8192),
                readout="first",
                pad_token_id=read_token_id(text, "pad_token_id", 50_283, vocab_size=vocab_size),
            ),
            embed_dim=texts["width"],
            loss="sigmoid",
            num_frames=NUM_FRAMES,
        )


class PeAudioVideoFamily(PeVideoFamily):
    """The video part of Meta's audio-visual models."""

    title = "PE-AV"

    def model_config(self, config: Mapping[str, Any]) -> Mapping[str, Any]:
        video = read_part(read_part(config, "audio_video_config"), "video_config")
        return {"model_type": "pe_video", "text_config": read_part(config, "text_config"), "video_config": video}

    def count_parameters(self, config: Mapping[str, Any], *, source: str) -> int:
        from vop.backbones.video_native.encoder import count_parameters

        return count_parameters("PeAudioVideoModel", config, source=source)

    def rename(self, state: Mapping[str, Tensor], sizes: Sizes, *, source: str) -> dict[str, Tensor]:
        # The text tower is shared with the encoder of sounds, and stored once.
        shared = {name: tensor for name, tensor in state.items() if name.startswith("text_model.")}
        prefix = "video_model."
        return shared | {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def _image_size(part: Mapping[str, Any]) -> int:
    """Read the image size of timm's model, which is in its arguments, in timm's own configuration, or in its name."""
    name = part.get("architecture", ARCHITECTURE)
    if not isinstance(name, str) or not re.fullmatch(r"[a-z0-9_]+(\.[a-z0-9_]+)?", name):  # no id of a hub
        raise ValueError(f"architecture is {name!r}; it must be the name of a model of timm")
    size: Any = read_part(part, "model_args").get("img_size") or read_part(part, "pretrained_cfg").get("input_size")
    if size is None:
        found = re.search(r"_(\d+)$", name.partition(".")[0])
        size = int(found[1]) if found else None
    height, width = size[-2:] if isinstance(size, list | tuple) and len(size) > 1 else (size, size)
    if height != width:
        raise ValueError(f"the image size of its {name} is {height!r} x {width!r}; only squares are supported")
    if height is None:
        raise ValueError(f"the image size of its {name} is unknown: model_args has no img_size")
    return read_value({"image_size": height}, "image_size", 336)
