"""Find the video files below some paths. A file is read only if its name does not tell whether it is a video.

Globs exclude files and folders:

    IMG_*.MOV           files and folders with a matching name, in any folder
    private             everything below each folder with this name
    2024/private        a path relative to the searched folder, with or without that folder's own name
    **/raw/*.mov        the MOV files in every folder named raw
    /data/videos/old    an absolute path
"""

from __future__ import annotations

import errno
import heapq
import os
import re
import stat
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import translate
from functools import cache, partial
from pathlib import Path, PurePath

from vop.errors import UsageError
from vop.storage.address import Location
from vop.utils.names import existing_path, nfc
from vop.video.kinds import VIDEO, is_live_photo, kind_by_content, kind_by_name, previews_among, with_pictures

# Folders in which a NAS (Synology, QNAP) or an operating system keeps previews, snapshots, and deleted or repaired
# files. Windows writes these names in upper or lower case. Names that begin with a dot are hidden anyway.
_SYSTEM_FOLDERS = {
    *(
        "@eaDir",
        "#recycle",
        "#snapshot",
        "@Recycle",
        "@Recently-Snapshot",
        "@Transcode",
        "@sharebin",
        "@tmp",
    ),  # of a NAS
    *("Network Trash Folder", "Temporary Items"),  # of macOS on a share
    "lost+found",
}
_WINDOWS_FOLDERS = re.compile(r"\$recycle\.bin|recycle[rd]|system volume information|found\.\d{3}", re.IGNORECASE)

HIDDEN = "hidden"
SYSTEM = "a folder of the system"
LIBRARY = "a library of vop"
_NO_FILE = "neither a file nor a folder"
LISTED = "another name of a file that is listed"
EXCLUDED = "excluded"
PREVIEW = "a preview of another video"
_LIVE_PHOTO = "the movie of a Live Photo"
_BAD_NAME = "its name is not valid UTF-8 and cannot be stored: rename it"

_ANY_FOLDERS = "**"


@dataclass(frozen=True)
class FoundFile:
    """A file or an object that may be a video.

    Attributes:
        path: the absolute path, or the address of an object.
        size: the size in bytes.
        mtime_ns: the modification time; for an object, the number that its ETag becomes (`ObjectInfo.version`).
        volume: its filesystem, as `volume_of` returns it.
    """

    path: Location
    size: int
    mtime_ns: int
    volume: str | None = field(default=None, compare=False)


@dataclass
class FoundVideos:
    """The videos below some paths, and what was skipped.

    Attributes:
        files: files that may be videos, sorted by path, each once.
        skipped: number of skipped files and folders, by reason.
        left_out: skipped files and folders that may contain videos: excluded ones, previews, movies of Live Photos.
        missing: given paths that cannot be read, with the reason.
        unreadable: files and folders that could not be read, with the reason; sorted. A path contains lone surrogates
            if a name is not valid UTF-8.
        other_names: symbolic links to files that are listed by another name.
    """

    files: list[FoundFile] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    left_out: set[Location] = field(default_factory=set)
    missing: list[tuple[Location, str]] = field(default_factory=list)
    unreadable: list[tuple[Location, str]] = field(default_factory=list)
    other_names: list[FoundFile] = field(default_factory=list)

    def __repr__(self) -> str:
        skipped = self.skipped.total()
        return f"FoundVideos({len(self.files)} files, {skipped} skipped, {len(self.unreadable)} unreadable)"


def find_videos(
    paths: Iterable[str | Path],
    *,
    skip: str | Path | None = None,
    exclude: Sequence[str] = (),
    live_photos: bool = False,
    any_must_exist: bool = True,
) -> FoundVideos:
    """Find the videos among some files and below some folders.

    The suffix tells whether a file is a video. If the suffix is ambiguous, the file is a video if FFmpeg finds a video
    stream in it. Symbolic links are followed, but each file is listed once, by its own name if that lies below one of
    the paths.

    These are skipped: hidden files and folders (their names begin with a dot), folders of a NAS or an operating system,
    other kinds of files, previews that a camera writes beside a recording, movies of Live Photos, libraries of vop, and
    pipes and devices. A file that is given by its path is always listed, unless a glob excludes it.

    Paths may spell names in any Unicode form. Files are listed with their names on disk.

    Args:
        skip: a folder or a file to skip.
        exclude: globs of files and folders to skip; see above.
        live_photos: whether to list the movies of Live Photos.
        any_must_exist: whether it is an error if none of the paths exists.

    Raises:
        UsageError: none of the paths exists.
    """
    finder = _Finder(skip, exclude, live_photos=live_photos)
    for path in paths:
        finder.begin(existing_path(absolute_path(path)))
    if any_must_exist:
        finder.check_any_exists()
    return finder.finish()


