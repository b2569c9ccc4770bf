"""`vop index`: adds to a library what is new, redoes what has changed, follows what has moved.

A file that is known with the same size and time of change is left alone. Another one is hashed: known content only gets
its new path or time, a second copy is listed as one, and the rest is decoded and embedded.
"""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from vop.errors import UsageError, VopError
from vop.search import manifest as describing
from vop.search.exclude import normal_globs
from vop.search.gone import is_below, missing_folders
from vop.search.indexing import Indexing, is_known_copy
from vop.search.leftovers import leftovers
from vop.search.lock import alone_in, check_place
from vop.search.manifest import FILE, SegmentationConfig
from vop.search.metadata import NOTHING, read_metadata
from vop.search.opening import Wanted
from vop.search.pipeline import count_workers
from vop.search.reading import content_id
from vop.search.report import IndexPreview, IndexReport
from vop.search.results import VideoRecord
from vop.search.scanner import FoundFile, Walk, absolute_path, find_videos
from vop.search.store import Store
from vop.utils.progress import Progress, silent

_TIDYING = "tidying up"  # minutes, where a large library needs a new index


def index(
    folder: str | Path,
    paths: Sequence[str | Path],
    *,
    model: str | None = None,
    cutting: SegmentationConfig | None = None,
    num_frames: int | None = None,
    keep_frames: bool = False,
    exclude: Sequence[str] = (),
    live_photos: bool | None = None,
    metadata: Path | None = None,
    prune: bool = False,
    yes: bool = False,
    redo: bool = False,
    precision: str = "auto",
    workers: int | None = None,
    batch_size: int = 16,
    progress: Progress = silent,
    waiting: Callable[[], None] = lambda: None,
    warn: Callable[[str], None] = lambda text: None,
) -> IndexReport:
    """Brings a library up to date with the videos below `paths`; makes it if there is none.

    Args:
        folder: the library.
        paths: files and folders. Those that do not exist are skipped with a warning.
        model: a run, a folder, a hub id or mini; a new library needs it, an existing one has its own.
        cutting, num_frames, keep_frames, precision: of a new library; an existing one has its own.
        keep_frames: keeps the decoded frames, so that the library can move to another model without decoding.
        exclude: globs of files and folders that are not indexed, in addition to those that the library has; it keeps
            them. See `vop.search.exclude`.
        live_photos: whether the movies of Live Photos are indexed; the library keeps it. None: as before.
        metadata: a CSV file; see `vop.search.metadata`.
        prune: takes out videos below `paths` whose files were deleted, or are not to be indexed any more. They can be
            put back for a while: see `restore`.
        yes: prunes a large share of the library too; see `IndexReport.unconfirmed`.
        redo: decodes videos below `paths` again that an earlier version of the decoder read.
        workers: threads that decode; by default as many as there are cores.
        batch_size: segments that are embedded together.
        waiting: called once if another process writes to the library, before waiting for it.
        warn: called with a warning as soon as there is one.

    Raises:
        UsageError: none of the paths is there, or the model or a setting is not there or not what the library has.
        VopError: no space left, a model that is another one than the library's, or videos that an earlier version
            decoded, with which newer ones are not mixed. What was committed stays.
    """
    started = time.monotonic()
    threads = count_workers(workers, batch_size=batch_size)
    described = read_metadata(metadata) if metadata else NOTHING
    scope = _look_through(folder, paths, exclude, live_photos)
    scope.warn(warn)
    wanted = Wanted(model=model, cutting=cutting, num_frames=num_frames, keep_frames=keep_frames, precision=precision)
    new = wanted.new_model(scope.folder)
    with alone_in(scope.folder, waiting=waiting):
        library, models = wanted.open(scope.folder, new)
        _check_outdated(library, scope, redo=redo)
        library.change(
            exclude=normal_globs([*library.manifest.exclude, *exclude]),
            live_photos=library.manifest.live_photos if live_photos is None else live_photos,
        )
        library.add_columns(described.columns)
        indexing = Indexing(library, models, scope.walk, described, progress)
        indexing.work(workers=threads, batch_size=batch_size)
        indexing.settle(scope.roots, prune=prune, yes=yes)
        progress(_TIDYING, 0, 1)
        _tidy(library)
        progress(_TIDYING, 1, 1)
    indexing.report.seconds = time.monotonic() - started
    return indexing.report


