"""`vop.evaluate_moments`: how well a search finds moments whose times are known."""

from __future__ import annotations

import logging
import os
import platform
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from vop.backbones import DEFAULT_HUB_ID
from vop.backbones.embedding_config import EmbeddingConfig, TokenMerging
from vop.datasets.moments import MomentQuery, MomentSplit, load_moments
from vop.errors import DataError, FileFailure, UsageError
from vop.evaluation.moments import EmbeddedClips, Ends, Floats, MomentRecall, moment_recall
from vop.search.failures import Failure
from vop.search.library import Library
from vop.search.manifest import FILE, SegmentationConfig
from vop.search.refining import FrameScores, refined
from vop.search.schema import matrix
from vop.search.sharding.commands import index_part, publish
from vop.search.store import Store
from vop.utils.progress import Progress, silent
from vop.utils.ranks import ALONE, Ranks, join
from vop.utils.text import count
from vop.utils.threads import free_cores
from vop.utils.watch import watched

T = TypeVar("T")
_log = logging.getLogger(__name__)
_COLUMNS = ("path", "place", "start_seconds", "end_seconds")


@dataclass(frozen=True, kw_only=True)
class MomentReport:
    """The result of `evaluate_moments`.

    Attributes:
        data: the SPEC, and the split.
        segmentation: how videos are divided into segments, which are the clips that a search can find.
        queries, videos, segments: the numbers of sentences, of videos that could be read, and of their segments.
        seconds: mean duration of a segment.
        refined: whether the ends of the moments are refined by their frames (`vop.search.refining`).
        merge_tokens, dimensions: the fraction of patches that are merged, and the number of dimensions of embeddings;
            None if the model embeds as usual.
        skipped: videos that could not be read. Their sentences are left out.
        one_video: recall if the video is known.
        all_videos: recall among the segments of all videos.
    """

    model: str
    method: str
    data: str
    split: str
    segmentation: SegmentationConfig
    num_frames: int
    precision: str
    queries: int
    videos: int
    segments: int
    seconds: float
    refined: bool
    skipped: tuple[FileFailure, ...]
    one_video: MomentRecall
    all_videos: MomentRecall
    merge_tokens: float | None = None
    dimensions: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document of `vop evaluate --moments`: `merge_tokens` and `dimensions` only if set."""
        unset = [name for name in ("merge_tokens", "dimensions") if getattr(self, name) is None]
        return {name: value for name, value in asdict(self).items() if name not in unset}


def evaluate_moments(
    data: MomentSplit | str | Path,
    *,
    model: str = DEFAULT_HUB_ID,
    split: str | None = None,
    videos: str | Path | None = None,
    segmentation: SegmentationConfig | None = None,
    num_frames: int | None = None,
    refine: bool | None = None,
    precision: str = "auto",
    merge_tokens: float | TokenMerging | None = None,
    dimensions: int | None = None,
    compile: bool = False,
    library: str | Path | None = None,
    workers: int | None = None,
    batch_size: int = 16,
    shared: bool = False,
    progress: Progress = silent,
) -> MomentReport:
    """Index long videos, search for every sentence, and compare the segments that are found with the right times.

    Args:
        data: a SPEC with times (`charades-sta:DIR`, `moments.csv`; see `vop.datasets.moments`), or a `MomentSplit`.
        model: as for `Library.create`.
        split: "test", "val" or "train"; by default the first that exists.
        videos: the folder of the videos, if it is not that of the annotations.
        segmentation: how videos are divided into segments; by default as in a library.
        refine: whether to keep the embeddings of frames, and to refine the ends of the moments. By default as a kept
            library can, and for a new one no.
        merge_tokens, dimensions: as for `Library.create`; by default as in a kept library, and off for a new one.
        compile: as for `Library.index`.
        library: the folder of a library to keep, or one that an earlier evaluation made. It may hold other videos,
            which do not count. By default the library is temporary.
        workers, batch_size: as for `Library.index`.
        shared: share the indexing among the processes that `torchrun` or `accelerate launch` started. Each of them
            makes this call and gets the same report. Needs `pip install 'vop[shards]'` and, on several machines, a
            `library` in a folder of all.

    Raises:
        UsageError: a name or a value is not allowed, or the library was made otherwise.
        DataError: the data cannot be read, or none of the videos.
        VopError: another process has failed.
    """
    with watched(when=shared), ExitStack() as stack:
        ranks = join() if shared else ALONE
        share = partial(_share, ranks, compile=compile, workers=workers, batch_size=batch_size, progress=progress)
        if not ranks.is_first:
            share(None)
            return _from_first(ranks, None)
        name = "" if isinstance(data, MomentSplit) else str(data)
        moments = data if isinstance(data, MomentSplit) else load_moments(str(data), split=split, videos=videos)
        moments = _one_per_file(moments)
        paths = {os.path.realpath(video.path): place for place, video in enumerate(moments.videos)}
        missing = {path for path in paths if not os.path.exists(path)}
        existing = [path for path in paths if path not in missing]
        if not existing:
            raise DataError(
                f"none of the videos of {name or moments} exists, for example {next(iter(paths))}: give their folder "
                "as videos (--videos)"
            )
        if library is None:
            library = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vop-moments-"))) / "library"
        embedding = EmbeddingConfig.of(merge_tokens=merge_tokens, dimensions=dimensions)
        opened = _library(Path(library), model, segmentation, num_frames, precision, refine, embedding)
        if ranks.size > 1:
            failures = share((Path(library).absolute(), existing))
        else:
            failures = opened.index(
                existing, compile=compile, workers=workers, batch_size=batch_size, progress=progress
            ).failures
        skipped = (
            *(FileFailure(path=path, reason="the file does not exist", kind="missing") for path in sorted(missing)),
            *(failure for failure in failures if failure.path in paths and failure.path not in missing),
        )
        is_refined = opened.models[0].frame_column is not None and refine is not False
        return _from_first(ranks, _report(opened, moments, name, paths, is_refined=is_refined, skipped=skipped))


def _one_per_file(moments: MomentSplit) -> MomentSplit:
    """Return the split with one video for each file: a table may name a file in several ways, a library has it once."""
    places: dict[str, int] = {}
    merged = [places.setdefault(os.path.realpath(video.path), len(places)) for video in moments.videos]
    first = dict(zip(reversed(merged), reversed(moments.videos), strict=True))
    queries = [replace(query, video=merged[query.video]) for query in moments.queries]
    return replace(moments, videos=tuple(first[place] for place in places.values()), queries=tuple(queries))


def _from_first(ranks: Ranks, value: T | None) -> T:
    """Return the value of the first rank."""
    found = ranks.gather(value)[0]
    assert found is not None, "the first rank has no value"
    return found


def _share(
    ranks: Ranks,
    work: tuple[Path, list[str]] | None,
    *,
    compile: bool,
    workers: int | None,
    batch_size: int,
    progress: Progress,
) -> list[Failure]:
    """Index videos into a library with all ranks, and return the library's failures.

    Args:
        work: the library and the paths, which the first rank tells the others.
    """
    library, paths = _from_first(ranks, work)
    if not (library / FILE).exists():
        raise UsageError(
            f"{library} does not exist on {platform.node()}; give a library in a folder that all machines share"
        )
    index_part(
        library,
        paths,
        part=ranks.rank + 1,
        parts=ranks.size,
        compile=compile,
        workers=workers or max(1, free_cores() // ranks.local_size),
        batch_size=batch_size,
        progress=progress,
        warn=_log.warning if ranks.is_first else lambda text: None,
    )
    ranks.gather(None)  # all parts are written
    if ranks.is_first:
        publish(library, progress=progress)
    return Store.open(library).failures()


def _report(
    library: Library,
    moments: MomentSplit,
    name: str,
    paths: Mapping[str, int],
    *,
    is_refined: bool,
    skipped: tuple[FileFailure, ...],
) -> MomentReport:
    """Search for every sentence, and compare. `paths` are those of the videos, with their indices."""
    clips, ends = _clips(library, paths, refine=is_refined)
    manifest, used = library.manifest, library.manifest.models[0].embedding
    readable = set(clips.videos.tolist())
    queries = [query for query in moments.queries if query.video in readable]
    if not queries:
        raise DataError(f"none of the videos of {name or moments} can be read")
    _warn_beyond(queries, moments, clips)
    texts = library.model().encode_text([query.sentence for query in queries]).numpy()
    one_video, all_videos = moment_recall(texts, clips, queries, ends=ends)
    return MomentReport(
        model=manifest.models[0].name,
        method=manifest.models[0].method,
        data=name,
        split=moments.name,
        segmentation=manifest.segmentation,
        num_frames=manifest.num_frames,
        precision=manifest.models[0].precision,
        queries=len(queries),
        videos=len(readable),
        segments=len(clips.videos),
        seconds=float(np.mean(clips.ends - clips.starts)),
        refined=is_refined,
        skipped=skipped,
        one_video=one_video,
        all_videos=all_videos,
        merge_tokens=None if used.merge_tokens is None else used.merge_tokens.ratio,
        dimensions=used.dimensions,
    )


def _warn_beyond(queries: Sequence[MomentQuery], moments: MomentSplit, clips: EmbeddedClips) -> None:
    """Warn of sentences that no search can find, because they begin after the end of their video."""
    ends = np.zeros(len(moments.videos))
    np.maximum.at(ends, clips.videos, clips.ends)
    beyond = [query for query in queries if min(clip.start_seconds for clip in query.clips) >= ends[query.video]]
    if beyond:
        first = beyond[0]
        _log.warning(
            "%s of %s after the end of the video, such as %r at %g s, in %s of %.1f s: give the times in seconds",
            f"{len(beyond):,}",
            f"{count('sentence', len(queries))} {'begins' if len(beyond) == 1 else 'begin'}",
            first.sentence,
            first.clips[0].start_seconds,
            moments.videos[first.video].path,
            ends[first.video],
        )


def _library(
    folder: Path,
    model: str,
    segmentation: SegmentationConfig | None,
    num_frames: int | None,
    precision: str,
    refine: bool | None,
    embedding: EmbeddingConfig,
) -> Library:
    """Create the library, or open the one that an earlier evaluation made with the same settings."""
    if not (folder / FILE).exists():
        created = Library.create(
            folder,
            model=model,
            segmentation=segmentation,
            num_frames=num_frames,
            refine=bool(refine),
            merge_tokens=embedding.merge_tokens or 0.0,
            dimensions=embedding.dimensions,
            precision=precision,
        )
        if refine and created.models[0].frame_column is None:
            shutil.rmtree(folder)  # it is new and empty, and would be in the way of another attempt
            raise UsageError(
                f"{model} does not average the embeddings of frames, so they cannot refine: leave out refine"
            )
        return created
    library = Library.open(folder, precision=None if precision == "auto" else precision)
    kept = library.manifest
    if kept.models[0].name != model:
        raise UsageError(f"{folder} was made with {kept.models[0].name}, not with {model}: choose another --library")
    if segmentation not in (None, kept.segmentation):
        raise UsageError(f"{folder} has {kept.segmentation}, not {segmentation}: choose another --library")
    if num_frames not in (None, kept.num_frames):
        raise UsageError(
            f"{folder} has {kept.num_frames} frames per segment, not {num_frames}: choose another --library"
        )
    own = kept.models[0].embedding.merge_tokens or TokenMerging(0.0)
    if embedding.merge_tokens not in (None, own):
        raise UsageError(f"{folder} has merge_tokens {own}, not {embedding.merge_tokens}: choose another --library")
    if embedding.dimensions not in (None, kept.models[0].embed_dim):
        raise UsageError(
            f"{folder} has {kept.models[0].embed_dim} dimensions, not {embedding.dimensions}: choose another --library"
        )
    if refine and kept.models[0].frame_column is None:
        raise UsageError(f"{folder} keeps no embeddings of frames: leave out refine, or choose another --library")
    return library


def _clips(library: Library, paths: Mapping[str, int], *, refine: bool) -> tuple[EmbeddedClips, Ends | None]:
    """Return the segments of some videos, given by path and index, and their refined ends."""
    column, frames = library.models[0].column, library.models[0].frame_column
    columns = [*_COLUMNS, column, *([frames] if refine and frames else [])]
    rows = (
        Store.open(library.path)
        .table.search()
        .select(columns)
        .to_arrow()
        .sort_by([("path", "ascending"), ("place", "ascending")])
    )
    places = np.array([paths.get(os.path.realpath(path), -1) for path in rows.column("path").to_pylist()], np.int64)
    kept = places >= 0
    clips = EmbeddedClips(
        embeddings=matrix(rows.column(column))[kept],
        videos=places[kept],
        starts=rows.column("start_seconds").to_numpy()[kept],
        ends=rows.column("end_seconds").to_numpy()[kept],
    )
    if not refine or frames is None:
        return clips, None
    values = [value for value, is_kept in zip(rows.column(frames).to_pylist(), kept, strict=True) if is_kept]
    return clips, partial(_refined, values, clips)


def _refined(
    values: Sequence[bytes], clips: EmbeddedClips, query: Floats, places: NDArray[np.int64]
) -> tuple[Floats, Floats]:
    """Return the refined starts and ends of the clips of one video, in their order in the video."""
    segments = [
        FrameScores.of(values[place], query, start=float(clips.starts[place]), end=float(clips.ends[place]))
        for place in places
    ]
    neighbours = zip(segments, [None, *segments[:-1]], [*segments[1:], None], strict=True)
    starts, ends = np.array([refined(*three) for three in neighbours]).T
    return starts, ends
