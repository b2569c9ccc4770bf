"""Embed a split: its videos, decoded in background threads while the model works, and its captions.

A model is anything with `tokenize`, `embed_tokens`, `normalise` and `embed_frames` (`vop.models.model`), or if it is
`pairwise` with `text_features`, `frame_features` and `score` in place of the embeddings; a store is anything with
`load(video) -> uint8 (frames, 3, h, w)` that raises VideoError. The model sees to its own device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from vop.errors import DataError, UsageError, VideoError, unknown_name
from vop.evaluation.metrics import RetrievalMetrics, metrics_from_embeddings, retrieval_metrics
from vop.evaluation.ranks import similarity_matrix
from vop.evaluation.report import SkippedVideo
from vop.utils.text import count
from vop.utils.threads import free_cores
from vop.video.ahead import map_ahead

if TYPE_CHECKING:
    from vop.datasets.types import Split, Video

Progress = Callable[[str, int, int], None]
ON_BAD_VIDEO = ("skip", "fail")


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
    skipped: tuple[SkippedVideo, ...] = ()
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
        options = {"targets": self.split.targets, "tie_rule": tie_rule}
        if self.pair_scores is None:
            return metrics_from_embeddings(self.texts, self.videos, **options)
        return retrieval_metrics(self.similarity(), **options)


def embed_split(
    model: Any,
    split: Split,
    store: Any,
    *,
    batch_size: int = 32,
    workers: int | None = None,
    on_bad_video: str = "skip",
    progress: Progress | None = None,
) -> SplitEmbeddings:
    """Embeds a split's videos, then the captions of those that could be read.

    Args:
        model: embeds; its training mode is put back afterwards.
        split: videos and captions.
        store: decodes or reads frames.
        batch_size: videos per forward pass (texts: eight times as many).
        workers: videos that are decoded at a time; by default one for each core that is free.
        on_bad_video: `skip` takes an unreadable video and its captions out and lists it; `fail` raises.
        progress: called as progress(stage, done, total) after every batch; stages are `videos` and `texts`.

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
    progress = progress or (lambda stage, done, total: None)
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
    if not _pairwise(model):
        return SplitEmbeddings(kept, texts, videos, skipped)
    return SplitEmbeddings(kept, texts, videos, skipped, model.score, cosines=model.head.scaled)


def embed_texts(model: Any, texts: Sequence[str], *, batch_size: int = 256, progress: Progress | None = None) -> Tensor:
    """(n, d) float32 on the CPU. Equal texts are embedded once, so that they tie exactly."""
    if not texts:
        raise DataError("there are 0 captions to embed: check the split")
    distinct = list(dict.fromkeys(texts))
    embed = model.text_features if _pairwise(model) else model.embed_tokens
    parts = []
    with _inference(model):
        for start in range(0, len(distinct), batch_size):
            ids = model.tokenize(distinct[start : start + batch_size])
            parts.append(embed(ids).float().cpu())
            if progress:
                progress("texts", start + len(ids), len(distinct))
    place = {text: n for n, text in enumerate(distinct)}
    return torch.cat(parts)[[place[text] for text in texts]]


def _embed_videos(
    model: Any,
    videos: Sequence[Video],
    store: Any,
    batch_size: int,
    workers: int,
    on_bad_video: str,
    progress: Progress,
) -> tuple[dict[str, Tensor], tuple[SkippedVideo, ...]]:
    """Embeddings by video id, and what was skipped."""
    by_id: dict[str, Tensor] = {}
    skipped: list[SkippedVideo] = []
    batch: list[tuple[Video, Tensor]] = []
    embed = model.frame_features if _pairwise(model) else model.embed_frames

    def embed_batch() -> None:
        pixels = torch.stack([frames for _, frames in batch])  # (n, f, 3, h, w)
        embeddings = embed(model.normalise(pixels)).float().cpu()
        by_id.update((video.id, embedding) for (video, _), embedding in zip(batch, embeddings, strict=True))
        batch.clear()

    with closing(map_ahead(videos, store.load, workers=workers, ahead=batch_size + workers)) as decoded:
        for done in decoded:
            video, frames = done.job, done.result
            if isinstance(frames, VideoError) and on_bad_video == "skip":
                skipped.append(SkippedVideo(video.id, str(frames.path), frames.reason))
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


def _pairwise(model: Any) -> bool:
    return getattr(model, "pairwise", False)


@contextmanager
def _inference(model: Any) -> Iterator[None]:
    """No gradients, evaluation mode; the mode is put back."""
    was_training = getattr(model, "training", False)
    if was_training:
        model.eval()
    try:
        with torch.no_grad():  # not inference_mode: what a model caches must stay good for training
            yield
    finally:
        if was_training:
            model.train()
