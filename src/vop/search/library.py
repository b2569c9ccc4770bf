"""`Library`, the public interface for indexing and searching videos."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Self

from vop.backbones import DEFAULT_HUB_ID
from vop.backbones.embedding_config import EmbeddingConfig, TokenMerging
from vop.errors import UsageError
from vop.search.arguments import PathLike, Place, locations, silently
from vop.search.library_reader import LibraryReader
from vop.search.manifest import SegmentationConfig, exists
from vop.search.models import KeptModels, new_manifest, open_model
from vop.search.results import Moment
from vop.search.store import Store
from vop.search.sync.lock import check_folder, library_lock
from vop.storage.address import Address, Location, absolute
from vop.utils.progress import Progress, silent

if TYPE_CHECKING:
    from vop.search.folders import LibraryFolder
    from vop.search.owner_files import MarksImport
    from vop.search.sharding.commands import PublishReport
    from vop.search.sync.integrity import CheckReport
    from vop.search.sync.reembedding import ReembedReport
    from vop.search.sync.report import IndexPreview, IndexReport
    from vop.search.watching import WatchTimes

_log = logging.getLogger(__name__)


class Library(LibraryReader):
    """A searchable folder of video segments.

    Several threads and processes can read a library while one of them writes to it; a method sees everything that was
    committed before the call. A method that writes waits while another process writes, and calls `waiting` first.

    Attributes:
        path: the library's folder, or its address.
    """

    @classmethod
    def create(
        cls,
        path: Place,
        *,
        model: str = DEFAULT_HUB_ID,
        segmentation: SegmentationConfig | None = None,
        num_frames: int | None = None,
        keep_frames: bool = False,
        refine: bool = False,
        merge_tokens: float | TokenMerging = 0.0,
        dimensions: int | None = None,
        precision: str = "auto",
    ) -> Self:
        """Create an empty library.

        Args:
            model: a run, a CLIP folder, a hub id, or mini.
            segmentation: how videos are cut into segments; by default windows of 10 seconds.
            num_frames: frames of a segment; by default the model's own number.
            keep_frames: whether to keep decoded frames, so that `reembed` need not decode again.
            refine: whether to keep the embeddings of frames, so that a search can refine the ends of moments. Models
                that do not average frames find whole segments nevertheless.
            merge_tokens, dimensions: as for `vop.load`. The library keeps them, and embeds queries alike.
            precision: bf16, fp32 or auto, of the embeddings.

        Raises:
            UsageError: the folder is a library or has other files in it, or the model does not exist or cannot embed
                like this.
        """
        folder = absolute(path)
        check_folder(folder)
        _check_new(folder)
        embedding = EmbeddingConfig.of(merge_tokens=merge_tokens, dimensions=dimensions)
        opened = open_model(str(model), num_frames=num_frames, precision=precision, embedding=embedding)
        manifest = new_manifest(
            opened, name=str(model), segmentation=segmentation, keep_frames=keep_frames, refine=refine
        )
        with library_lock(folder):
            _check_new(folder)  # another process may have been faster
            library = cls(Store.create(folder, manifest))
        library._models.keep(manifest.models[0], opened)
        return library

    # -- Tags and favourites

    def tag(
        self,
        named: str | Path | Address | Moment,
        *,
        add: str | Sequence[str] = (),
        remove: str | Sequence[str] = (),
        start_seconds: float | None = None,
        end_seconds: float | None = None,
    ) -> tuple[str, ...]:
        """Add tags to a video or moment and remove others, and return those that it has then.

        Tags belong to the content of a file: they stay when it is moved, renamed or indexed with another model.

        Args:
            named: the id of a video or segment, the `Path` or `Address` of a video, or a `Moment`.
            start_seconds, end_seconds: the times of a moment in the video.

        Raises:
            UsageError: the library does not have the video, or a tag is empty, too long or has a semicolon.
            VopError: tags cannot be saved.
        """
        target = self._store.target(named, start_seconds=start_seconds, end_seconds=end_seconds)
        added, removed = ((tags,) if isinstance(tags, str) else tuple(tags) for tags in (add, remove))
        marks = self._store.change_marks(lambda marks: marks.changed(target, add=added, remove=removed))
        return marks.of_target(target)[0]

    def favourite(
        self,
        named: str | Path | Address | Moment,
        is_favourite: bool = True,
        *,
        start_seconds: float | None = None,
        end_seconds: float | None = None,
    ) -> bool:
        """Make a video or moment a favourite, or not a favourite any more, and return whether it is one then.

        A moment of a video that is a favourite as a whole stays one. See `tag` for the arguments.
        """
        target = self._store.target(named, start_seconds=start_seconds, end_seconds=end_seconds)
        marks = self._store.change_marks(lambda marks: marks.changed(target, is_favourite=is_favourite))
        return marks.of_target(target)[1]

    def mark(
        self,
        paths: Place | Iterable[Place],
        *,
        add: Sequence[str] = (),
        remove: Sequence[str] = (),
        is_favourite: bool | None = None,
        start_seconds: float | None = None,
        end_seconds: float | None = None,
    ) -> int:
        """Change tags and favourites of all videos at or below some paths at once, and return their number.

        Args:
            add, remove: tags.
            is_favourite: None does not change it.
            start_seconds, end_seconds: the times of a moment; `paths` is then one video.

        Raises:
            UsageError: the library has no video at or below one of the paths, or a tag is not allowed.
        """
        targets = self._store.targets(locations(paths), start_seconds=start_seconds, end_seconds=end_seconds)
        self._store.change_marks(
            lambda marks: marks.changed(*targets, add=add, remove=remove, is_favourite=is_favourite)
        )
        return len(targets)

    def import_marks(self, file: PathLike) -> MarksImport:
        """Add the tags and favourites of a CSV file, or of the document of `vop library tags --json`.

        Marks of videos that the library does not have are kept until they are indexed.

        Raises:
            UsageError: the file does not exist.
            DataError: the file is not valid; the error names the line.
        """
        return self._store.import_marks(Path(file))

    # -- Indexing and upkeep

    def _paths(self, paths: Place | Iterable[Place] | None) -> list[Location]:
        """Return the given paths, or else those that the library remembers."""
        if paths is not None:
            return locations(paths)
        from vop.search.folders import remembered

        return remembered(self.path)

    def index(
        self,
        paths: Place | Iterable[Place] | None = None,
        *,
        exclude: Sequence[str] = (),
        live_photos: bool | None = None,
        metadata: PathLike | None = None,
        prune: bool = False,
        yes: bool = False,
        redo: bool = False,
        compile: bool = False,
        subtitles: bool | None = None,
        speech: str | None = None,
        jobs: int | None = None,
        ray: str | None = None,
        gpus_per_worker: float | None = None,
        workers: int | None = None,
        batch_size: int = 16,
        progress: Progress = silent,
        waiting: Callable[[], None] = silently,
        warn: Callable[[str], None] = _log.warning,
    ) -> IndexReport:
        """Bring the library up to date with the videos in these files and folders.

        Args:
            paths: files and folders, addresses of objects and prefixes (`s3://bucket/holidays`), and tables of them
                (CSV, TSV, JSON, JSONL or Parquet); missing ones are skipped with a warning. The library remembers the
                others. None stands for all that it remembers.
            exclude: globs of files and folders to exclude, in addition to the library's globs.
            live_photos: whether to index the movies of Live Photos; None keeps the library's setting.
            metadata: a CSV file with columns to filter by; see `docs/finding.md`.
            prune: whether to remove videos below `paths` that were deleted or are excluded; `restore` restores them.
            yes: whether to prune even a large share of the library; see `IndexReport.unconfirmed`.
            redo: whether to decode videos again that an earlier version of vop decoded.
            compile: whether to compile the layers of the models for this work, as for `vop.load`.
            subtitles: whether to read the text of subtitles, in videos and beside them; None keeps the library's
                setting, at first to read them.
            speech: the model that recognizes speech: a folder or hub id of a Whisper model for faster-whisper, or
                NAME:MODEL for a recognizer of another package; "none" ends it. None keeps the library's setting, at
                first none. Needs `pip install 'vop[speech]'`.
            jobs: processes that decode and embed, each with a model of its own; with several GPUs, each gets one. By
                default one. More than one needs `pip install 'vop[shards]'`.
            ray: the address of a Ray cluster that does the work: host:port, "auto" for the cluster of this machine, or
                "local" to start one for this call. By default, it has one worker per GPU or, without GPUs, per node.
            gpus_per_worker: GPUs of each worker of the cluster; by default 1, if it has any.
            workers: decoding processes of each; by default one per free core.
            batch_size: segments per forward pass.
            progress: called after each step.
            warn: called with each warning.

        Raises:
            UsageError: none of the paths exists, the library remembers none, or an argument is not allowed.
            VopError: the disk is full, the model is not the library's, or an earlier version decoded some videos.
                Committed videos stay in the library.
        """
        from vop.search.sharding.commands import index_in_processes, index_on_ray
        from vop.search.sync import index

        work: Callable[..., IndexReport] = index
        if ray is not None:
            work = partial(index_on_ray, address=ray, jobs=jobs, gpus_per_worker=gpus_per_worker)
        elif jobs not in (None, 1):
            work = partial(index_in_processes, jobs=jobs)
        return work(
            self.path,
            self._paths(paths),
            model=self._models.first_source(),
            exclude=exclude,
            live_photos=live_photos,
            metadata=None if metadata is None else Path(metadata),
            prune=prune,
            yes=yes,
            redo=redo,
            compile=compile,
            subtitles=subtitles,
            speech=speech,
            workers=workers,
            batch_size=batch_size,
            progress=progress,
            waiting=waiting,
            warn=warn,
        )

    def watch(
        self,
        paths: Place | Iterable[Place] | None = None,
        *,
        prune: bool = False,
        workers: int | None = None,
        batch_size: int = 16,
        times: WatchTimes | None = None,
        reported: Callable[[IndexReport], None] = lambda report: None,
        stopped: Callable[[], bool] = lambda: False,
        waiting: Callable[[], None] = silently,
        warn: Callable[[str], None] = _log.warning,
    ) -> None:
        """Index files and folders, then follow them and index what changes, until `stopped`. The models stay open.

        The library is locked only during an indexing. Deleted videos are only reported, unless `prune` is set.

        Args:
            paths: see `index`. None stands for all that the library remembers, also later ones.
            times: how long to wait, for example until a file counts as complete.
            reported: called with the report of each indexing.
            stopped: asked at least once a second whether to return.

        Raises:
            UsageError: `paths` do not exist, or watchfiles is not installed: `pip install 'vop[watch]'`.
            VopError: the first indexing failed. Later failures are warnings, and are tried again.
        """
        from vop.search.sync import index
        from vop.search.sync.scanner import absolute_paths
        from vop.search.watching import Watcher

        kept, places = KeptModels(), None if paths is None else absolute_paths(locations(paths))

        def run(roots: Sequence[Location], settled: Callable[[Path], bool], *, remember: bool = False) -> None:
            report = index(
                self.path,
                roots,
                model=self._models.first_source(),
                prune=prune,
                remember=remember,
                settled=settled,
                kept=kept,
                workers=workers,
                batch_size=batch_size,
                waiting=waiting,
                warn=warn,
            )
            reported(report)

        watcher = Watcher(self.path, run, places=places, say=warn, stopped=stopped, times=times)
        if places is not None:
            run(sorted(places, key=str), watcher.settled, remember=True)
        watcher.run()

    def publish(
        self,
        *,
        discard: bool = False,
        index_parts: int | None = None,
        drop_unreadable: bool = False,
        progress: Progress = silent,
        waiting: Callable[[], None] = silently,
    ) -> PublishReport:
        """Add what `vop index --shard` has finished to the library, in one version for each indexing.

        Once all parts of `vop library reembed --shard` are finished, the library moves to the new model.

        Args:
            discard: whether to delete unfinished work instead.
            index_parts: the number of parts in which further calls of `vop index --shard` build the vector index of a
                large library; a later call completes it. By default this call builds it.
            drop_unreadable: see `reembed`.

        Raises:
            UsageError: a number is not allowed.
            VopError: some of it was made with other models or another version of vop. The rest is published.
        """
        from vop.search.sharding.commands import publish

        return publish(
            self.path,
            discard=discard,
            index_parts=index_parts,
            drop_unreadable=drop_unreadable,
            progress=progress,
            waiting=waiting,
        )

    def preview(
        self,
        paths: Place | Iterable[Place] | None = None,
        *,
        exclude: Sequence[str] = (),
        live_photos: bool | None = None,
    ) -> IndexPreview:
        """Report what `index` would do. Decodes nothing and changes nothing."""
        from vop.search.sync import preview

        return preview(self.path, self._paths(paths), exclude=exclude, live_photos=live_photos)

    def folders(
        self, *, drop: Place | Iterable[Place] = (), waiting: Callable[[], None] = silently
    ) -> list[LibraryFolder]:
        """Return the folders, files and addresses that the library remembers, which `index()` indexes again.

        Args:
            drop: those to forget. Their videos stay in the library; `forget` removes them.

        Raises:
            UsageError: the library does not remember one of `drop`.
        """
        from vop.search.sync import remembered_folders

        return remembered_folders(self.path, drop=locations(drop), waiting=waiting)

    def forget(
        self,
        paths: Place | Iterable[Place],
        *,
        for_good: bool = False,
        tags: bool = False,
        waiting: Callable[[], None] = silently,
    ) -> int:
        """Remove every video at or below these paths from the library, not from the disk, and return how many.

        The library does not remember folders there any more.

        Args:
            for_good: whether to delete them permanently, so that `restore` cannot restore them.
            tags: whether to delete their tags and favourites, too. Otherwise they wait until the videos are indexed
                again. Only with `for_good`.

        Raises:
            UsageError: the library has no video there.
        """
        from vop.search.sync import forget

        return forget(self.path, locations(paths), for_good=for_good, tags=tags, waiting=waiting)

    def restore(self, paths: Place | Iterable[Place] = (), *, waiting: Callable[[], None] = silently) -> list[str]:
        """Restore removed videos, all or those at or below `paths`, and return their paths.

        Raises:
            UsageError: there is nothing to restore.
        """
        from vop.search.sync import restore

        return restore(self.path, locations(paths), waiting=waiting)

    def exclude(
        self, *, add: Sequence[str] = (), drop: Sequence[str] = (), waiting: Callable[[], None] = silently
    ) -> tuple[str, ...]:
        """Change which files the next indexing excludes, and return all globs.

        Raises:
            UsageError: the library has no such glob to drop.
        """
        from vop.search.sync import change_excluded

        return change_excluded(self.path, add=add, drop=drop, waiting=waiting)

    def check(
        self, *, repair: bool = False, progress: Progress = silent, waiting: Callable[[], None] = silently
    ) -> CheckReport:
        """Compare the library with its checksums.

        Args:
            repair: whether to repair the library if it is damaged.
        """
        from vop.search.sync.integrity import check

        return check(self.path, repair=repair, progress=progress, waiting=waiting)

    def reembed(
        self,
        model: str,
        *,
        keep: bool = False,
        num_frames: int | None = None,
        merge_tokens: float | TokenMerging = 0.0,
        dimensions: int | None = None,
        drop_unreadable: bool = False,
        precision: str = "auto",
        compile: bool = False,
        jobs: int | None = None,
        ray: str | None = None,
        gpus_per_worker: float | None = None,
        workers: int | None = None,
        batch_size: int = 16,
        progress: Progress = silent,
        waiting: Callable[[], None] = silently,
    ) -> ReembedReport:
        """Embed every segment with another model. Searches use the old model until then.

        Args:
            keep: whether to keep the embeddings of the library's models beside the new ones.
            num_frames: frames per segment, if not the model's own number.
            merge_tokens, dimensions, compile: as for `vop.load`, for the new model.
            drop_unreadable: whether to leave out unreadable videos. Otherwise they are an error, and the library stays
                as it is.
            jobs, ray, gpus_per_worker, workers, batch_size: as for `index`.

        Raises:
            UsageError: the model does not exist, the library already has it, or `keep` is set and the models take
                different frames.
            VopError: videos cannot be read; the next attempt resumes.
        """
        from vop.search.sharding.reembedding import reembed_in_processes, reembed_on_ray
        from vop.search.sync import reembed

        work: Callable[..., ReembedReport] = reembed
        if ray is not None:
            work = partial(reembed_on_ray, address=ray, jobs=jobs, gpus_per_worker=gpus_per_worker)
        elif jobs not in (None, 1):
            work = partial(reembed_in_processes, jobs=jobs)
        return work(
            self.path,
            model,
            keep=keep,
            num_frames=num_frames,
            embedding=EmbeddingConfig.of(merge_tokens=merge_tokens, dimensions=dimensions),
            drop_unreadable=drop_unreadable,
            precision=precision,
            compile=compile,
            workers=workers,
            batch_size=batch_size,
            progress=progress,
            waiting=waiting,
        )


def _check_new(folder: Location) -> None:
    if exists(folder):
        raise UsageError(f"{folder} is a library already: open it, or choose another folder")
