"""Embed a split: its videos, decoded in background threads while the model works, and its captions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor, nn

from vop.datasets.frames import FrameSource
from vop.datasets.types import Split, Video
from vop.datasets.validation import ON_BAD_VIDEO
from vop.errors import DataError, FileFailure, UsageError, VideoError, unknown_name
from vop.evaluation.metrics import RetrievalMetrics, metrics_from_embeddings, retrieval_metrics, similarity_matrix
from vop.models.model import TextVideoModel
from vop.utils.progress import Progress, silent
from vop.utils.text import count
from vop.utils.threads import free_cores
from vop.video.ahead import map_ahead


class Embedder(Protocol):
    """A model that embeds texts and videos apart from each other; it sees to its own device."""

    def tokenize(self, texts: Sequence[str], /) -> Tensor:
        """Token ids (n, length)."""

    def embed_tokens(self, ids: Tensor, /) -> Tensor:
        """(n, length) to (n, d)."""

    def normalise(self, frames: Tensor, /) -> Tensor:
        """uint8 frames (n, f, 3, h, w) to pixels of the same shape."""

    def embed_frames(self, pixels: Tensor, /) -> Tensor:
        """(n, f, 3, h, w) to (n, d)."""


@dataclass(frozen=True)
class SplitEmbeddings:
    """A split's embeddings, float32 on the CPU; of a pairwise model its features.

    Attributes:
        split: what could be read of the split: `texts[i]` is of `split.captions[i]`, `videos[j]` of `split.videos[j]`.
        texts: (texts, d).
        videos: (videos, d), or features (videos, frames, d).
        skipped: the videos that could not be read; they and their captions are not in `split`.
        pair_scores: a pairwise model's scores (texts, videos) of features; None where scores are dot products.
        cosines: whether the scores are cosines, in whose units rescoring has its settings.
    """

    split: Split
    texts: Tensor
    videos: Tensor
    skipped: tuple[FileFailure, ...] = ()
    pair_scores: Callable[[Tensor, Tensor], Tensor] | None = None
    cosines: bool = True

    def similarity(self) -> Tensor:
        """(texts, videos) scores; a pairwise model's are computed once."""
        return self._pair_similarity if self.pair_scores else self.scores(self.texts, self.videos)

    @cached_property
    def _pair_similarity(self) -> Tensor:
        return self.scores(self.texts, self.videos)

    def scores(self, texts: Tensor, videos: Tensor) -> Tensor:
        """The whole matrix, in which equal texts have exactly equal scores, of any texts and videos of this model."""
        if self.pair_scores is None:
            return similarity_matrix(texts, videos)
        distinct, row = torch.unique(texts, dim=0, return_inverse=True)
        return self.pair_scores(distinct, videos)[row]

    def metrics(self, *, tie_rule: str = "pessimistic") -> RetrievalMetrics:
        """Both directions'."""
        targets = self.split.targets
        if self.pair_scores is None:
            return metrics_from_embeddings(self.texts, self.videos, targets=targets, tie_rule=tie_rule)
        return retrieval_metrics(self.similarity(), targets=targets, tie_rule=tie_rule)


