"""The commands that change a library, each under the library's lock."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vop.backbones import DEFAULT_HUB_ID
from vop.errors import UsageError, VopError
from vop.search.manifest import FILE, SegmentationConfig
from vop.search.models import absolute_name, new_manifest, open_model, open_models
from vop.search.pipeline import count_workers
from vop.search.results import VideoRecord
from vop.search.store import Store
from vop.search.sync.ingest import Ingest, is_known_copy, is_same_state
from vop.search.sync.lock import library_lock
from vop.search.sync.metadata import read_metadata
from vop.search.sync.reader import content_id
from vop.search.sync.report import IndexPreview, IndexReport
from vop.search.sync.scanner import Scan, absolute_paths, is_below, missing_folders, missing_videos, scan
from vop.utils.progress import Progress, silent
from vop.video.find import FoundFile, normal_globs

if TYPE_CHECKING:
    from vop.models.model import TextVideoModel

_TIDYING = "tidying up"  # minutes, where a large library needs a new index


def index(
    folder: str | Path,
    paths: Sequence[str | Path],
    *,
    model: str | None = None,
    segmentation: SegmentationConfig | None = None,
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
    """Brings a library up to date with the videos below `paths`, and creates it if there is none.

    Args:
        folder: the library.
        paths: files and folders. Those that do not exist are skipped with a warning.
        model: a run, a folder, a hub id or mini; only when creating a library. An existing one knows its model.
        segmentation, num_frames, keep_frames, precision: only when creating a library; an existing one keeps its own.
        keep_frames: keeps the decoded frames, so that the library can move to another model without decoding.
        exclude: globs of files and folders that are not indexed, in addition to those that the library has. The library
            keeps them; see `vop.video.find`.
        live_photos: whether the movies of Live Photos are indexed; the library keeps it. None: as before.
        metadata: a CSV file; see `vop.search.sync.metadata`.
        prune: takes out videos below `paths` whose files were deleted or are excluded. `restore` can put them back for
            a while.
        yes: prunes a large share of the library too; see `IndexReport.unconfirmed`.
        redo: decodes videos below `paths` again that an earlier version of the decoder read.
        workers: threads that decode; by default as many as there are cores.
        batch_size: segments that are embedded together.
        waiting: called once if another process writes to the library, before waiting for it.
        warn: called with a warning as soon as there is one.

    Raises:
        UsageError: none of the paths exists, or the model or a setting does not exist or is not the library's.
        VopError: no space left, a model that is another one than the library's, or videos that an earlier version
            decoded, with which newer ones are not mixed. What was committed stays.
    """
    started = time.monotonic()
    workers = count_workers(workers, batch_size=batch_size)
    table = read_metadata(metadata) if metadata else None
    scanned = scan(folder, paths, exclude=exclude, live_photos=live_photos)
    for path, reason in scanned.missing.items():
        warn(f"{path!r} cannot be indexed and is skipped: {reason}")
    wanted = _Settings(model, segmentation, num_frames, keep_frames, precision)
    new_model = None if (scanned.library / FILE).exists() else _load_model(wanted)
    with library_lock(scanned.library, waiting=waiting):
        library, models = _open(scanned.library, wanted, new_model)
        _check_outdated(library, scanned, redo=redo)
        library.change(
            exclude=normal_globs([*library.manifest.exclude, *exclude]),
            live_photos=library.manifest.live_photos if live_photos is None else live_photos,
        )
        library.add_columns(table.columns if table else ())
        ingest = Ingest(library, models, scanned, table, progress)
        ingest.run(workers=workers, batch_size=batch_size)
        ingest.finish(prune=prune, yes=yes)
        progress(_TIDYING, 0, 1)
        _tidy(library)
        progress(_TIDYING, 1, 1)
    ingest.report.seconds = time.monotonic() - started
    return ingest.report


def preview(
    folder: str | Path, paths: Sequence[str | Path], *, exclude: Sequence[str] = (), live_photos: bool | None = None
) -> IndexPreview:
    """Report what `index` would do. Decodes nothing and changes nothing.

    Raises:
        UsageError: none of the paths exists, or `folder` is something else than a library.
    """
    scanned = scan(folder, paths, exclude=exclude, live_photos=live_photos)
    library = Store.open(scanned.library) if (scanned.library / FILE).exists() else None
    records = library.videos() if library else {}
    failed = {failure.path: failure for failure in library.failures()} if library else {}
    missing = missing_videos(records, scanned)
    other = [file for file in scanned.files if not _is_up_to_date(file, records)]
    new = [file for file in other if str(file.path) not in records and not is_known_copy(file, failed, records)]
    moved = _find_moved(new, [records[path] for path in (*missing.deleted, *missing.unavailable)])
    missing = missing.without(moved.values())
    return IndexPreview(
        library=str(scanned.library),
        new=[str(file.path) for file in new if file.path not in moved],
        changed=[str(file.path) for file in other if str(file.path) in records],
        moved=[(before, str(path)) for path, before in moved.items()],
        deleted=missing.deleted,
        excluded=missing.excluded,
        needs_confirmation=missing.needs_confirmation,
        unavailable=missing.unavailable,
        unavailable_folders=[str(folder) for folder in missing_folders(missing.unavailable)],
        missing=scanned.missing,
        passed_over=dict(scanned.found.skipped),
    )


def _is_up_to_date(file: FoundFile, records: Mapping[str, VideoRecord]) -> bool:
    record = records.get(str(file.path))
    return record is not None and is_same_state(record, file)


def _find_moved(new: Sequence[FoundFile], missing: Sequence[VideoRecord]) -> dict[Path, str]:
    """Where new files were before that have the content of videos whose files are missing."""
    sizes, by_video = {record.size for record in missing}, {record.video: record.path for record in missing}
    moved: dict[Path, str] = {}
    for file in new:
        if file.size in sizes:
            with suppress(OSError):  # the file cannot be read
                before = by_video.pop(content_id(file.path), None)
                if before is not None:
                    moved[file.path] = before
    return moved


def forget(
    folder: str | Path,
    paths: Sequence[str | Path],
    *,
    for_good: bool = False,
    waiting: Callable[[], None] = lambda: None,
) -> int:
    """Takes every video at or below these paths out of a library; their files are left alone.

    Args:
        for_good: without keeping them for `restore`; also deletes what was taken out of there before.

    Returns:
        the number of videos.

    Raises:
        UsageError: there is no such library, or it has no video there.
    """
    with _locked(folder, waiting) as library:
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
        the paths of the restored videos.

    Raises:
        UsageError: there is no such library, or nothing can be restored.
    """
    with _locked(folder, waiting) as library:
        kept = library.removed.videos()
        restored = library.put_back(_below(paths, kept) if paths else kept)
        if not restored:
            where = f" at or below {', '.join(map(str, paths))}" if paths else ""
            raise UsageError(
                f"{library.path} has nothing to restore{where}: no video was removed, or all are in the library again"
            )
    return restored


