"""VideoPrism (Zhao et al. 2024, arXiv 2402.13217), in its variant with a text tower, LvT.

Captions are cleaned as the authors do: lower case, no punctuation, and a full stop at the end. Frames are scaled to
[0, 1] and not normalised.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vop.backbones.config_values import check_patches, read_part, read_token_id, read_value
from vop.backbones.sizes import Sizes, TextSizes, VisionSizes
from vop.backbones.video_native.family import VideoFamily, check_layers, read_widths

if TYPE_CHECKING:
    from vop.backbones.video_native.encoder import VideoEncoder


class VideoPrismFamily(VideoFamily):
    title = "VideoPrism"
    interpolation = "bicubic"
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    cleaning = "sentence"
    ends = False

    def encoder(self) -> type[VideoEncoder]:
        from vop.backbones.video_native.encoders import VideoPrismEncoder

        return VideoPrismEncoder

    def read_sizes(self, config: Mapping[str, Any]) -> Sizes:
        vision, text = read_part(config, "vision_config"), read_part(config, "text_config")
        check_layers(vision, "num_spatial_layers", "num_temporal_layers", "num_auxiliary_layers")
        check_layers(text, "num_hidden_layers")
        tubelet = vision.get("tubelet_size", [1, 18, 18])
        if not isinstance(tubelet, list | tuple) or len(tubelet) != 3 or tubelet[0] != 1 or tubelet[1] != tubelet[2]:
            raise ValueError(f"tubelet_size is {tubelet!r}; it must be [1, SIZE, SIZE]")
        patch_size = read_value({"patch_size": tubelet[1]}, "patch_size", 18)
        image_size = read_value(vision, "image_size", 288)
        check_patches(image_size, patch_size)
        vocab_size = read_value(text, "vocab_size", 32_000)
        widths = read_widths(vision, width=768, mlp_width=3072)
        texts = read_widths(text, width=768, mlp_width=3072)
        if widths["width"] != texts["width"]:
            raise ValueError(
                f"hidden_size is {widths['width']} for videos and {texts['width']} for texts; must be equal"
            )
        return Sizes(
            vision=VisionSizes(**widths, image_size=image_size, patch_size=patch_size, class_token=False),
            text=TextSizes(
                **texts,
                vocab_size=vocab_size,
                positions=read_value(text, "max_position_embeddings", 64),
                marks=0,
                readout="last",
                pad_token_id=read_token_id(text, "pad_token_id", 0, vocab_size=vocab_size),
                fixed_length=True,
            ),
            embed_dim=widths["width"],
            num_frames=read_value(vision, "num_frames", 16),
        )
