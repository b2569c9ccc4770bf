"""The encoders of the families of this folder, around the models of `transformers`.

Shapes: `b` videos or texts, `f` frames, `n` tokens, `e` the joint space.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from vop.backbones.sizes import Sizes
from vop.backbones.video_native.encoder import VideoEncoder


class XClipEncoder(VideoEncoder):
    kind = "XCLIPModel"

    def __init__(self, sizes: Sizes, model: Any) -> None:
        super().__init__(sizes, model)
        self.log_logit_scale.data = model.logit_scale.detach().clone()

    def embed_tokens(self, ids: Tensor) -> Tensor:
        features: Tensor = self.model.get_text_features(input_ids=ids).pooler_output
        return features

    def embed_videos(self, pixels: Tensor) -> Tensor:
        features: Tensor = self.model.get_video_features(pixel_values=pixels).pooler_output
        return features


class VideoPrismEncoder(VideoEncoder):
    """It has no logit scale of its own: it stays 1."""

    kind = "VideoPrismClipModel"

    def __init__(self, sizes: Sizes, model: Any) -> None:
        super().__init__(sizes, model)
        for part in model.modules():
            if type(part).__name__ == "VideoPrismTemporalEmbeddings":
                part.interpolate_pos_encoding = partial(_positions_of_frames, part)

    def embed_tokens(self, ids: Tensor) -> Tensor:
        mask = ids.ne(self.sizes.text.pad_token_id or 0).long()
        features: Tensor = self.model.get_text_features(input_ids=ids, attention_mask=mask).pooler_output
        return features

    def embed_videos(self, pixels: Tensor) -> Tensor:
        # Interpolates the positions of frames; those of patches are as they are at the backbone's image size.
        outputs = self.model.get_video_features(pixel_values_videos=pixels, interpolate_pos_encoding=True)
        features: Tensor = outputs.pooler_output.squeeze(1)
        return features


def _positions_of_frames(embeddings: Any, tokens: Tensor) -> Tensor:
    """Return the positions for the frames of `tokens` (b, f, d), interpolated in fp32: a CPU cannot do it in bf16."""
    positions: Tensor = embeddings.position_embeddings
    if tokens.shape[1] == positions.shape[1]:
        return positions
    size = (tokens.shape[1], positions.shape[2])
    resized = F.interpolate(positions.float()[:, None], size=size, mode="bilinear", antialias=True)
    return resized.squeeze(1).to(positions.dtype)


class PeVideoEncoder(VideoEncoder):
    kind = "PeVideoModel"

    def __init__(self, sizes: Sizes, model: Any) -> None:
        super().__init__(sizes, model)
        assert self.logit_bias is not None  # its loss is the sigmoid one
        self.log_logit_scale.data = model.text_video_logit_scale.detach().clamp(min=1e-6).log().reshape(())
        self.logit_bias.data = model.text_video_logit_bias.detach().clone().reshape(())

    def embed_tokens(self, ids: Tensor) -> Tensor:
        mask = ids.ne(self.sizes.text.pad_token_id or 0).long()
        outputs = self.model.text_model(input_ids=ids, attention_mask=mask, output_hidden_states=True)
        features: Tensor = self.model.text_video_head(outputs.hidden_states[-1][:, 0])
        return features

    def embed_videos(self, pixels: Tensor) -> Tensor:
        outputs = self.model.video_encoder(pixel_values_videos=pixels.contiguous())
        features: Tensor = self.model.video_head(outputs.pooler_output)
        return features