def absolute_path(path: str | Path) -> Path:
    """Return the path as `find_videos` lists it: absolute, without `..`, with symbolic links unresolved."""
    path = Path(path).absolute()
    if ".." not in path.parts:
        return Path(os.path.normpath(path))
    path = existing_path(path)
    normal = Path(os.path.normpath(path))
    if normal.exists() and path.exists() and normal.samefile(path):
        return normal
    return path.resolve()  # the part before `..` is a link


class Walk:
    """Visits folders, each once. Links are followed last, so that a folder is visited by its own name.

    The caller queues folders with `enter`. If several links lead to a folder, the first in alphabetical order is used.

    Args:
        complain: called with the path of a folder that cannot be read, and the error.
    """

    def __init__(self, complain: Callable[[str, OSError], None] = lambda path, error: None) -> None:
        self._complain = complain
        self._folders: list[tuple[str, str]] = []  # (path, root)
        self._links: list[tuple[str, str]] = []  # a heap
        self._visited: set[tuple[int, int]] = set()  # device and inode

    def enter(self, path: str, *, root: str = "", is_link: bool = False) -> None:
        """Queue a folder or a link. The visit yields `root` with it."""
        if is_link:
            heapq.heappush(self._links, (path, root))
        else:
            self._folders.append((path, root))

    def __iter__(self) -> Iterator[tuple[str, str, list[os.DirEntry[str]] | None]]:
        """Yield (path, root, entries) of each folder. For a link that does not lead to a folder, entries is None."""
        while self._folders or self._links:
            path, root = self._folders.pop() if self._folders else heapq.heappop(self._links)
            if os.path.islink(path) and not os.path.isdir(path):
                yield path, root, None
                continue
            try:
                status = os.stat(path)
                with os.scandir(path) as found:
                    entries = list(found)
            except OSError as error:
                self._complain(path, error)
                continue
            if (status.st_dev, status.st_ino) not in self._visited:
                self._visited.add((status.st_dev, status.st_ino))
                yield path, root, entries


