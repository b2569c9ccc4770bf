"""X-CLIP (Ni et al. 2022, arXiv 2208.02816): CLIP whose frames exchange messages, with a transformer over them.

X-CLIP scores a text with a video only after the video has changed the text, by a "video-specific prompt". A search over
many videos needs embeddings of texts that do not depend on the video, so we use those before this step, as
`get_text_features` and `get_video_features` of `transformers` do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vop.backbones.config_values import check_patches, read_part, read_value
from vop.backbones.sizes import Sizes, TextSizes, VisionSizes
from vop.backbones.video_native.family import VideoFamily, check_layers, read_widths

if TYPE_CHECKING:
    from vop.backbones.video_native.encoder import VideoEncoder


class XClipFamily(VideoFamily):
    title = "X-CLIP"
    mode = "crop"
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    cleaning = "openai"

    def encoder(self) -> type[VideoEncoder]:
        from vop.backbones.video_native.encoders import XClipEncoder

        return XClipEncoder

    def read_sizes(self, config: Mapping[str, Any]) -> Sizes:
        vision, text = read_part(config, "vision_config"), read_part(config, "text_config")
        check_layers(vision, "num_hidden_layers", "mit_num_hidden_layers")
        check_layers(text, "num_hidden_layers")
        check_layers(config, "prompt_layers")
        image_size, patch_size = read_value(vision, "image_size", 224), read_value(vision, "patch_size", 32)
        check_patches(image_size, patch_size)
        vocab_size = read_value(text, "vocab_size", 49408)
        return Sizes(
            vision=VisionSizes(
                **read_widths(vision, width=768, mlp_width=3072), image_size=image_size, patch_size=patch_size
            ),
            text=TextSizes(
                **read_widths(text, width=512, mlp_width=2048),
                vocab_size=vocab_size,
                eos_token_id=vocab_size - 1,  # `transformers` reads a text at its highest id
                positions=read_value(text, "max_position_embeddings", 77),
            ),
            embed_dim=read_value(config, "projection_dim", 512),
            num_frames=read_value(vision, "num_frames", 8),
            fixed_num_frames=True,  # its transformer over frames has a table of positions
        )
