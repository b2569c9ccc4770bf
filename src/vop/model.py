"""A CLIP and a method: texts and videos in, embeddings out.

Shapes: `n` texts or videos, `f` frames, `e` the joint space.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vop import methods
from vop.backbone import Backbone, find_backbone
from vop.device import default_device
from vop.errors import UsageError, VopError
from vop.methods.base import Method, check_whole


class TextVideoModel(nn.Module):
    """A frozen CLIP, and what a method adds to it.

    Attributes:
        backbone: where the CLIP comes from.
        clip: its two towers; frozen.
        method: the trained part.
        method_name: as in `vop.methods.METHODS`.
        card: what is known of how it was made (data, recipe, results), shown in the run's README.
    """

    def __init__(self, backbone: Backbone, method_name: str, method: Method, *, dtype: torch.dtype) -> None:
        super().__init__()
        self.backbone = backbone
        self.method_name = method_name
        self.clip = backbone.load()
        log_logit_scale = self.clip.log_logit_scale.data
        self.clip.to(dtype).log_logit_scale.data = log_logit_scale  # frozen means unrounded, too
        self.method = method
        self.tokenizer = backbone.tokenizer()
        self.card: dict = {}
        pixel_shape = (3, 1, 1)
        self.register_buffer("mean", torch.tensor(backbone.mean).view(pixel_shape) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(backbone.std).view(pixel_shape) * 255, persistent=False)

    @property
    def device(self) -> torch.device:
        return self.mean.device

    @property
    def num_frames(self) -> int:
        return self.method.num_frames

    @property
    def image_size(self) -> int:
        return self.backbone.sizes.image_size

    @property
    def logit_scale(self) -> float:
        """The temperature's inverse, frozen; OpenAI's is 100."""
        return self.clip.log_logit_scale.exp().item()

    def trainable(self) -> dict[str, nn.Parameter]:
        """What training moves and a run saves, by name."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Texts to token ids (n, length), padded to the longest; what is too long is cut, [EOS] kept."""
        if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
            raise UsageError(f"texts are a list of strings, got {type(texts).__name__}")
        if self.tokenizer is None:
            raise VopError(
                f"{self.backbone.folder}: no vocabulary (tokenizer.json, or vocab.json and merges.txt): put one there "
                "to encode texts, or pass token ids to embed_tokens"
            )
        if not texts:
            return torch.empty(0, 2, dtype=torch.long)
        encoded = self.tokenizer(
            list(texts), padding=True, truncation=True, max_length=self.method.max_tokens, return_tensors="pt"
        )
        return encoded["input_ids"]

    def normalise(self, frames: Tensor) -> Tensor:
        """Frames (..., 3, h, w) of uint8 to pixels with CLIP's mean and standard deviation, on the model's device."""
        return (frames.to(self.device).float() - self.mean) / self.std

    def embed_tokens(self, ids: Tensor) -> Tensor:
        """Token ids (n, length), each with an [EOS], to unit text embeddings (n, e) in float32, with gradients."""
        return F.normalize(self.method.embed_tokens(self.clip, ids.to(self.device)).float(), dim=-1)

    def embed_frames(self, pixels: Tensor) -> Tensor:
        """Normalised pixels (n, f, 3, h, w) to video embeddings (n, e) in float32, with gradients.

        Of unit length, but for the authors' released model, which leaves out the second normalisation.
        """
        return self.method.pool(self.method.embed_frames(self.clip, pixels.to(self.device)).float())

    def forward(self, ids: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Token ids (n, length) and uint8 frames (m, f, 3, h, w) to embeddings (n, e) and (m, e)."""
        return self.embed_tokens(ids), self.embed_frames(self.normalise(frames))

    @torch.inference_mode()
    def encode_text(self, texts: Sequence[str], *, batch_size: int = 256) -> Tensor:
        """Texts to unit embeddings (n, e), float32 on the CPU."""
        ids = self.tokenize(texts)
        parts = [self.embed_tokens(batch).cpu() for batch in ids.split(batch_size)]
        return torch.cat(parts) if parts else self._nothing()

    @torch.inference_mode()
    def encode_video(self, paths: Sequence[str | Path], *, batch_size: int = 8) -> Tensor:
        """Video files to unit embeddings (n, e), float32 on the CPU.

        Raises:
            VideoError: a file cannot give a frame.
        """
        from vop.data.decode import decode_frames

        if isinstance(paths, str | Path):
            raise UsageError(f"paths are a list of files, got one: {str(paths)!r}")
        parts = []
        for start in range(0, len(paths), batch_size):
            batch = paths[start : start + batch_size]
            frames = [decode_frames(path, num_frames=self.num_frames, size=self.image_size) for path in batch]
            videos = self.embed_frames(self.normalise(torch.stack(frames)))
            parts.append(F.normalize(videos, dim=-1).cpu())
        return torch.cat(parts) if parts else self._nothing()

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes config.json, model.safetensors (only what was trained) and a model card; see `vop.run_folder`."""
        from vop.run_folder import save

        save(self, Path(folder))

    def _nothing(self) -> Tensor:
        return torch.empty(0, self.backbone.sizes.embed_dim)


def create(
    method: str,
    backbone: str | Backbone = "mini",
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
    **settings,
) -> TextVideoModel:
    """A model with freshly initialised prompts.

    Args:
        method: a name of `vop.methods.METHODS`.
        backbone: "mini", a hub id or a CLIP folder.
        dtype: of the frozen weights and the activations; what is trained stays in float32.
        settings: the method's, `num_frames` among them.
    """
    if isinstance(backbone, str):
        backbone = find_backbone(backbone)
    part = methods.create(method, backbone.sizes, **settings)
    return TextVideoModel(backbone, method, part, dtype=dtype).to(device or default_device())


def load(
    name: str | Path,
    *,
    backbone: str | None = None,
    num_frames: int | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> TextVideoModel:
    """Opens a run, a published folder or a hub id, in eval mode; a plain CLIP opens as `zero-shot`.

    Args:
        backbone: where the run's backbone is now, if it has moved; its content is compared all the same.
        num_frames: another number of frames than the run's, where its method has none of its own for each position.
        dtype: of the frozen weights and the activations; float32 gives the exact embeddings, bfloat16 is faster.

    Raises:
        UsageError: no such run, folder or hub id.
        VopError: the folder is damaged, or its backbone is missing or another one.
    """
    from vop.run_folder import open_run

    model = open_run(str(name), backbone=backbone, dtype=dtype)
    if num_frames is not None and num_frames != model.num_frames:
        check_whole("num_frames", num_frames, at_least=1)
        if model.method.fixed_frames:
            raise UsageError(
                f"num_frames is {num_frames}; {model.method_name} was tuned for {model.num_frames}, use those"
            )
        model.method.num_frames = model.method.settings["num_frames"] = num_frames
    return model.to(device or default_device()).eval()