class _Finder:
    """Collects the videos below some paths."""

    def __init__(self, skip: str | Path | None, exclude: Sequence[str], *, live_photos: bool) -> None:
        self.found = FoundVideos()
        self.any_exists = False  # whether one of the given paths exists
        self.skip = None if skip is None else os.path.realpath(existing_path(skip))
        self.is_excluded = cache(partial(Exclude, exclude))  # one for each given path
        self.live_photos = live_photos
        self.volume_of = cache(volume_of)
        self.files: dict[str, FoundFile] = {}  # by their real paths, without links
        self.walk = Walk(self._complain_of)

    def begin(self, path: Path) -> None:
        name = str(path)
        try:
            mode = os.stat(path).st_mode
        except (OSError, ValueError) as error:
            self.found.missing.append((path, getattr(error, "strerror", None) or str(error)))
            return
        if stat.S_ISDIR(mode):
            self.walk.enter(name, root=name, is_link=os.path.islink(name))
        elif self.is_excluded(name)(name):
            self._leave_out(name, EXCLUDED)
        else:
            self._take(name, os.path.realpath(name), given=True)
        self.any_exists = True

    def check_any_exists(self) -> None:
        if self.found.missing and not self.any_exists:
            path, reason = self.found.missing[0]
            raise UsageError(f"{str(path)!r} cannot be indexed: {reason}; give files or folders that exist")

    def finish(self) -> FoundVideos:
        for name, root, entries in self.walk:
            if entries is None:
                self._link_to_file(name)
            else:
                self._folder(name, root, entries)
        self.found.files = sorted(self.files.values(), key=lambda file: str(file.path))
        self.found.unreadable.sort(key=lambda one: (str(one[0]).split(os.sep), one[1]))
        return self.found

    def _link_to_file(self, path: str) -> None:
        real = os.path.realpath(path)
        if real in self.files:
            self._count_skipped(LISTED)
            self._name_again(path)
        else:
            self._file(path, real)

    def _folder(self, path: str, root: str, entries: list[os.DirEntry[str]]) -> None:
        real = os.path.realpath(path)
        if real == self.skip or _is_library(entries):
            self._count_skipped(LIBRARY)
            return
        companions = self._companions(entries, root)
        for entry in entries:
            self._entry(entry, os.path.join(real, entry.name), root, companions)

    def _companions(self, entries: list[os.DirEntry[str]], root: str) -> dict[str, str]:
        """Return the files to skip beside a recording or a picture: the reason by name."""
        names = [entry.name for entry in entries if not self.is_excluded(root)(entry.path)]
        movies = set() if self.live_photos else with_pictures(names)
        return dict.fromkeys(movies, _LIVE_PHOTO) | dict.fromkeys(previews_among(names), PREVIEW)

    def _entry(self, entry: os.DirEntry[str], real: str, root: str, companions: Mapping[str, str]) -> None:
        if entry.name.startswith("."):
            self._count_skipped(HIDDEN)
        elif _is_system_folder(entry):
            self._count_skipped(SYSTEM)
        elif self.is_excluded(root)(entry.path):
            self._leave_out(entry.path, EXCLUDED)
        elif _is_companion(entry, companions):
            self._leave_out(entry.path, companions[entry.name])
        elif entry.is_symlink():
            self.walk.enter(entry.path, root=root, is_link=True)
        elif not entry.is_dir(follow_symlinks=False):
            self._file(entry.path, real)
        elif _can_be_stored(entry.name):
            self.walk.enter(entry.path, root=root)
        else:
            self._complain(entry.path, _BAD_NAME)

    def _file(self, path: str, real: str) -> None:
        kind = kind_by_name(path) or VIDEO
        if kind != VIDEO:
            self._count_skipped(kind)
        elif real != self.skip:
            self._take(path, real)

    def _take(self, path: str, real: str, *, given: bool = False) -> None:
        """List a file, unless it is unreadable or not a video."""
        if real in self.files:
            return
        try:
            status = os.stat(path)
            kind = _kind(path, status.st_mode, given=given)
        except OSError as error:
            self._complain_of(path, error)
            return
        if kind != VIDEO and not given:
            self._count_skipped(kind)
        elif kind != VIDEO or not _can_be_stored(path):
            self._complain(path, _BAD_NAME if kind == VIDEO else kind)
        else:
            self.files[real] = self._found(path, status)

    def _name_again(self, path: str) -> None:
        with suppress(OSError):  # deleted meanwhile
            self.found.other_names.append(self._found(path, os.stat(path)))

    def _found(self, path: str, status: os.stat_result) -> FoundFile:
        mtime_ns = min(max(status.st_mtime_ns, -(2**63)), 2**63 - 1)  # files may claim any year
        return FoundFile(Path(path), status.st_size, mtime_ns, volume=self.volume_of(os.path.dirname(path)))

    def _count_skipped(self, reason: str) -> None:
        self.found.skipped[reason] += 1

    def _leave_out(self, path: str, reason: str) -> None:
        self._count_skipped(reason)
        self.found.left_out.add(Path(path))

    def _complain(self, path: str, reason: str) -> None:
        self.found.unreadable.append((Path(path), reason))

    def _complain_of(self, path: str, error: OSError) -> None:
        is_dangling = os.path.islink(path) and not os.path.exists(path)
        self._complain(path, "a broken symbolic link" if is_dangling else error.strerror or str(error))


def volume_of(folder: str | Path) -> str | None:
    """Return the filesystem of a folder as text: its identity and its mount point, such as `9f3a… /media/usb`.

    Returns:
        None if the folder is unavailable.
    """
    try:
        mount = os.path.realpath(folder)
        device = os.stat(mount).st_dev
        while (parent := os.path.dirname(mount)) != mount and os.stat(parent).st_dev == device:
            mount = parent
        return f"{os.statvfs(mount).f_fsid:x} {mount}"
    except OSError:
        return None


def mount_point(volume: str) -> str:
    """Return the mount point in the result of `volume_of`."""
    return volume.partition(" ")[2]