def embed_split(
    model: Embedder,
    split: Split,
    store: FrameSource,
    *,
    batch_size: int = 32,
    workers: int | None = None,
    on_bad_video: str = "skip",
    progress: Progress = silent,
) -> SplitEmbeddings:
    """Embeds a split's videos, then the captions of those that could be read.

    Args:
        model: embeds; its training mode is put back afterwards.
        split: videos and captions.
        store: decodes or reads frames.
        batch_size: videos per forward pass (texts: eight times as many).
        workers: videos that are decoded at a time; by default one for each core that is free.
        on_bad_video: `skip` takes an unreadable video and its captions out and lists it; `fail` raises.
        progress: called after every batch; its stages are `videos` and `texts`.

    Raises:
        VideoError: with `fail`, the first unreadable video in order.
        DataError: no video could be read.
        UsageError: a setting is not allowed.
    """
    if on_bad_video not in ON_BAD_VIDEO:
        raise unknown_name("on_bad_video", on_bad_video, ON_BAD_VIDEO)
    if batch_size < 1 or (workers is not None and workers < 1):
        raise UsageError(f"batch_size {batch_size} and workers {workers} are not allowed: give 1 or more")
    workers = workers or free_cores()
    with _inference(model):
        by_id, skipped = _embed_videos(model, split.videos, store, batch_size, workers, on_bad_video, progress)
        if not by_id:
            first = f", the first: {skipped[0].path}: {skipped[0].reason}" if skipped else ""
            raise DataError(
                f"none of the {count('video', len(split.videos))} of split {split.name!r} could be read{first}"
            )
        kept = split.keep(set(by_id)) if skipped else split
        texts = embed_texts(model, kept.captions, batch_size=8 * batch_size, progress=progress)
    videos = torch.stack([by_id[video.id] for video in kept.videos])
    if (together := _pairwise(model)) is None:
        return SplitEmbeddings(kept, texts, videos, skipped)
    return SplitEmbeddings(kept, texts, videos, skipped, together.score, cosines=together.head.scaled)


def embed_texts(model: Embedder, texts: Sequence[str], *, batch_size: int = 256, progress: Progress = silent) -> Tensor:
    """(n, d) float32 on the CPU. Equal texts are embedded once, so that they tie exactly."""
    if not texts:
        raise DataError("there are 0 captions to embed: check the split")
    distinct = list(dict.fromkeys(texts))
    together = _pairwise(model)
    embed = together.text_features if together else model.embed_tokens
    parts = []
    with _inference(model):
        for start in range(0, len(distinct), batch_size):
            ids = model.tokenize(distinct[start : start + batch_size])
            parts.append(embed(ids).float().cpu())
            progress("texts", start + len(ids), len(distinct))
    place = {text: n for n, text in enumerate(distinct)}
    return torch.cat(parts)[[place[text] for text in texts]]


def _embed_videos(
    model: Embedder,
    videos: Sequence[Video],
    store: FrameSource,
    batch_size: int,
    workers: int,
    on_bad_video: str,
    progress: Progress,
) -> tuple[dict[str, Tensor], tuple[FileFailure, ...]]:
    """Embeddings by video id, and what was skipped."""
    by_id: dict[str, Tensor] = {}
    skipped: list[FileFailure] = []
    batch: list[tuple[Video, Tensor]] = []
    together = _pairwise(model)
    embed = together.frame_features if together else model.embed_frames

    def embed_batch() -> None:
        pixels = torch.stack([frames for _, frames in batch])  # (n, f, 3, h, w)
        embeddings = embed(model.normalise(pixels)).float().cpu()
        by_id.update((video.id, embedding) for (video, _), embedding in zip(batch, embeddings, strict=True))
        batch.clear()

    with closing(map_ahead(videos, store.load, workers=workers, ahead=batch_size + workers)) as decoded:
        for done in decoded:
            video, frames = done.job, done.result
            if isinstance(frames, VideoError) and on_bad_video == "skip":
                skipped.append(FileFailure(path=str(frames.path), reason=frames.reason, id=video.id))
                continue
            if isinstance(frames, Exception):
                raise frames
            batch.append((video, frames))
            if len(batch) == batch_size:
                embed_batch()
                progress("videos", len(by_id) + len(skipped), len(videos))
    if batch:
        embed_batch()
    progress("videos", len(videos), len(videos))
    return by_id, tuple(skipped)


def _pairwise(model: Embedder) -> TextVideoModel | None:
    """The model, if it scores a text and a video together."""
    return model if isinstance(model, TextVideoModel) and model.pairwise else None


@contextmanager
def _inference(model: Embedder) -> Iterator[None]:
    """No gradients, evaluation mode; the mode is put back."""
    module = model if isinstance(model, nn.Module) and model.training else None
    if module is not None:
        module.eval()
    try:
        with torch.no_grad():  # not inference_mode: what a model caches must stay good for training
            yield
    finally:
        if module is not None:
            module.train()
