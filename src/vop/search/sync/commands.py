"""The commands that change a library, each under the library's lock."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

from vop.backbones import DEFAULT_HUB_ID
from vop.backbones.embedding_config import AS_USUAL, EmbeddingConfig, TokenMerging
from vop.errors import UsageError, VopError
from vop.search import folders
from vop.search.folders import LibraryFolder
from vop.search.lease import check_held
from vop.search.manifest import VECTORS, SegmentationConfig, exists
from vop.search.models import KeptModels, absolute_name, new_manifest, open_model
from vop.search.pipeline import count_workers
from vop.search.results import VideoRecord
from vop.search.store import Store
from vop.search.sync import comparing, hard_links
from vop.search.sync.calibrating import calibrate
from vop.search.sync.ingest import Ingest, is_known
from vop.search.sync.lock import library_lock
from vop.search.sync.metadata import read_metadata
from vop.search.sync.reader import content_id
from vop.search.sync.report import IndexPreview, IndexReport
from vop.search.sync.scanner import Scan, absolute_paths, is_below, missing_folders, missing_videos, scan
from vop.search.words.choices import read_choices, write_choices
from vop.search.words.reading import read_words
from vop.storage import small_files
from vop.storage.address import Address, Location, is_address
from vop.utils.progress import Progress, silent
from vop.video.find import FoundFile, normal_globs
from vop.video.isolated import DecodingProcesses

if TYPE_CHECKING:
    from vop.models.model import TextVideoModel

_WARNINGS = 20  # of paths that do not exist; a table may have thousands
_TIDYING = "tidying up"  # takes minutes if a large library needs a new index


def _say_nothing(*_: str) -> None:
    pass


def index(
    folder: str | Path | Address,
    paths: Sequence[str | Path | Address],
    *,
    model: str | None = None,
    segmentation: SegmentationConfig | None = None,
    num_frames: int | None = None,
    keep_frames: bool = False,
    refine: bool = False,
    embedding: EmbeddingConfig = AS_USUAL,
    exclude: Sequence[str] = (),
    live_photos: bool | None = None,
    metadata: Path | None = None,
    prune: bool = False,
    yes: bool = False,
    redo: bool = False,
    precision: str = "auto",
    compile: bool = False,
    remember: bool = True,
    settled: Callable[[Path], bool] | None = None,
    stopped: Callable[[], bool] | None = None,
    kept: KeptModels | None = None,
    workers: int | None = None,
    batch_size: int = 16,
    progress: Progress = silent,
    waiting: Callable[[], None] = lambda: None,
    subtitles: bool | None = None,
    speech: str | None = None,
    warn: Callable[[str], None] = lambda text: None,
) -> IndexReport:
    """Bring a library up to date with the videos below `paths`, and create it if it does not exist.

    Args:
        folder: the library's folder.
        paths: files and folders, addresses of objects and prefixes (`s3://bucket/holidays`), or tables of them; see
            `vop.search.sync.tables`. Those that do not exist are skipped with a warning.
        model: a run, a folder, a hub id or mini. An existing library keeps its model.
        segmentation, num_frames, keep_frames, refine, embedding, precision: for a new library. An existing one keeps
            its own.
        embedding: how the model embeds segments and queries.
        keep_frames: whether to keep the decoded frames, so that re-embedding does not decode again.
        refine: whether to keep the embeddings of frames, so that a search can refine the ends of moments.
        exclude: globs of files and folders to exclude, in addition to the library's globs. The library keeps them; see
            `vop.video.find`.
        live_photos: whether to index the movies of Live Photos. The library keeps the choice; None does not change it.
        metadata: a CSV file; see `vop.search.sync.metadata`.
        prune: whether to remove videos below `paths` whose files were deleted or are excluded. `restore` can restore
            them for `KEPT_DAYS` days.
        yes: whether to prune even a large share of the library; see `IndexReport.unconfirmed`.
        redo: whether to decode videos below `paths` again that an earlier version of the decoder read.
        compile: whether to compile the layers of the model, as for `vop.load`. The library does not keep this.
        remember: whether the library remembers the paths that exist (`vop.search.folders`).
        settled: returns whether a file is complete. Other files, which are still being written, are left out.
        stopped: returns whether to stop. The files that are being read are finished, no others are begun, and nothing
            is pruned.
        kept: keeps the models open for the next call.
        workers: decoding threads; by default one per free core.
        batch_size: segments per forward pass.
        subtitles: whether to read subtitles. The library keeps the choice; None does not change it.
        speech: the model that recognizes speech, or "none"; see `vop.search.words.speech`. The library keeps it.
        waiting: called once if another process writes to the library, before waiting for it.
        warn: called with a warning as soon as there is one.

    Raises:
        UsageError: none of the paths exists, or the model or a setting is unknown or differs from the library's.
        VopError: no space is left, the weights of the model differ from those of the library's, or an earlier version
            decoded some of the videos, which cannot be mixed with new ones. Committed videos stay.
    """
    started = time.monotonic()
    workers = count_workers(workers, batch_size=batch_size)
    with opened(
        folder,
        paths,
        model=model,
        segmentation=segmentation,
        num_frames=num_frames,
        keep_frames=keep_frames,
        refine=refine,
        embedding=embedding,
        exclude=exclude,
        live_photos=live_photos,
        metadata=metadata,
        redo=redo,
        precision=precision,
        compile=compile,
        remember=remember,
        settled=settled,
        kept=kept,
        progress=progress,
        subtitles=subtitles,
        speech=speech,
        waiting=waiting,
        warn=warn,
    ) as ingest:
        with DecodingProcesses() as processes:
            ingest.run(workers=workers, batch_size=batch_size, processes=processes, stopped=stopped)
            if not ingest.was_stopped:
                read_new_words(ingest, processes, workers=workers, progress=progress)
        if not ingest.was_stopped:
            finish(ingest, prune=prune, yes=yes, progress=progress)
    ingest.report.seconds = time.monotonic() - started
    return ingest.report


class IndexSettings(TypedDict, total=False):
    """Keyword arguments of `index` that do not say how the work is done."""

    model: str | None
    segmentation: SegmentationConfig | None
    num_frames: int | None
    keep_frames: bool
    refine: bool
    embedding: EmbeddingConfig
    exclude: Sequence[str]
    live_photos: bool | None
    metadata: Path | None
    redo: bool
    precision: str
    compile: bool
    remember: bool
    settled: Callable[[Path], bool] | None
    kept: KeptModels | None
    subtitles: bool | None
    speech: str | None
    progress: Progress
    waiting: Callable[[], None]
    warn: Callable[[str], None]


@contextmanager
def opened(
    folder: str | Path | Address,
    paths: Sequence[str | Path | Address],
    *,
    load_models: bool = True,
    **settings: Unpack[IndexSettings],
) -> Iterator[Ingest]:
    """Open or create a library under its lock, and find the files to index.

    Args:
        load_models: whether to load the models of an existing library. A new model is loaded in any case.
        settings: see `index`.

    Raises the same errors as `index`.
    """
    exclude, live_photos = settings.get("exclude", ()), settings.get("live_photos")
    metadata, warn = settings.get("metadata"), settings.get("warn", _say_nothing)
    table = read_metadata(metadata) if metadata else None
    scanned = scan(folder, paths, exclude=exclude, live_photos=live_photos)
    for path, reason in list(scanned.missing.items())[:_WARNINGS]:
        warn(f"{path!r} cannot be indexed and is skipped: {reason}")
    if len(scanned.missing) > _WARNINGS:
        warn(f"{len(scanned.missing) - _WARNINGS:,} more paths cannot be indexed and are skipped")
    wanted = _Settings(
        model=settings.get("model"),
        segmentation=settings.get("segmentation"),
        num_frames=settings.get("num_frames"),
        keep_frames=settings.get("keep_frames", False),
        refine=settings.get("refine", False),
        embedding=settings.get("embedding", AS_USUAL),
        precision=settings.get("precision", "auto"),
        compile=settings.get("compile", False),
    )
    settled, kept = settings.get("settled"), settings.get("kept") or KeptModels()
    if settled is not None:
        scanned = scanned.only(settled)
    new_model = None if exists(scanned.library) else _load_model(wanted)
    with library_lock(scanned.library, waiting=settings.get("waiting", _say_nothing)):
        library, models = _open(scanned.library, wanted, new_model, kept, load_models=load_models)
        if wanted.refine and library.models[0].frame_column is None:
            warn(
                f"{library.models[0].name} does not average the embeddings of frames, so searches return whole "
                "segments, without refined ends"
            )
        _check_outdated(library, scanned, redo=settings.get("redo", False))
        library.change(
            exclude=normal_globs([*library.manifest.exclude, *exclude]),
            live_photos=library.manifest.live_photos if live_photos is None else live_photos,
        )
        library.add_columns(table.columns if table else ())
        if settings.get("remember", True):
            found = [root for root in scanned.given if str(root) not in scanned.missing]
            folders.remember(library.path, found, exclude=library.manifest.exclude)
        choose_words(library.path, subtitles=settings.get("subtitles"), speech=settings.get("speech"))
        yield Ingest(library, models, scanned, table, settings.get("progress", silent))


def read_new_words(ingest: Ingest, processes: DecodingProcesses, *, workers: int, progress: Progress) -> None:
    """Read the subtitles and the speech of the videos that a scan has found, where the library lacks them."""
    library, scanned = ingest.library, ingest.scanned
    check_held(library.path)
    ingest.report.words = read_words(
        library.words,
        library.words_videos([str(file.path) for file in scanned.files]),
        roots=scanned.roots,
        choices=read_choices(library.path),
        processes=processes,
        workers=workers,
        progress=progress,
    )


def choose_words(library: Location, *, subtitles: bool | None, speech: str | None) -> None:
    """Keep which words a library indexes. A folder of a model is kept by its absolute path."""
    if speech is not None and os.path.isdir(os.path.expanduser(speech)):
        speech = os.path.abspath(os.path.expanduser(speech))
    write_choices(read_choices(library).changed(subtitles=subtitles, speech=speech), library)


def finish(
    ingest: Ingest, *, prune: bool, yes: bool, progress: Progress, before_tidying: Callable[[], None] = lambda: None
) -> None:
    """Remove or count the videos that were not found, complete the report, tidy the library up, and calibrate it."""
    ingest.finish(prune=prune, yes=yes)
    comparing.update(ingest.library, progress)
    before_tidying()
    progress(_TIDYING, 0, 1)
    ingest.library.follow_files()
    tidy(ingest.library)
    calibrate(ingest.library, ingest.models)
    progress(_TIDYING, 1, 1)


def preview(
    folder: str | Path | Address,
    paths: Sequence[str | Path | Address],
    *,
    exclude: Sequence[str] = (),
    live_photos: bool | None = None,
) -> IndexPreview:
    """Report what `index` would do. Decodes nothing and changes nothing.

    Raises:
        UsageError: none of the paths exists, or `folder` exists and is not a library.
    """
    scanned = scan(folder, paths, exclude=exclude, live_photos=live_photos)
    library = Store.open(scanned.library) if exists(scanned.library) else None
    records = library.videos() if library else {}
    failed = {failure.path: failure for failure in library.failures()} if library else {}
    missing = missing_videos(records, scanned)
    is_known_file = partial(is_known, failed=failed, records=records)
    links = set(hard_links.other_names(scanned.files, is_known=is_known_file))
    other = [file for file in scanned.files if file not in links and not is_known_file(file)]
    new = [file for file in other if str(file.path) not in records]
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


def _find_moved(new: Sequence[FoundFile], missing: Sequence[VideoRecord]) -> dict[Location, str]:
    """Return the previous paths of moved files: new ones with the content of a video whose file is missing.

    Objects are not read for this.
    """
    sizes, by_video = {record.size for record in missing}, {record.video: record.path for record in missing}
    moved: dict[Location, str] = {}
    for file in new:
        if file.size in sizes and isinstance(file.path, Path):
            with suppress(OSError):  # the file cannot be read
                before = by_video.pop(content_id(file.path), None)
                if before is not None:
                    moved[file.path] = before
    return moved


def forget(
    folder: str | Path | Address,
    paths: Sequence[str | Path | Address],
    *,
    for_good: bool = False,
    tags: bool = False,
    waiting: Callable[[], None] = lambda: None,
) -> int:
    """Remove every video at or below these paths from a library; their files stay on the disk.

    The library does not remember folders at or below these paths any more.

    Args:
        for_good: whether to delete them permanently, together with videos there that were removed before.
        tags: whether to delete their tags and favourites, too, which otherwise wait until the videos are indexed again.

    Returns:
        the number of videos.

    Raises:
        UsageError: the library does not exist, or has no video there; or `tags` is set without `for_good`.
    """
    if tags and not for_good:
        raise UsageError("tags are deleted only with for_good: a video that can be restored keeps its tags")
    with locked(folder, waiting) as library:
        records = library.videos()
        found = _below(paths, records)
        kept = _below(paths, library.removed.videos()) if for_good else []
        if not found and not kept:
            raise UsageError(f"{library.path} has no video at or below {', '.join(map(str, paths))}")
        # First, because a killed call can be repeated only while the folder has videos.
        folders.drop_below(library.path, absolute_paths(paths))
        if tags:
            removed = library.removed.videos()
            videos = {*(records[path].video for path in found), *(removed[path] for path in kept)}
            library.change_marks(lambda marks: marks.without(videos))
        if for_good:
            library.remove(found)
            library.removed.drop(kept)
        else:
            library.move_to_removed(found)
        tidy(library)
    return len({*found, *kept})


def restore(
    folder: str | Path | Address,
    paths: Sequence[str | Path | Address] = (),
    *,
    waiting: Callable[[], None] = lambda: None,
) -> list[str]:
    """Restore videos that `prune` or `forget` removed from a library, all or those at or below `paths`.

    Videos that were indexed again since are skipped.

    Returns:
        the paths of the restored videos.

    Raises:
        UsageError: the library does not exist, or nothing can be restored.
    """
    with locked(folder, waiting) as library:
        kept = library.removed.videos()
        restored = library.restore(_below(paths, kept) if paths else kept)
        if not restored:
            where = f" at or below {', '.join(map(str, paths))}" if paths else ""
            raise UsageError(
                f"{library.path} has nothing to restore{where}: no video was removed, or all were indexed again"
            )
    return restored


def change_excluded(
    folder: str | Path | Address,
    *,
    add: Sequence[str] = (),
    drop: Sequence[str] = (),
    waiting: Callable[[], None] = lambda: None,
) -> tuple[str, ...]:
    """Change which globs a library excludes; the next `index` applies them.

    Returns:
        the globs after the change.

    Raises:
        UsageError: the library does not exist, or a glob of `drop` is not among its globs.
    """
    if not add and not drop:
        return Store.open(folder).manifest.exclude
    with locked(folder, waiting) as library:
        current, dropped = library.manifest.exclude, normal_globs(drop)
        for glob in dropped:
            if glob not in current:
                raise UsageError(
                    f"{library.path} does not exclude {glob!r}; it excludes: {', '.join(current) or 'nothing'}"
                )
        globs = normal_globs([*(glob for glob in current if glob not in dropped), *add])
        library.change(exclude=globs)
    return globs


def remembered_folders(
    folder: str | Path | Address,
    *,
    drop: Sequence[str | Path | Address] = (),
    waiting: Callable[[], None] = lambda: None,
) -> list[LibraryFolder]:
    """Return the folders that a library remembers.

    Args:
        drop: folders to forget. Their videos stay in the library.

    Raises:
        UsageError: the library does not exist, or does not remember one of `drop`.
    """
    library = Store.open(folder)
    if drop:
        with locked(library.path, waiting):
            folders.drop(library.path, sorted(absolute_paths(drop), key=str))
    return folders.describe(folders.read(library.path), library.videos())


@contextmanager
def locked(folder: str | Path | Address, waiting: Callable[[], None]) -> Iterator[Store]:
    """Open an existing library under its lock, and add the columns that older libraries lack."""
    path = Store.open(folder).path
    with library_lock(path, waiting=waiting):
        library = Store.open(path)
        library.add_columns(())
        yield library


def _below(paths: Sequence[str | Path | Address], videos: Mapping[str, object]) -> list[str]:
    """Return the videos that are at or below some paths."""
    roots = absolute_paths(paths)
    return [path for path in videos if is_below(path, roots)]


def tidy(library: Store) -> None:
    """Delete old versions and long-removed videos permanently, and bring the indexes up to date."""
    check_held(library.path)
    with suppress(VopError):  # the removed videos are damaged; `vop library check` reports it
        library.removed.drop_old()
        library.drop_frames()
        comparing.forget_deleted(library)
        library.drop_words()
    small_files.remove_all(small_files.child(library.path, VECTORS))  # planned for files that are merged now
    library.keep_up()


# -- opening or creating a library


@dataclass(frozen=True)
class _Settings:
    """The settings of a call. None means the setting of an existing library, and the default for a new one."""

    model: str | None
    segmentation: SegmentationConfig | None
    num_frames: int | None
    keep_frames: bool
    refine: bool
    embedding: EmbeddingConfig
    precision: str
    compile: bool


def _load_model(wanted: _Settings) -> TextVideoModel:
    """Load the model of a new library."""
    model = open_model(
        wanted.model or DEFAULT_HUB_ID,
        num_frames=wanted.num_frames,
        precision=wanted.precision,
        embedding=wanted.embedding,
        compile=wanted.compile,
    )
    model.check_independent()
    return model


def _open(
    folder: Location,
    wanted: _Settings,
    new_model: TextVideoModel | None,
    kept: KeptModels,
    *,
    load_models: bool = True,
) -> tuple[Store, list[TextVideoModel]]:
    """Open the library and its models; create the library if it does not exist.

    Args:
        load_models: whether to load the models although the call does not name one.

    Raises:
        UsageError: the settings differ from the library's.
        VopError: the model is not the library's.
    """
    if new_model is not None and not exists(folder):  # no other process created it meanwhile
        name = wanted.model or DEFAULT_HUB_ID
        manifest = new_manifest(
            new_model,
            name=name,
            segmentation=wanted.segmentation,
            keep_frames=wanted.keep_frames,
            refine=wanted.refine,
        )
        kept.keep(manifest, [new_model])
        return Store.create(folder, manifest), [new_model]
    library = Store.open(folder)
    manifest, embedding = library.manifest, wanted.embedding
    merged = manifest.models[0].embedding.merge_tokens or TokenMerging(0.0)
    for name, value, current in (  # segments with different settings cannot be compared
        ("segmentation", wanted.segmentation, manifest.segmentation),
        ("num_frames", wanted.num_frames, manifest.num_frames),
        ("keep_frames", wanted.keep_frames or None, manifest.keep_frames),
        ("refine", wanted.refine or None, manifest.refine),
        ("merge_tokens", embedding.merge_tokens, merged),
        ("dimensions", embedding.dimensions, manifest.models[0].embed_dim),
    ):
        if value is not None and value != current:
            raise UsageError(f"{name} of {folder} is {current}, not {value}; to change it, index into another folder")
    models: list[TextVideoModel] = []
    if load_models or wanted.model is not None:
        models = kept.open(manifest, folder=folder, name=wanted.model, compile=wanted.compile)
    if wanted.model is not None:  # store its path, which may be a new one
        library.rename_model(absolute_name(wanted.model))
    return library, models


def _check_outdated(library: Store, scanned: Scan, *, redo: bool) -> None:
    """Raise a VopError if new videos would be mixed with videos that an earlier version decoded."""
    outdated = {
        path: seconds for path, seconds in library.outdated().items() if is_address(path) or os.path.lexists(path)
    }
    if not outdated or redo:
        return
    hours = sum(outdated.values()) / 3600
    command = shlex.join(["vop", "index", str(library.path), *sorted(map(str, scanned.given)), "--redo"])
    raise VopError(
        f"{library.path}: {len(outdated)} of its videos ({hours:.1f} h) were decoded by an earlier version of vop, "
        "which read HDR, non-square pixels, transparency, joined recordings and several video tracks differently. New "
        f"videos cannot be mixed with them. To decode them again: {command}. Searches work in the meantime"
    )
