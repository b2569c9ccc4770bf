"""The model: a CLIP, a method and a head, which embed texts and videos or score them together.

Shapes: `n` texts or videos, `t` texts, `v` videos, `f` frames, `e` the joint space. The embeddings of a model with
`use_dimensions` have only its first dimensions.
"""

from __future__ import annotations

import itertools
import math
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from vop import heads
from vop.backbones import Backbone
from vop.backbones.compiling import compile_layers
from vop.backbones.embedding_config import EmbeddingConfig, TokenMerging
from vop.backbones.towers import CLIP
from vop.backbones.work import forward_work
from vop.errors import UsageError, VopError
from vop.heads.base import Head
from vop.methods.base import ACROSS_FRAMES, NOWHERE, Method
from vop.models import saving
from vop.models.card import made_with
from vop.models.dtypes import accept_any_dtype
from vop.models.frames import checked, resized
from vop.models.run_folder import Card, RunConfig
from vop.utils.checks import check_whole, plain
from vop.utils.fitting import FittingBatches
from vop.utils.ranks import ALONE, Ranks
from vop.utils.text import is_unicode
from vop.utils.threads import limit_threads
from vop.video.clip import MAX_FRAMES

if TYPE_CHECKING:
    from vop.backbones.tokenizer import Tokenizer
    from vop.video.resizing import Resizing

Item = TypeVar("Item")
HEAD_PREFIX = "head."  # marks the settings of the head among those of the method
SCORE_BYTES = 128 * 2**20  # approximate memory for a block of pairwise scores
MAX_LOGIT_SCALE = 100.0  # limit in CLIP's own training
_MERGED_AND_COMPILED = "layers that merge tokens cannot be compiled: leave out merge_tokens or compile"


