"""Find the videos below addresses of object storage, by their names: no object is read."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from vop.storage.address import Address
from vop.storage.errors import MissingObject
from vop.storage.objects import ObjectInfo, head, list_objects
from vop.video.find import EXCLUDED, HIDDEN, LIBRARY, PREVIEW, SYSTEM, Exclude, FoundFile, FoundVideos, is_of_system
from vop.video.kinds import POSSIBLE_VIDEO_SUFFIXES, VIDEO, kind_by_name, previews_among

_REQUESTS = 16  # at a time
NO_SUFFIX = "an object without the suffix of a video"


def find_objects(
    roots: Iterable[Address],
    listed: Collection[Address] = (),
    *,
    skip: Address | None = None,
    exclude: Sequence[str] = (),
) -> FoundVideos:
    """Find the objects that are videos by their suffixes, each once. An object that is given by its key is one.

    As on disks, hidden names, folders of systems, previews beside a recording and what `exclude` names are skipped.

    Args:
        listed: addresses that are expected to be those of objects, perhaps very many.
        skip: the address of a library, whose own objects are no videos.
        exclude: globs of names and of paths below a root.

    Raises:
        StorageError: an address cannot be listed.
    """
    finder = _Finder(skip, exclude)
    for root in sorted(roots):
        finder.search(root)
    finder.take_listed(sorted(listed))
    return finder.finish()


def reason_to_skip(address: Address, root: Address) -> str | None:
    """Return why an object below a root is not a video by its name; None if it is one."""
    below = address.parts[len(root.parts) :]
    if any(name.startswith(".") for name in below):
        return HIDDEN
    if any(is_of_system(name) for name in below[:-1]):
        return SYSTEM
    kind = kind_by_name(address.name)
    if kind is None and address.name.lower().endswith(tuple(POSSIBLE_VIDEO_SUFFIXES)):
        kind = VIDEO
    return None if kind == VIDEO else kind or NO_SUFFIX


class _Finder:
    def __init__(self, skip: Address | None, exclude: Sequence[str]) -> None:
        self._library, self._exclude = skip, exclude
        self._files: dict[Address, FoundFile] = {}
        self.found = FoundVideos()

    def search(self, root: Address) -> None:
        is_excluded = Exclusion(self._exclude, root)
        is_empty = True
        for info in list_objects(root):
            is_empty = False
            if info.address in self._files:
                continue
            if self._library is not None and info.address.is_below(self._library):
                self.found.skipped[LIBRARY] = 1
                continue
            reason = reason_to_skip(info.address, root)
            if reason is None and is_excluded(info.address):
                reason = EXCLUDED
            if reason is None:
                self._take(info)
            else:
                self._skip(info.address, reason)
        if is_empty:
            self._given(root)

    def take_listed(self, addresses: Sequence[Address]) -> None:
        """Take objects by their keys, without listing what is below them."""
        wanted = [address for address in addresses if address not in self._files]
        with ThreadPoolExecutor(_REQUESTS) as pool:
            for address, info in zip(wanted, pool.map(_described, wanted), strict=True):
                if info is None:
                    self.search(address)
                elif Exclusion(self._exclude, address)(address):
                    self._skip(address, EXCLUDED)
                else:
                    self._take(info)

    def _given(self, address: Address) -> None:
        """Take an object that is given by its key."""
        try:
            if not address.key:
                self.found.missing.append((address, "the bucket is empty"))
            elif Exclusion(self._exclude, address)(address):
                self._skip(address, EXCLUDED)
            else:
                self._take(head(address))
        except MissingObject:
            self.found.missing.append((address, "no object has this key or is below it"))

    def _take(self, info: ObjectInfo) -> None:
        self._files[info.address] = FoundFile(info.address, info.size, info.version)

    def _skip(self, address: Address, reason: str) -> None:
        self.found.skipped[reason] += 1
        if reason in (EXCLUDED, PREVIEW):
            self.found.left_out.add(address)

    def finish(self) -> FoundVideos:
        names: dict[Address, list[str]] = defaultdict(list)
        for address in self._files:
            names[address.parent].append(address.name)
        previews = {folder: previews_among(own) for folder, own in names.items()}
        for address in [one for one in self._files if one.name in previews[one.parent]]:
            del self._files[address]
            self._skip(address, PREVIEW)
        self.found.files = sorted(self._files.values(), key=lambda file: str(file.path))
        return self.found


def _described(address: Address) -> ObjectInfo | None:
    """Describe an object; None if it does not exist."""
    try:
        return head(address) if address.key else None
    except MissingObject:
        return None


class Exclusion:
    """Tells whether the globs exclude an object below a root, or a prefix between them."""

    def __init__(self, globs: Sequence[str], root: Address) -> None:
        self._root = root
        self._is_excluded = Exclude(globs, f"/{root.bucket}/{root.key}".rstrip("/")) if globs else None

    def __call__(self, address: Address) -> bool:
        if self._is_excluded is None:
            return False
        parts = address.parts
        first = min(len(self._root.parts) + 1, len(parts))
        ends = range(first, len(parts) + 1)
        return any(self._is_excluded("/".join(["", address.bucket, *parts[:end]])) for end in ends)