def preview(
    folder: str | Path, paths: Sequence[str | Path], *, exclude: Sequence[str] = (), live_photos: bool | None = None
) -> IndexPreview:
    """What `index` would find; nothing is decoded, and nothing is changed.

    Raises:
        UsageError: none of the paths is there, or `folder` is something else than a library.
    """
    scope = _look_through(folder, paths, exclude, live_photos)
    library = Store.open(scope.folder) if (scope.folder / FILE).exists() else None
    known = library.videos() if library else {}
    failed = {failure.path: failure for failure in library.failures()} if library else {}
    left = leftovers(known, scope.walk, scope.roots)
    other = [file for file in scope.walk.files if not _is_unchanged(file, known)]
    new = [file for file in other if str(file.path) not in known and not is_known_copy(file, failed, known)]
    moved = _moved(new, [known[path] for path in (*left.deleted, *left.unavailable)])
    left = left.without(moved.values())
    return IndexPreview(
        library=str(scope.folder),
        new=[str(file.path) for file in new if file.path not in moved],
        changed=[str(file.path) for file in other if str(file.path) in known],
        moved=[(before, str(path)) for path, before in moved.items()],
        deleted=left.deleted,
        excluded=left.excluded,
        needs_yes=left.needs_yes,
        away=left.unavailable,
        unavailable=[str(folder) for folder in missing_folders(left.unavailable)],
        missing=scope.missing,
        passed_over=dict(scope.walk.passed_over),
    )


def forget(
    folder: str | Path,
    paths: Sequence[str | Path],
    *,
    for_good: bool = False,
    waiting: Callable[[], None] = lambda: None,
) -> int:
    """Takes out of a library every video at or below these paths, and says how many; their files are left alone.

    Args:
        for_good: without keeping them for `restore`; also deletes what was taken out of there before.

    Raises:
        UsageError: there is no such library, or it has no video there.
    """
    with _writing(folder, waiting) as library:
        found = _below(paths, library.videos())
        kept = _below(paths, library.removed.videos()) if for_good else []
        if not found and not kept:
            raise UsageError(f"{library.path} has no video at or below {', '.join(map(str, paths))}")
        if for_good:
            library.remove(found)
            library.removed.drop(kept)
        else:
            library.set_aside(found)
        _tidy(library)
    return len({*found, *kept})


def restore(
    folder: str | Path, paths: Sequence[str | Path] = (), *, waiting: Callable[[], None] = lambda: None
) -> list[str]:
    """Puts back videos that `prune` or `forget` took out of a library, all or those at or below `paths`.

    Videos that were indexed again since are left as they are.

    Returns:
        the paths of the videos that were put back.

    Raises:
        UsageError: there is no such library, or nothing that can be put back.
    """
    with _writing(folder, waiting) as library:
        kept = library.removed.videos()
        restored = library.put_back(_below(paths, kept) if paths else kept)
        if not restored:
            where = f" at or below {', '.join(map(str, paths))}" if paths else ""
            raise UsageError(f"{library.path} has nothing to put back{where}: no video was taken out, or all are back")
    return restored


def change_excluded(
    folder: str | Path,
    *,
    add: Sequence[str] = (),
    drop: Sequence[str] = (),
    waiting: Callable[[], None] = lambda: None,
) -> tuple[str, ...]:
    """Changes which globs a library excludes, and gives those that it has then; the next indexing goes by them.

    Raises:
        UsageError: there is no such library, or it has no such glob to drop.
    """
    library = Store.open(folder)
    if not add and not drop:
        return library.manifest.exclude
    with _writing(folder, waiting) as library:
        had, unwanted = library.manifest.exclude, normal_globs(drop)
        for glob in unwanted:
            if glob not in had:
                raise UsageError(
                    f"{library.path} does not exclude {glob!r}; it excludes: {', '.join(had) or 'nothing'}"
                )
        globs = normal_globs([*(glob for glob in had if glob not in unwanted), *add])
        library.change(exclude=globs)
    return globs


