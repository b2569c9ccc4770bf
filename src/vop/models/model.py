"""A CLIP, a method and a head: texts and videos in, embeddings or scores out.

Shapes: `n` texts or videos, `t` texts, `v` videos, `f` frames, `e` the joint space.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vop import heads, methods
from vop.backbones import Backbone, find_backbone
from vop.backbones.clip.model import Clip
from vop.backbones.work import forward_work
from vop.errors import UsageError, VopError, unknown_name
from vop.heads.base import Head
from vop.methods.base import Method, check_whole
from vop.utils.device import default_device
from vop.utils.threads import limit_threads
from vop.video.clip import MAX_FRAMES

if TYPE_CHECKING:
    from vop.backbones.clip.tokenizer import Tokenizer

HEAD_PREFIX = "head."  # of a head's settings among a method's
SCORE_BYTES = 128 * 2**20  # about as much memory a block of pairwise scores takes
MAX_LOGIT_SCALE = 100.0  # CLIP's own limit


class TextVideoModel(nn.Module):
    """A CLIP, how a method adapts it, and how a head compares texts with videos.

    Attributes:
        backbone: where the CLIP comes from.
        clip: its two towers; frozen, but for what the method says.
        method: what is trained.
        method_name: as in `vop.methods.METHODS`.
        head: from frames to a video or a score; `meanP` is the method's own pooling.
        head_name: as in `vop.heads.HEADS`.
        trained_frames: the number of frames that its tables of frame positions were trained with.
        card: what is known of how it was made (data, recipe, results), shown in the run's README.
    """

    def __init__(
        self,
        backbone: Backbone,
        method_name: str,
        method: Method,
        head_name: str = heads.MEAN,
        head: Head | None = None,
        *,
        dtype: torch.dtype,
        clip: Clip | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.method_name, self.head_name = method_name, head_name
        self.clip = clip or backbone.load()
        self.method = method
        self.head = head or heads.create(head_name, backbone.sizes, num_frames=method.num_frames)
        self.head.start_from(self.clip)
        attach(self.clip, self.method, self.head)
        self.clip.compute_in(dtype)
        self.trained_frames = method.num_frames
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
        """The temperature's inverse; OpenAI's is 100."""
        return self._scale().item()

    @property
    def pairwise(self) -> bool:
        """Whether a score needs both sides, so that a video has no embedding by itself."""
        return self.head.pairwise

    def trainable(self) -> dict[str, nn.Parameter]:
        """What training moves and a run saves, by name."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Texts to token ids (n, length), padded to the longest; what is too long is cut, [EOS] kept."""
        if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
            raise UsageError(f"texts are a list of strings, got {type(texts).__name__}")
        if not texts:
            return torch.empty(0, 2, dtype=torch.long)
        return self._vocabulary().encode(list(texts), max_length=self.method.max_tokens)

    def count_tokens(self, text: str) -> int:
        """How many tokens a text has, [BOS] and [EOS] included, before it is cut to `method.max_tokens`."""
        return self._vocabulary().count(text)

    def check_vocabulary(self) -> None:
        """Raises a VopError if there is no vocabulary to encode texts with."""
        self._vocabulary()

    def _vocabulary(self) -> Tokenizer:
        return self.tokenizer or needed_vocabulary(self.backbone)

    def normalise(self, frames: Tensor) -> Tensor:
        """Frames (..., 3, h, w) of uint8 to pixels with CLIP's mean and standard deviation, on the model's device."""
        return (frames.to(self.device).float() - self.mean) / self.std

    def text_features(self, ids: Tensor) -> Tensor:
        """Token ids (n, length), each with an [EOS], to text embeddings (n, e) as the tower gives them, in float32."""
        self._check_ids(ids)
        return self.method.embed_tokens(self.clip, ids.to(self.device)).float()

    def _check_ids(self, ids: Tensor) -> None:
        """A GPU ends the whole process where it meets an id that is out of range."""
        known = self.backbone.sizes.vocab_size
        if ids.numel() and (ids.min() < 0 or ids.max() >= known):
            found = f"{int(ids.min())} to {int(ids.max())}"
            raise UsageError(f"token ids are {found}; this backbone's vocabulary has 0 to {known - 1}")

    def frame_features(self, pixels: Tensor) -> Tensor:
        """Normalised pixels (n, f, 3, h, w) to frame embeddings (n, f, e) as the tower gives them, in float32."""
        return self.method.embed_frames(self.clip, pixels.to(self.device)).float()

    def embed_tokens(self, ids: Tensor) -> Tensor:
        """Token ids (n, length), each with an [EOS], to unit text embeddings (n, e) in float32, with gradients."""
        return F.normalize(self.text_features(ids), dim=-1)

    def embed_frames(self, pixels: Tensor) -> Tensor:
        """Normalised pixels (n, f, 3, h, w) to video embeddings (n, e) in float32, with gradients.

        Of unit length, but for the authors' released model, which leaves out the second normalisation.

        Raises:
            UsageError: the head has no embedding of a video by itself.
        """
        self.check_independent()
        pool = self.method.pool if self.head_name == heads.MEAN else self.head.pool
        return pool(self.frame_features(pixels))

    def check_independent(self) -> None:
        """Raises a UsageError if texts and videos cannot be embedded apart from each other."""
        if self.pairwise:
            raise UsageError(
                f"the head {self.head_name} scores a text and a video together, so that neither has an embedding by "
                f"itself: `vop evaluate` ranks with it; to encode or search, tune with one of {', '.join(heads.APART)}"
            )

    def forward(self, ids: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Token ids (n, length) and uint8 frames (m, f, 3, h, w) to the two sides of `logits`.

        Unit embeddings (n, e) and (m, e), or with a pairwise head the features (n, e) and (m, f, e).
        """
        pixels = self.normalise(frames)
        if self.pairwise:
            return self.text_features(ids), self.frame_features(pixels)
        return self.embed_tokens(ids), self.embed_frames(pixels)

    def logits(self, texts: Tensor, videos: Tensor) -> Tensor:
        """What `forward` gives, of t texts and v videos, to the logits of the loss (t, v)."""
        if not self.pairwise:
            return self._scale() * texts @ videos.T
        scores = self.head.score(texts, videos)
        return self._scale() * scores if self.head.scaled else scores

    @torch.no_grad()
    def score(self, texts: Tensor, frames: Tensor) -> Tensor:
        """A pairwise head's scores (t, v), float32 on the CPU, of features (t, e) and (v, f, e), block by block."""
        was_training = self.head.training
        self.head.eval()  # a ranking has no dropout, also in the middle of a training
        rows = min(len(texts), 64)
        columns = max(1, SCORE_BYTES // (4 * rows * self.head.pair_floats(frames)))
        scores = torch.empty(len(texts), len(frames))
        for column, videos in enumerate(frames.split(columns)):
            videos = videos.to(self.device)
            for row, some in enumerate(texts.split(rows)):
                block = self.head.score(some.to(self.device), videos).float().cpu()
                scores[row * rows : row * rows + len(some), column * columns : column * columns + len(videos)] = block
        self.head.train(was_training)
        return scores

    def _scale(self) -> Tensor:
        """The logit scale, with its gradient where it trains."""
        return self.clip.log_logit_scale.exp()

    def limit_logit_scale(self) -> None:
        """Holds a logit scale that trains to CLIP's limit, after a step: within one it would stop the gradient."""
        scale = self.clip.log_logit_scale
        if scale.requires_grad:
            scale.data.clamp_(max=math.log(MAX_LOGIT_SCALE))

    @torch.inference_mode()
    def encode_text(self, texts: Sequence[str], *, batch_size: int = 256) -> Tensor:
        """Texts to unit embeddings (n, e), float32 on the CPU."""
        self.check_independent()
        batches = self.tokenize(texts).split(batch_size)
        with limit_threads(forward_work(self.backbone.sizes, tokens=batches[0].numel())):
            parts = [self.embed_tokens(batch).cpu() for batch in batches]
        return torch.cat(parts) if parts else self._nothing()

    @torch.inference_mode()
    def encode_video(self, paths: Sequence[str | Path], *, batch_size: int = 8) -> Tensor:
        """Video files to unit embeddings (n, e), float32 on the CPU.

        Raises:
            VideoError: a file cannot give a frame.
        """
        from vop.video.frames import read_frames

        self.check_independent()
        if isinstance(paths, str | Path):
            raise UsageError(f"paths are a list of files, got one: {str(paths)!r}")
        parts = []
        for start in range(0, len(paths), batch_size):
            batch = paths[start : start + batch_size]
            frames = [read_frames(path, num_frames=self.num_frames, size=self.image_size) for path in batch]
            videos = self.embed_frames(self.normalise(torch.stack(frames)))
            parts.append(F.normalize(videos, dim=-1).cpu())
        return torch.cat(parts) if parts else self._nothing()

    def resize_frames(self, num_frames: int) -> None:
        """Takes `num_frames` frames of a video from now on.

        What it has for each frame position is interpolated linearly between the middles of the frames' intervals.
        """
        check_whole("num_frames", num_frames, at_least=1, at_most=MAX_FRAMES)
        for parameter, axis in self.frame_tables():
            rows = parameter.data.movedim(axis, -1)
            resized = F.interpolate(rows.flatten(0, -2)[None], num_frames, mode="linear")[0]
            parameter.data = resized.unflatten(0, rows.shape[:-1]).movedim(-1, axis).contiguous()
        self.method.num_frames = self.method.settings["num_frames"] = num_frames

    def frame_tables(self) -> list[tuple[nn.Parameter, int]]:
        """Parameters of the method and the head with an entry for each frame position, and its axis."""
        return [*self.method.frame_tables(), *self.head.frame_tables()]

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes config.json, model.safetensors (only what was trained) and a model card."""
        from vop.models.pretrained import save

        save(self, Path(folder))

    def _nothing(self) -> Tensor:
        return torch.empty(0, self.backbone.sizes.embed_dim)


def needed_vocabulary(backbone: Backbone) -> Tokenizer:
    """The backbone's tokenizer, for what cannot do without; called before hours are spent on videos.

    Raises:
        VopError: it has none, or that of another model.
    """
    tokenizer = backbone.tokenizer()
    if tokenizer is None:
        raise VopError(
            f"{backbone.folder}: no vocabulary (tokenizer.json, or vocab.json and merges.txt): put one there "
            "to encode texts, or pass token ids to embed_tokens"
        )
    return tokenizer


def shared_clip(
    backbone: Backbone, method: Method, beside: Sequence[TextVideoModel], *, dtype: torch.dtype
) -> Clip | None:
    """The CLIP of an open model that another one on the same backbone can use as it is; None if there is none."""
    if changes_backbone(method):
        return None
    for other in beside:
        same = other.clip.dtype == dtype and other.backbone.content_hash() == backbone.content_hash()
        if same and not changes_backbone(other.method):
            return other.clip
    return None


def changes_backbone(method: Method) -> bool:
    """Whether the method trains the backbone's own weights, or puts modules into it."""
    return type(method).attach is not Method.attach


def attach(clip: Clip, method: Method, head: Head) -> None:
    """Makes what the method says of the frozen backbone trainable, where the head has a use for it."""
    method.attach(clip)
    if not head.scaled:  # the logit scale would have no gradient
        clip.log_logit_scale.requires_grad_(False)


def create(
    method: str,
    backbone: str | Backbone = "mini",
    *,
    head: str = heads.MEAN,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
    **settings,
) -> TextVideoModel:
    """A model with freshly initialised prompts.

    Args:
        method: a name of `vop.methods.METHODS`.
        backbone: "mini", a hub id or a CLIP folder.
        head: a name of `vop.heads.HEADS`.
        dtype: of the frozen weights and the activations; what is trained stays in float32.
        settings: the method's, `num_frames` among them; a head's are called `head.NAME`.
    """
    if isinstance(backbone, str):
        backbone = find_backbone(backbone)
    of_method, of_head = split_settings(settings)
    part = methods.create(method, backbone.sizes, **of_method)
    if head != heads.MEAN and type(part).pool is not Method.pool:
        raise UsageError(f"{method} pools frames in its own way: it takes the head {heads.MEAN} only, not {head}")
    for name in of_head:
        if name not in heads.settings_of(head):
            raise unknown_name(f"setting of {head}", name, heads.settings_of(head))
    top = heads.create(head, backbone.sizes, num_frames=part.num_frames, **of_head)
    return TextVideoModel(backbone, method, part, head, top, dtype=dtype).to(device or default_device())


def split_settings(settings: dict) -> tuple[dict, dict]:
    """Settings of a method, and those that are called `head.NAME` under their own names."""
    of_head = {name for name in settings if name.startswith(HEAD_PREFIX)}
    of_method = {name: value for name, value in settings.items() if name not in of_head}
    return of_method, {name.removeprefix(HEAD_PREFIX): settings[name] for name in settings if name in of_head}


def load(
    name: str | Path,
    *,
    backbone: str | None = None,
    num_frames: int | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
    beside: Sequence[TextVideoModel] = (),
) -> TextVideoModel:
    """Opens a run, a published folder or a hub id, in eval mode; a plain CLIP opens as `zero-shot`.

    Args:
        backbone: where the run's backbone is now, if it has moved; its content is compared all the same.
        num_frames: another number of frames than the run's; its tables of frame positions are interpolated.
        dtype: of the frozen weights and the activations; float32 gives the exact embeddings, bfloat16 is faster.
        beside: models that are open already; where one of them has the same backbone and neither method changes it,
            both use one copy of its weights.

    Raises:
        UsageError: no such run, folder or hub id.
        VopError: the folder is damaged, or its backbone is missing or another one.
    """
    from vop.models.pretrained import open_run

    model = open_run(str(name), backbone=backbone, dtype=dtype, beside=beside)
    if num_frames is not None and num_frames != model.num_frames:
        model.resize_frames(num_frames)
    return model.to(device or default_device()).eval()
