"""Embed a split: its videos, decoded in background threads while the model works, and its captions.

Several processes share the work by batches, which have the same rows as in one process. So the embeddings have the same
bits, if the devices are of one kind and compute with the same number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import islice
from typing import Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vop.datasets.frames import FrameSource
from vop.datasets.types import Split, Video
from vop.datasets.validation import ON_BAD_VIDEO
from vop.errors import DataError, FileFailure, VideoError, unknown_name
from vop.evaluation.metrics import RetrievalMetrics, metrics_from_embeddings, retrieval_metrics, similarity_matrix
from vop.models.model import TextVideoModel
from vop.utils.checks import check_whole
from vop.utils.fitting import FittingBatches
from vop.utils.progress import Progress, silent, stage
from vop.utils.ranks import ALONE, Ranks
from vop.utils.text import count
from vop.utils.threads import free_cores
from vop.video.ahead import map_ahead

Item = TypeVar("Item")
Rows = NDArray[np.float32]  # travel between processes


class Embedder(Protocol):
    """A model that embeds texts and videos separately and moves inputs to its own device."""

    def tokenize(self, texts: Sequence[str], /) -> Tensor:
        """Return token ids (n, length)."""

    def embed_tokens(self, ids: Tensor, /) -> Tensor:
        """Embed token ids (n, length) as (n, d)."""

    def normalise(self, frames: Tensor, /) -> Tensor:
        """Normalise uint8 frames (n, f, 3, h, w) to pixels of the same shape."""

    def embed_frames(self, pixels: Tensor, /) -> Tensor:
        """Embed pixels (n, f, 3, h, w) as (n, d)."""


@dataclass(frozen=True)
class SplitEmbeddings:
    """A split's embeddings, or a pairwise model's features; float32 on the CPU.

    Attributes:
        split: the readable part: `texts[i]` embeds `split.captions[i]`, `videos[j]` embeds `split.videos[j]`.
        texts: (texts, d).
        videos: (videos, d), or features (videos, frames, d).
        skipped: the videos that could not be read; they and their captions are not in `split`.
        pair_scores: computes a pairwise model's (texts, videos) scores from features; None if scores are dot products.
        cosines: whether the scores are cosines, as the settings of rescoring assume.
    """

    split: Split
    texts: Tensor
    videos: Tensor
    skipped: tuple[FileFailure, ...] = ()
    pair_scores: Callable[[Tensor, Tensor], Tensor] | None = None
    cosines: bool = True

    def similarity(self) -> Tensor:
        """Return (texts, videos) scores; a pairwise model's scores are computed once."""
        return self._pair_similarity if self.pair_scores else self.scores(self.texts, self.videos)

    @cached_property
    def _pair_similarity(self) -> Tensor:
        return self.scores(self.texts, self.videos)

    def scores(self, texts: Tensor, videos: Tensor) -> Tensor:
        """Return the score matrix of any texts and videos of this model; equal texts have exactly equal scores."""
        if self.pair_scores is None:
            return similarity_matrix(texts, videos)
        distinct, row = torch.unique(texts, dim=0, return_inverse=True)
        return self.pair_scores(distinct, videos)[row]

    def metrics(self, *, tie_rule: str = "pessimistic") -> RetrievalMetrics:
        """Return the metrics of both directions."""
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
    ranks: Ranks = ALONE,
) -> SplitEmbeddings:
    """Embed a split's videos, then the captions of the readable ones.

    Args:
        model: the model; its training mode is restored afterwards.
        split: videos and captions.
        store: decodes or reads frames.
        batch_size: videos per forward pass (texts: eight times as many).
        workers: videos decoded at a time; by default one per free core, which the processes of a machine divide.
        on_bad_video: `skip` leaves out an unreadable video with its captions and lists it; `fail` raises.
        progress: called after every batch; its stages are `videos` and `texts`.
        ranks: the processes that share the work. Each gets all embeddings, and a pairwise model's scores, too, are
            computed by all of them together.

    Raises:
        VideoError: with `fail`, the first unreadable video in order, of those that this process decodes.
        DataError: no video could be read.
        UsageError: a setting is not allowed.
    """
    if on_bad_video not in ON_BAD_VIDEO:
        raise unknown_name("on_bad_video", on_bad_video, ON_BAD_VIDEO)
    check_whole("batch_size", batch_size, at_least=1)
    if workers is not None:
        check_whole("workers", workers, at_least=1)
    workers = workers or max(1, free_cores() // ranks.local_size)
    with _inference(model):
        embed_videos = _embed_videos if ranks.size == 1 else partial(_share_videos, ranks)
        by_id, skipped = embed_videos(model, split.videos, store, batch_size, workers, on_bad_video, progress)
        if not by_id:
            first = f"; the first failure: {skipped[0].path}: {skipped[0].reason}" if skipped else ""
            raise DataError(
                f"none of the {count('video', len(split.videos))} of split {split.name!r} could be read{first}"
            )
        kept = split.keep(set(by_id)) if skipped else split
        texts = embed_texts(model, kept.captions, batch_size=8 * batch_size, progress=progress, ranks=ranks)
    videos = torch.stack([by_id[video.id] for video in kept.videos])
    if (pairwise := _pairwise(model)) is None:
        return SplitEmbeddings(kept, texts, videos, skipped)
    score = partial(pairwise.score, ranks=ranks)
    return SplitEmbeddings(kept, texts, videos, skipped, score, cosines=pairwise.head.scaled)


def embed_texts(
    model: Embedder,
    texts: Sequence[str],
    *,
    batch_size: int = 256,
    progress: Progress = silent,
    ranks: Ranks = ALONE,
) -> Tensor:
    """Return embeddings (n, d), float32 on the CPU. Equal texts are embedded once, so that they tie exactly."""
    if not texts:
        raise DataError("there are 0 captions to embed: check the split")
    distinct = list(dict.fromkeys(texts))
    pairwise = _pairwise(model)
    embed = pairwise.text_features if pairwise else model.embed_tokens
    fitting = FittingBatches("text")
    show = ranks.estimate(stage(progress, "texts"), len(distinct))

    def embed_batches(batches: Sequence[list[str]]) -> list[Rows]:
        parts, done, total = [], 0, sum(map(len, batches))
        for batch in batches:
            parts.append(fitting(embed, model.tokenize(batch)).float().numpy())
            show(done := done + len(batch), total)
        return parts

    with _inference(model):
        parts = ranks.share(_batches(distinct, batch_size), embed_batches)
    place = {text: n for n, text in enumerate(distinct)}
    return torch.from_numpy(np.concatenate(parts))[[place[text] for text in texts]]


def _batches(items: Sequence[Item], size: int) -> list[list[Item]]:
    return [list(items[start : start + size]) for start in range(0, len(items), size)]


def _embed_videos(
    model: Embedder,
    videos: Sequence[Video],
    store: FrameSource,
    batch_size: int,
    workers: int,
    on_bad_video: str,
    progress: Progress,
) -> tuple[dict[str, Tensor], tuple[FileFailure, ...]]:
    """Return embeddings by video id, and the skipped videos."""
    by_id: dict[str, Tensor] = {}
    skipped: list[FileFailure] = []
    batch: list[tuple[Video, Tensor]] = []
    embed = _frames_embedder(model)

    def embed_batch() -> None:
        embeddings = embed([frames for _, frames in batch])
        by_id.update((video.id, embedding) for (video, _), embedding in zip(batch, embeddings, strict=True))
        batch.clear()

    with closing(map_ahead(videos, store.load, workers=workers, ahead=batch_size + workers)) as decoded:
        for done in decoded:
            video, frames = done.job, done.result
            if isinstance(frames, VideoError) and on_bad_video == "skip":
                skipped.append(_failure(video, frames))
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


def _share_videos(
    ranks: Ranks,
    model: Embedder,
    videos: Sequence[Video],
    store: FrameSource,
    batch_size: int,
    workers: int,
    on_bad_video: str,
    progress: Progress,
) -> tuple[dict[str, Tensor], tuple[FileFailure, ...]]:
    """Like `_embed_videos`, by several processes, which embed whole batches.

    An unreadable video moves all later ones into other batches, so these are embedded again. This costs time, but no
    result depends on the number of processes.
    """
    embedded: dict[tuple[str, ...], Rows] = {}  # by the ids of a batch
    failed: dict[str, FileFailure] = {}
    embed = _frames_embedder(model)

    def embed_batches(batches: Sequence[list[Video]]) -> Iterator[Rows | list[FileFailure]]:
        """Yield the embeddings of each batch, or the videos of it that cannot be read."""
        jobs = [video for batch in batches for video in batch]
        ahead = max(map(len, batches), default=0) + workers
        show, done = ranks.estimate(stage(progress, "videos"), sum(map(len, todo))), 0
        with closing(map_ahead(jobs, store.load, workers=workers, ahead=ahead)) as decoded:
            for batch in batches:
                frames, bad = [], []
                for decoded_video in islice(decoded, len(batch)):
                    result = decoded_video.result
                    if isinstance(result, VideoError) and on_bad_video == "skip":
                        bad.append(_failure(decoded_video.job, result))
                    elif isinstance(result, Exception):
                        raise result
                    else:
                        frames.append(result)
                yield bad or embed(frames).numpy()
                show(done := done + len(batch), len(jobs))

    while True:
        readable = [video for video in videos if video.id not in failed]
        batches = _batches(readable, batch_size)
        todo = [batch for batch in batches if _ids(batch) not in embedded]
        if not todo:
            break
        for batch, result in zip(todo, ranks.share(todo, lambda part: list(embed_batches(part))), strict=True):
            if isinstance(result, list):
                failed.update((failure.id, failure) for failure in result)
            else:
                embedded[_ids(batch)] = result
    by_id = {
        video.id: torch.from_numpy(row)
        for batch in batches
        for video, row in zip(batch, embedded[_ids(batch)], strict=True)
    }
    return by_id, tuple(failed[video.id] for video in videos if video.id in failed)


def _ids(videos: Sequence[Video]) -> tuple[str, ...]:
    return tuple(video.id for video in videos)


def _failure(video: Video, error: VideoError) -> FileFailure:
    return FileFailure(path=str(error.path), reason=error.reason, id=video.id)


def _frames_embedder(model: Embedder) -> Callable[[Sequence[Tensor]], Tensor]:
    """Return a function that embeds the uint8 frames of videos, each (f, 3, h, w), on the CPU: (n, d)."""
    pairwise = _pairwise(model)
    embed = pairwise.frame_features if pairwise else model.embed_frames
    fitting = FittingBatches("video")
    return lambda frames: fitting(lambda some: embed(model.normalise(some)), torch.stack(list(frames))).float()


def _pairwise(model: Embedder) -> TextVideoModel | None:
    """Return the model if it is pairwise, else None."""
    return model if isinstance(model, TextVideoModel) and model.pairwise else None


@contextmanager
def _inference(model: Embedder) -> Iterator[None]:
    """Disable gradients and switch to evaluation mode; restore the mode afterwards."""
    module = model if isinstance(model, nn.Module) and model.training else None
    if module is not None:
        module.eval()
    try:
        with torch.no_grad():  # not inference_mode: training must be able to use what a model caches
            yield
    finally:
        if module is not None:
            module.train()