@contextmanager
def _writing(folder: str | Path, waiting: Callable[[], None]) -> Iterator[Store]:
    """An existing library, opened when nobody else writes to it any more, with the columns that older ones lack."""
    path = Store.open(folder).path
    with alone_in(path, waiting=waiting):
        library = Store.open(path)
        library.add_columns(())
        yield library


@dataclass(frozen=True, kw_only=True)
class _Scope:
    """Which files an indexing goes through, and by which rules."""

    folder: Path
    roots: frozenset[Path]
    exclude: tuple[str, ...]
    live_photos: bool
    walk: Walk

    @property
    def missing(self) -> dict[str, str]:
        return {str(path): reason for path, reason in self.walk.missing}

    def warn(self, warn: Callable[[str], None]) -> None:
        for path, reason in self.missing.items():
            warn(f"{path!r} cannot be indexed and is skipped: {reason}")


def _look_through(
    folder: str | Path, paths: Sequence[str | Path], exclude: Sequence[str], live_photos: bool | None
) -> _Scope:
    folder = absolute_path(Path(folder).expanduser())
    check_place(folder)
    about = describing.read(folder) if (folder / FILE).exists() else None
    globs = normal_globs([*(about.exclude if about else ()), *exclude])
    live_photos = bool(about and about.live_photos) if live_photos is None else live_photos
    roots = frozenset(absolute_path(Path(path).expanduser()) for path in paths)
    walk = find_videos(sorted(roots), skip=folder, exclude=globs, live_photos=live_photos)
    return _Scope(folder=folder, roots=roots, exclude=globs, live_photos=live_photos, walk=walk)


def _check_outdated(library: Store, scope: _Scope, *, redo: bool) -> None:
    """Refuses to mix videos that different versions decoded."""
    outdated = {path: seconds for path, seconds in library.outdated().items() if os.path.lexists(path)}
    if not outdated or redo:
        return
    hours = sum(outdated.values()) / 3600
    command = shlex.join(["vop", "index", str(scope.folder), *map(str, sorted(scope.roots)), "--redo"])
    raise VopError(
        f"{scope.folder}: {len(outdated)} of its videos ({hours:.1f} h) were decoded by an earlier version of vop, "
        "which read HDR, non-square pixels, transparency, joined recordings and several video tracks otherwise. New "
        f"ones are not mixed with them. Decode them again: {command}; searching works meanwhile"
    )


def _tidy(library: Store) -> None:
    with suppress(VopError):  # what was set aside is damaged; `vop library check` says so
        library.removed.drop_old()
        library.drop_frames()
    library.keep_up()


def _below(paths: Sequence[str | Path], videos: Mapping[str, object]) -> list[str]:
    """Those of a library's videos that are at or below some paths."""
    roots = frozenset(absolute_path(Path(path).expanduser()) for path in paths)
    return [path for path in videos if is_below(path, roots)]


def _is_unchanged(file: FoundFile, known: Mapping[str, VideoRecord]) -> bool:
    video = known.get(str(file.path))
    return video is not None and (video.size, video.mtime_ns) == (file.size, file.mtime_ns)


def _moved(new: Sequence[FoundFile], missing: Sequence[VideoRecord]) -> dict[Path, str]:
    """Where new files were before that have the content of videos whose files are missing."""
    sizes, by_video = {video.size for video in missing}, {video.video: video.path for video in missing}
    found: dict[Path, str] = {}
    for file in new:
        before = by_video.pop(_content_id(file.path), None) if file.size in sizes else None
        if before is not None:
            found[file.path] = before
    return found


def _content_id(path: Path) -> str | None:
    try:
        return content_id(path)
    except OSError:
        return None