def change_excluded(
    folder: str | Path,
    *,
    add: Sequence[str] = (),
    drop: Sequence[str] = (),
    waiting: Callable[[], None] = lambda: None,
) -> tuple[str, ...]:
    """Changes which globs a library excludes; the next `index` applies them.

    Returns:
        the globs after the change.

    Raises:
        UsageError: there is no such library, or it has no such glob to drop.
    """
    if not add and not drop:
        return Store.open(folder).manifest.exclude
    with _locked(folder, waiting) as library:
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
def _locked(folder: str | Path, waiting: Callable[[], None]) -> Iterator[Store]:
    """An existing library, opened under its lock, with the columns that older ones lack."""
    path = Store.open(folder).path
    with library_lock(path, waiting=waiting):
        library = Store.open(path)
        library.add_columns(())
        yield library


def _below(paths: Sequence[str | Path], videos: Mapping[str, object]) -> list[str]:
    """Those of a library's videos that are at or below some paths."""
    roots = absolute_paths(paths)
    return [path for path in videos if is_below(path, roots)]


def _tidy(library: Store) -> None:
    """Deletes old versions and videos that were taken out long ago, and brings the indexes up to date."""
    with suppress(VopError):  # what was set aside is damaged; `vop library check` says so
        library.removed.drop_old()
        library.drop_frames()
    library.keep_up()


# -- opening or creating the library of an indexing


@dataclass(frozen=True)
class _Settings:
    """The settings that a caller asks for; None leaves them to the library.

    Attributes:
        model: of a new library, `DEFAULT_HUB_ID` if there is none.
    """

    model: str | None
    segmentation: SegmentationConfig | None
    num_frames: int | None
    keep_frames: bool
    precision: str


def _load_model(wanted: _Settings) -> TextVideoModel:
    """The model of a new library."""
    model = open_model(wanted.model or DEFAULT_HUB_ID, num_frames=wanted.num_frames, precision=wanted.precision)
    model.check_independent()
    return model


def _open(folder: Path, wanted: _Settings, new_model: TextVideoModel | None) -> tuple[Store, list[TextVideoModel]]:
    """The library, created if there is none, and its models.

    Raises:
        UsageError: the settings are not those of the library.
        VopError: the model is another one than the library's.
    """
    if new_model is not None and not (folder / FILE).exists():  # not created by another process meanwhile
        name = wanted.model or DEFAULT_HUB_ID
        manifest = new_manifest(new_model, name=name, segmentation=wanted.segmentation, keep_frames=wanted.keep_frames)
        return Store.create(folder, manifest), [new_model]
    library = Store.open(folder)
    had = library.manifest
    for name, value, own in (  # of other settings, segments could not be compared
        ("segments", wanted.segmentation, had.segmentation),
        ("num_frames", wanted.num_frames, had.num_frames),
        ("keep_frames", wanted.keep_frames or None, had.keep_frames),
    ):
        if value is not None and value != own:
            raise UsageError(f"{folder} has {name}: {own}; {value} needs a library of its own: choose another folder")
    models = open_models(had, folder=folder, name=wanted.model)
    if wanted.model is not None:  # where the first model is now, if it has moved
        library.rename_model(absolute_name(wanted.model))
    return library, models


def _check_outdated(library: Store, scanned: Scan, *, redo: bool) -> None:
    """Refuses to mix videos that different versions decoded."""
    outdated = {path: seconds for path, seconds in library.outdated().items() if os.path.lexists(path)}
    if not outdated or redo:
        return
    hours = sum(outdated.values()) / 3600
    command = shlex.join(["vop", "index", str(library.path), *map(str, sorted(scanned.roots)), "--redo"])
    raise VopError(
        f"{library.path}: {len(outdated)} of its videos ({hours:.1f} h) were decoded by an earlier version of vop, "
        "which read HDR, non-square pixels, transparency, joined recordings and several video tracks otherwise. New "
        f"ones are not mixed with them. Decode them again: {command}; searching works meanwhile"
    )