class TextVideoModel(nn.Module):
    """A CLIP, a method that adapts it, and a head that compares texts with videos.

    Attributes:
        backbone: the source of the CLIP.
        clip: the two towers, frozen except the parts that the method trains.
        method: adapts the CLIP; it holds the trained parameters.
        method_name: a built-in name, a name that a package adds, or "package.module:Class".
        head: turns the frames' embeddings into a video's, or into scores. `meanP` is the method's own pooling.
        head_name: as `method_name`, for the head.
        trained_frames: frames per video in training.
        matryoshka_dimensions: numbers of dimensions, below that of the joint space, for which the model was trained:
            embeddings may have only their first dimensions (`use_dimensions`).
        card: facts about the model's training (data, recipe, results). The run's README shows them.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: Backbone,
        method_name: str,
        method: Method,
        head_name: str = heads.MEAN,
        head: Head | None = None,
        *,
        dtype: torch.dtype,
        clip: CLIP | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.method_name, self.head_name = method_name, head_name
        # An encoder without layers is given to methods that do not need any: the others refuse its sizes.
        self.clip = clip or cast(CLIP, backbone.load())
        self.method = method
        self.head = head or heads.create(head_name, backbone.sizes, num_frames=method.num_frames)
        self.head.start_from(self.clip)
        attach(self.clip, self.method, self.head)
        self.clip.compute_in(dtype)
        if dtype != torch.float32:
            accept_any_dtype(self.method)
            if method.changes_backbone:
                accept_any_dtype(self.clip)
        self.trained_frames = method.num_frames
        self.matryoshka_dimensions = () if self.trainable() else backbone.matryoshka_dimensions
        self._dimensions: int | None = None
        self.tokenizer = backbone.tokenizer()
        self.card: Card = {}
        self._fitting_texts, self._fitting_videos = FittingBatches("text"), FittingBatches("video")
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
        return self.backbone.sizes.vision.image_size

    @property
    def resizing(self) -> Resizing:
        """How a frame becomes a square for the backbone."""
        return self.backbone.resizing

    @property
    def merging(self) -> TokenMerging | None:
        """How the vision tower merges similar patches; None for not at all."""
        return self.clip.vision.merging if isinstance(self.clip, CLIP) else None

    def merge_tokens(self, merging: TokenMerging | float) -> None:
        """Merge similar patches in the vision tower, for faster and slightly different embeddings of videos.

        Every model that shares the backbone merges them, too. Such a model cannot be trained.

        Args:
            merging: the fraction of the patches that the last layer no longer has, or a `TokenMerging`. 0 turns merging
                off.

        Raises:
            UsageError: the ratio is not allowed, or the backbone or the method cannot merge patches.
        """
        merging = TokenMerging.of(merging)
        if not merging.ratio:
            if self.merging is not None:
                self.clip.vision.merging = None
            return
        if not isinstance(self.clip, CLIP):
            raise UsageError("this backbone has no layers whose tokens could be merged: leave out merge_tokens")
        merging.check_tower(self.backbone.sizes.vision)
        if self.method.token_merging == NOWHERE:
            raise UsageError(f"the method {self.method_name} cannot merge tokens: leave out merge_tokens")
        if self.method.token_merging != ACROSS_FRAMES and merging.across_frames > 1:
            raise UsageError(
                f"across_frames is {merging.across_frames}; the method {self.method_name} merges tokens only within "
                "frames in the layers that see single frames: use 1"
            )
        if self.method.token_merging != ACROSS_FRAMES and self.backbone.sizes.vision.readout != "class":
            raise UsageError(
                f"the method {self.method_name} can merge tokens only in a backbone that reads a [CLS] token: leave "
                "out merge_tokens"
            )
        if self.compiled:
            raise UsageError(_MERGED_AND_COMPILED)
        merging.check_frames(self.num_frames)
        self.clip.vision.merging = merging

    @property
    def compiled(self) -> bool:
        """Whether the layers of both towers are compiled."""
        return isinstance(self.clip, CLIP) and self.clip.compiled

    def compile_layers(self) -> None:
        """Compile the layers of both towers with `torch.compile`, for long work: its first batches take much longer.

        Embeddings differ in the last digits. Every model that shares the backbone uses the compiled layers, too.

        Raises:
            UsageError: the backbone has no layers, the model merges tokens, or PyTorch cannot compile for this device
                on this machine.
        """
        if not isinstance(self.clip, CLIP):
            raise UsageError("this backbone has no layers that could be compiled: leave out compile")
        if not self.method.compiles:
            raise UsageError(f"the layers of the method {self.method_name} cannot be compiled: leave out compile")
        if self.merging is not None:
            raise UsageError(_MERGED_AND_COMPILED)
        compile_layers(self.clip)

    @property
    def dimensions(self) -> int:
        """The number of dimensions of an embedding."""
        return self._dimensions or self.backbone.sizes.embed_dim

    def use_dimensions(self, dimensions: int | None) -> None:
        """Keep only the first dimensions of every embedding of a text or video, scaled to unit length; None keeps all.

        Raises:
            UsageError: the model was not trained for this number of dimensions, or the head is pairwise.
        """
        whole = self.backbone.sizes.embed_dim
        if dimensions is not None and dimensions != whole:
            self.check_independent()
            if dimensions not in self.matryoshka_dimensions:
                allowed = ", ".join(map(str, (*self.matryoshka_dimensions, whole)))
                raise UsageError(
                    f"dimensions is {dimensions}; this model was trained for {allowed}: use one of these numbers, or "
                    "train with the setting matryoshka"
                )
        self._dimensions = None if dimensions == whole else dimensions

    def _shortened(self, embeddings: Tensor) -> Tensor:
        return embeddings if self._dimensions is None else shortened(embeddings, self._dimensions)

    @property
    def embedding(self) -> EmbeddingConfig:
        """How the model embeds, as far as this was chosen when it was opened."""
        return EmbeddingConfig(merge_tokens=self.merging, dimensions=self._dimensions)

    @property
    def logit_scale(self) -> float:
        """The inverse temperature of the loss; 100 in OpenAI's models."""
        return self._scale().item()

    @property
    def pairwise(self) -> bool:
        """Whether the head scores a text and a video together, so that a video has no embedding of its own."""
        return self.head.pairwise

    @property
    def averages_frames(self) -> bool:
        """Whether a video's embedding is the mean of its frames' embeddings, so that `encode_segments` works."""
        return self.head_name == heads.MEAN and not self.method.pools_itself

    def made_with(self) -> dict[str, str]:
        """Return the precision of the model, and the versions of the libraries."""
        return made_with(self.clip.dtype)

    def trainable(self) -> dict[str, nn.Parameter]:
        """Return the parameters that training changes and a run saves, by name."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    def tokenize(self, texts: Iterable[str]) -> Tensor:
        """Tokenize texts to ids (n, length), padded to the longest. Long texts are truncated but keep [EOS].

        Raises:
            UsageError: `texts` is a single text, or holds something else than texts.
        """
        listed = _listed("texts", texts, of="strings")
        for text in listed:
            if not isinstance(text, str):
                raise UsageError(
                    f"texts holds {reprlib.repr(text)} ({type(text).__name__}); it must be a list of strings"
                )
            if not is_unicode(text):
                raise UsageError(f"the text {text!r} is not valid Unicode: leave out the halves of characters")
        if not listed:
            return torch.empty(0, 2, dtype=torch.long)
        return self._vocabulary().encode(listed, max_length=self.method.max_tokens)

    def count_tokens(self, text: str) -> int:
        """Return the number of tokens of a text before truncation to `method.max_tokens`, including [BOS] and [EOS]."""
        return self._vocabulary().count(text)

    def check_vocabulary(self) -> None:
        """Raise a VopError if the backbone has no vocabulary to encode texts with."""
        self._vocabulary()

    def _vocabulary(self) -> Tokenizer:
        return self.tokenizer or needed_vocabulary(self.backbone)

    def normalise(self, frames: Tensor) -> Tensor:
        """Turn uint8 frames (..., 3, h, w) into normalised pixels on the model's device."""
        return (frames.to(self.device).float() - self.mean) / self.std

    def text_features(self, ids: Tensor) -> Tensor:
        """Return the text tower's output (n, e), float32, not normalised, for token ids (n, length) with an [EOS]."""
        self._check_ids(ids)
        return self.method.embed_tokens(self.clip, ids.to(self.device)).float()

    def _check_ids(self, ids: Tensor) -> None:
        """Raise a UsageError if an id is out of range. On a GPU such an id would crash the process."""
        known = self.backbone.sizes.text.vocab_size
        if ids.numel() and (ids.min() < 0 or ids.max() >= known):
            found = f"{int(ids.min())} to {int(ids.max())}"
            raise UsageError(f"token ids are {found}; this backbone's vocabulary has ids from 0 to {known - 1}")

    def frame_features(self, pixels: Tensor) -> Tensor:
        """Return the vision tower's output (n, f, e), float32, not normalised, for pixels (n, f, 3, h, w)."""
        if self.merging is not None:
            self.merging.check_frames(pixels.shape[1])
        return self.method.embed_frames(self.clip, pixels.to(self.device)).float()

    def embed_tokens(self, ids: Tensor) -> Tensor:
        """Embed token ids (n, length), each row with an [EOS]: unit vectors (n, e), float32, with gradients."""
        return self._shortened(F.normalize(self.text_features(ids), dim=-1))

    def embed_frames(self, pixels: Tensor) -> Tensor:
        """Embed normalised pixels (n, f, 3, h, w): video embeddings (n, e), float32, with gradients.

        They have unit length, except with the authors' released model, which does not normalise the mean.

        Raises:
            UsageError: the head is pairwise, so a video has no embedding of its own.
        """
        self.check_independent()
        pool = self.method.pool if self.head_name == heads.MEAN else self.head.pool
        return self._shortened(pool(self.frame_features(pixels)))

    def check_independent(self) -> None:
        """Raise a UsageError if the head is pairwise, because texts and videos then have no separate embeddings."""
        if self.pairwise:
            raise UsageError(
                f"the head {self.head_name} scores a text and a video together, so they have no embeddings: use it "
                f"with `vop evaluate`; to encode or search, tune with {' or '.join(heads.APART)}"
            )

    def forward(self, ids: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Turn token ids (n, length) and uint8 frames (m, f, 3, h, w) into the arguments of `logits`.

        Returns:
            Unit embeddings (n, e) and (m, e), or with a pairwise head the features (n, e) and (m, f, e).
        """
        pixels = self.normalise(frames)
        if self.pairwise:
            return self.text_features(ids), self.frame_features(pixels)
        return self.embed_tokens(ids), self.embed_frames(pixels)

    def logits(self, texts: Tensor, videos: Tensor) -> Tensor:
        """Turn the output of `forward` for t texts and v videos into the logits of the loss, (t, v)."""
        if not self.pairwise:
            return self._scale() * texts @ videos.T + self._bias()
        scores = self.head.score(texts, videos)
        return self._scale() * scores + self._bias() if self.head.scaled else scores

    @torch.no_grad()
    def score(self, texts: Tensor, frames: Tensor, *, ranks: Ranks = ALONE) -> Tensor:
        """Score features (t, e) and (v, f, e) with a pairwise head, in blocks: (t, v), float32 on the CPU.

        Args:
            ranks: the processes that share the blocks. Each gets all scores, with the same bits as in one process.
        """
        was_training = self.head.training
        self.head.eval()  # no dropout, even during training
        rows = min(len(texts), 64)
        columns = max(1, SCORE_BYTES // (4 * rows * self.head.pair_floats(frames)))
        blocks = list(itertools.product(range(0, len(frames), columns), range(0, len(texts), rows)))

        def score_blocks(part: Sequence[tuple[int, int]]) -> list[NDArray[np.float32]]:
            found = []
            for column, same_column in itertools.groupby(part, key=lambda block: block[0]):
                videos = frames[column : column + columns].to(self.device)
                for _, row in same_column:
                    block = self.head.score(texts[row : row + rows].to(self.device), videos)
                    found.append(block.float().cpu().numpy())
            return found

        scores = torch.empty(len(texts), len(frames))
        for (column, row), block in zip(blocks, ranks.share(blocks, score_blocks), strict=True):
            scores[row : row + rows, column : column + columns] = torch.from_numpy(block)
        self.head.train(was_training)
        return scores

    def _scale(self) -> Tensor:
        """Return the logit scale, with a gradient if it is trained."""
        return self.clip.log_logit_scale.exp()

    def _bias(self) -> Tensor | float:
        """Return the logit bias of a backbone with the sigmoid loss; 0 for others."""
        return 0.0 if self.clip.logit_bias is None else self.clip.logit_bias

    def limit_logit_scale(self) -> None:
        """Limit a trained logit scale to CLIP's maximum. Call this after a step: within one it stops the gradient.

        The sigmoid loss has no such limit.
        """
        scale = self.clip.log_logit_scale
        if scale.requires_grad and self.backbone.sizes.loss == "infonce":
            scale.data.clamp_(max=math.log(MAX_LOGIT_SCALE))

    @torch.no_grad()
    def encode_text(self, texts: Iterable[str], *, batch_size: int = 256) -> Tensor:
        """Encode texts to unit embeddings (n, e), float32 on the CPU."""
        self.check_independent()
        check_whole("batch_size", batch_size, at_least=1)
        batches = self.tokenize(texts).split(batch_size)
        with limit_threads(forward_work(self.backbone.sizes, tokens=batches[0].numel())):
            parts = [self._fitting_texts(self.embed_tokens, batch) for batch in batches]
        return torch.cat(parts) if parts else self._nothing()

    def encode_video(self, paths: Iterable[str | Path], *, batch_size: int = 8) -> Tensor:
        """Encode video files to unit embeddings (n, e), float32 on the CPU.

        Raises:
            VideoError: none of a file's frames can be decoded.
        """
        from vop.video.frames import decode_frames  # imports PyAV, which is slow

        self.check_independent()
        check_whole("batch_size", batch_size, at_least=1)
        listed = _listed("paths", paths, of="files")
        parts = []
        for start in range(0, len(listed), batch_size):
            batch = listed[start : start + batch_size]
            frames = [decode_frames(path, num_frames=self.num_frames, resizing=self.resizing) for path in batch]
            parts.append(self._encode(torch.from_numpy(np.stack(frames))))
        return torch.cat(parts) if parts else self._nothing()

    def encode_frames(self, frames: Tensor | np.ndarray[Any, Any], *, batch_size: int = 8) -> Tensor:
        """Encode frames of videos to unit embeddings (n, e), float32 on the CPU.

        Args:
            frames: RGB values from 0 to 255, uint8 (n, f, height, width, 3) or (n, f, 3, height, width), of any size.
                They are resized like in `encode_video`. Methods with tables of frame positions require
                f = `num_frames`.

        Raises:
            UsageError: the dtype or the shape is not allowed.
        """
        self.check_independent()
        check_whole("batch_size", batch_size, at_least=1)
        frames = checked(frames)
        parts = [self._encode(resized(batch, self.resizing)) for batch in frames.split(batch_size)]
        return torch.cat(parts) if len(frames) else self._nothing()

    @torch.no_grad()
    def encode_segments(self, frames: Tensor | np.ndarray[Any, Any]) -> tuple[Tensor, Tensor]:
        """Encode frames of segments like `encode_frames`, in one batch, and return the embeddings of frames, too.

        Returns:
            The embeddings of `encode_frames` (n, e), and those of the frames (n, f, e), in units of which the mean over
            a segment has the direction of its embedding. Float32 on the CPU.

        Raises:
            UsageError: the model does not average its frames, or the dtype or the shape is not allowed.
        """
        if not self.averages_frames:
            raise UsageError(
                f"{self.method_name} with the head {self.head_name} does not average the embeddings of frames, so they "
                "cannot be compared with a sentence: use encode_frames"
            )

        def encode(batch: Tensor) -> Tensor:
            features = self.frame_features(self.normalise(batch))
            pooled = F.normalize(self._shortened(self.method.pool(features)), dim=-1)
            return torch.cat([pooled[:, None], F.normalize(features, dim=-1)[..., : self.dimensions]], dim=1)

        both = self._fitting_videos(encode, resized(checked(frames), self.resizing))
        return both[:, 0], both[:, 1:]

    @torch.no_grad()
    def _encode(self, frames: Tensor) -> Tensor:
        """Encode uint8 frames (n, f, 3, size, size) to unit embeddings (n, e) on the CPU."""
        return self._fitting_videos(lambda batch: F.normalize(self.embed_frames(self.normalise(batch)), dim=-1), frames)

    def resize_frames(self, num_frames: int) -> None:
        """Change the number of frames per video.

        Tables with an entry for each frame position are interpolated linearly between the middles of the intervals.
        """
        check_whole("num_frames", num_frames, at_least=1, at_most=MAX_FRAMES)
        num_frames = plain(num_frames)
        self.backbone.sizes.check_num_frames(num_frames)
        lengths = [*self.method.table_lengths(num_frames), *(num_frames for _ in self.head.frame_tables())]
        for (parameter, axis), length in zip(self.frame_tables(), lengths, strict=True):
            rows = parameter.data.movedim(axis, -1)
            resized = F.interpolate(rows.reshape(1, -1, rows.shape[-1]), length, mode="linear")
            parameter.data = resized.reshape(*rows.shape[:-1], length).movedim(-1, axis).contiguous()
        self.method.num_frames = self.method.settings["num_frames"] = num_frames

    def frame_tables(self) -> list[tuple[nn.Parameter, int]]:
        """Return the parameters of method and head with an entry per frame position, and the axis of the entries."""
        return [*self.method.frame_tables(), *self.head.frame_tables()]

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a run to a folder: config.json, model.safetensors (only trained parameters) and a model card.

        Raises:
            UsageError: the folder holds a backbone.
            VopError: the folder cannot be written.
        """
        folder = Path(folder)
        saving.write(folder, self.run_config(folder), self.trainable())

    def run_config(self, folder: Path, backbone: Backbone | None = None) -> RunConfig:
        """Return the config.json of a run in `folder`.

        Args:
            backbone: by default the model's own. A backbone inside `folder` gets a relative name.
        """
        return saving.run_config(
            folder,
            backbone or self.backbone,
            method_name=self.method_name,
            method=self.method,
            head_name=self.head_name,
            head=self.head,
            image_size=self.image_size,
            matryoshka_dimensions=self.matryoshka_dimensions if self.trainable() else (),
            card=self.card,
        )

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        token: str | None = None,
        commit_message: str = "Upload a model with vop",
    ) -> str:
        """Publish the model on the Hugging Face hub. `vop.load(repo_id)` loads it from there.

        If the backbone is a local folder, it is published, too.

        Args:
            repo_id: the repository, "OWNER/NAME". It is created if it does not exist.
            private: whether a new repository is private. None means the owner's default.
            token: access token for the hub. By default the token that `hf auth login` stored.

        Returns:
            The URL of the commit.
        """
        return saving.publish(
            repo_id,
            self.backbone,
            self.run_config,
            self.trainable(),
            private=private,
            token=token,
            commit_message=commit_message,
        )

    def _nothing(self) -> Tensor:
        return torch.empty(0, self.dimensions)