def _kind(path: str, mode: int, *, given: bool) -> str:
    """Return the kind of a file. A file that was given by its path counts as a video, whatever its name.

    Raises:
        OSError: the file cannot be read.
    """
    if not stat.S_ISREG(mode):
        return _NO_FILE
    if not os.access(path, os.R_OK, effective_ids=os.access in os.supports_effective_ids):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    return VIDEO if given or kind_by_name(path) == VIDEO else kind_by_content(path)


def _is_system_folder(entry: os.DirEntry[str]) -> bool:
    return is_of_system(entry.name) and entry.is_dir()


def is_of_system(name: str) -> bool:
    """Return whether a folder with this name belongs to a NAS or an operating system."""
    return name in _SYSTEM_FOLDERS or _WINDOWS_FOLDERS.fullmatch(name) is not None


def _is_companion(entry: os.DirEntry[str], companions: Mapping[str, str]) -> bool:
    reason = companions.get(entry.name)
    return reason is not None and entry.is_file() and (reason == PREVIEW or is_live_photo(entry.path))


def _is_library(entries: list[os.DirEntry[str]]) -> bool:
    kinds = {entry.name: os.path.isdir(entry.path) for entry in entries if entry.name in ("library.json", "database")}
    return kinds == {"library.json": False, "database": True}


def _can_be_stored(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


# -- globs


def normal_globs(globs: Iterable[str]) -> tuple[str, ...]:
    """Return the globs normalised, without duplicates, in their order.

    Raises:
        UsageError: a glob is empty, or contains `..`.
    """
    return tuple(dict.fromkeys(map(_normal, globs)))


def _normal(glob: str) -> str:
    parts = [part for part in nfc(os.path.expanduser(glob)).split("/") if part not in ("", ".")]
    if not parts or ".." in parts:
        raise UsageError(f"--exclude {glob!r}: give a name (private, *.MOV), or a path below the folder (2024/private)")
    return "/" * glob.startswith(("/", "~")) + "/".join(parts)


class Exclude:
    """Tells which paths the globs exclude below a searched folder.

    Args:
        root: the folder, or a file that was given by its path. Its disk decides whether upper and lower case differ.
    """

    def __init__(self, globs: Sequence[str], root: str) -> None:
        self._root = nfc(root)
        globs = normal_globs(globs)
        flags = re.IGNORECASE if globs and ignores_case(root) else 0
        self._names = [re.compile(translate(glob), flags) for glob in globs if "/" not in glob]
        self._paths = [(glob[0] == "/", _compiled(glob, flags)) for glob in globs if "/" in glob]

    def __call__(self, path: str) -> bool:
        """Return whether a glob excludes this file or folder itself, rather than a folder above it."""
        path = nfc(path)
        if any(name.match(os.path.basename(path)) for name in self._names):
            return True
        if not self._paths:
            return False
        whole, root = PurePath(path).parts[1:], PurePath(self._root).parts
        below = whole[len(root) - 1 :]
        relative = [below, (*root[-1:], *below)] if below else [whole[-1:]]
        return any(
            _fits(parts, glob) for absolute, glob in self._paths for parts in ([whole] if absolute else relative)
        )


def _compiled(glob: str, flags: int) -> tuple[re.Pattern[str] | None, ...]:
    """Return a pattern for each part of a path. None matches any number of folders."""
    parts = glob.strip("/").split("/")
    return tuple(None if part == _ANY_FOLDERS else re.compile(translate(part), flags) for part in parts)


def _fits(parts: tuple[str, ...], glob: tuple[re.Pattern[str] | None, ...]) -> bool:
    if not glob:
        return not parts
    if glob[0] is None:
        return any(_fits(parts[start:], glob[1:]) for start in range(len(parts) + 1))
    return bool(parts) and bool(glob[0].match(parts[0])) and _fits(parts[1:], glob[1:])


@cache
def ignores_case(path: str) -> bool:
    """Return whether the disk of a file or folder ignores the case of names."""
    folder, name = os.path.split(path.rstrip("/"))
    other = name.swapcase()
    if other == name:
        return ignores_case(folder) if name and folder != path else sys.platform in ("darwin", "win32")
    try:
        return os.path.samefile(path, os.path.join(folder, other))
    except OSError:
        return False