def _listed(name: str, values: Iterable[Item], *, of: str) -> list[Item]:
    """Return the values of a list, an array or a column of a table.

    Raises:
        UsageError: it is a single text or path, or cannot be listed.
    """
    if isinstance(values, str | bytes | Path) or not isinstance(values, Iterable):
        shown = repr(str(values)) if isinstance(values, Path) else reprlib.repr(values)
        raise UsageError(f"{name} is {shown}; it must be a list of {of}")
    return list(values)


def shortened(embeddings: Tensor, dimensions: int) -> Tensor:
    """Return the first dimensions of embeddings (n, e), scaled to unit length: (n, dimensions)."""
    return F.normalize(embeddings[:, :dimensions], dim=-1)


def needed_vocabulary(backbone: Backbone) -> Tokenizer:
    """Return the backbone's tokenizer. Call this early, so that a missing vocabulary fails before any long work.

    Raises:
        VopError: the backbone has no tokenizer, or the tokenizer of another model.
    """
    tokenizer = backbone.tokenizer()
    if tokenizer is None:
        raise VopError(
            f"{backbone.folder}: the vocabulary (tokenizer.json, or vocab.json and merges.txt) is missing: add it "
            "to encode texts, or pass token ids to embed_tokens"
        )
    return tokenizer


def attach(clip: CLIP, method: Method, head: Head) -> None:
    """Attach a method to a frozen backbone. Some methods train parts of it or add modules to it."""
    method.attach(clip)
    if not head.scaled:  # the logit scale would get no gradient
        clip.train_logit_scale(False)


def split_settings(settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split settings into the method's and the head's, whose prefix "head." is removed."""
    of_head = {name for name in settings if name.startswith(HEAD_PREFIX)}
    of_method = {name: value for name, value in settings.items() if name not in of_head}
    return of_method, {name.removeprefix(HEAD_PREFIX): settings[name] for name in settings if name in of_head}
