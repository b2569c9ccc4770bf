"""Find the near-duplicates among the new videos of a library, by their fingerprints.

Only new videos are compared with the others, in two steps:

1. Candidates. From each picture, eight keys of 20 bits are taken: the signs of some of its lowest frequencies. Two
   videos are candidates if pictures of both have equal keys and lie near each other in the order of all signs.
2. Comparison. Candidates are laid over each other (`aligned`). They are near-duplicates if their pictures at the same
   times are equal up to noise, or much more alike than each is to pictures of the same video at other times. Two takes
   of a scene have the same background, but other things happen there at the same time.

`docs/evaluation.md` has the measurement from which the constants come (`bench/near_copies.py`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vop.search import near_copies
from vop.search.fingerprints import PICTURES, SIDE, Alignment, Fingerprint, aligned, fingerprint
from vop.search.near_copies import FINGERPRINTS, PART, SAME, TABLE, Pair
from vop.search.schema import clip_of
from vop.search.store import Store
from vop.utils.progress import Progress

NOISE = 0.01  # mean distance of pictures that compression or scaling has changed
MOST = 0.09  # mean distance of the pictures of near-duplicates
SHARE = 0.35  # of the mean distance of a video's own pictures from each other
CONTRAST = 0.25  # as a logarithm: how far the ratio of the contrasts may vary
COLOUR = 12.0  # of 255
SAME_LENGTH = 0.9  # of the longer one's duration
SLACK = 0.1  # of the shorter one's duration: how far it may reach beyond the longer one

_KEYS, _KEY_BITS, _SIGNS = 8, 20, 40  # keys of a picture, bits of a key, and the frequencies that they are taken from
_NEIGHBOURS = 8  # pictures with equal keys that are compared with each
_FEWEST_VOTES = 2  # equal keys of two videos
_MOST_CANDIDATES = 32  # of a new video
_VIDEOS = 500  # whose strips are read at a time


def relation(one: str, own: Fingerprint, another: str, others: Fingerprint) -> Pair | None:
    """Compare two videos; return None if they are not near-duplicates."""
    if own.duration > others.duration:
        one, own, another, others = another, others, one, own
    found = aligned(own, others, slack=SLACK * own.duration)
    if found is None or not is_match(found):
        return None
    kind: Literal["same", "part"] = SAME if own.duration >= SAME_LENGTH * others.duration else PART
    return Pair(one, another, kind, found.offset)


def is_match(found: Alignment) -> bool:
    """Whether two videos are near-duplicates, laid over each other."""
    has_same_pictures = found.distance <= max(NOISE, min(MOST, SHARE * found.variation))
    return has_same_pictures and found.contrast <= CONTRAST and found.colour <= COLOUR


def candidates(videos: Sequence[Fingerprint], is_new: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return pairs of places of videos that may be near-duplicates, at least one of which is new."""
    counts = [len(video.times) for video in videos]
    if not sum(counts):
        return []
    owners = np.repeat(np.arange(len(videos)), counts)
    signs = _signs(np.concatenate([video.pictures for video in videos]))
    kept = signs.any(axis=1)  # a picture without contrast has no signs
    owners, signs = owners[kept], signs[kept]
    order = np.packbits(signs, axis=1, bitorder="big").view(">u8").ravel().astype(np.uint64)
    codes: list[NDArray[np.int64]] = []
    for key in _keys(signs):
        codes.append(_neighbours(key, order, owners, is_new))
    pairs, votes = np.unique(np.concatenate(codes), return_counts=True)
    first, second = np.divmod(pairs, len(videos))
    return _best_voted(first, second, votes, is_new)


def _signs(pictures: NDArray[np.int8]) -> NDArray[np.bool_]:
    """Return the signs (n, 64) of the lowest frequencies of pictures (n, d)."""
    at = np.arange(SIDE)
    lowest = np.argsort(np.hypot(at[:, None], at).ravel()[1:], kind="stable")[:64]
    return pictures[:, lowest] > 0


def _keys(signs: NDArray[np.bool_]) -> Iterator[NDArray[np.uint32]]:
    """Yield each of the keys (n,): some of the signs of a picture, always the same ones."""
    random = np.random.default_rng(0)
    for _ in range(_KEYS):
        chosen = random.permutation(_SIGNS)[:_KEY_BITS]
        packed = np.packbits(signs[:, chosen], axis=1, bitorder="little").astype(np.uint32)
        yield packed @ (1 << 8 * np.arange(packed.shape[1], dtype=np.uint32))


def _neighbours(
    key: NDArray[np.uint32], order: NDArray[np.uint64], owners: NDArray[np.int64], is_new: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Return, as first * videos + second, the videos of pictures with equal keys that lie near each other."""
    new = is_new[owners]
    places = np.flatnonzero(np.isin(key, key[new])) if not new.all() else np.arange(len(key))
    by_key_and_order = key[places].astype(np.uint64) << (64 - _KEY_BITS) | order[places] >> _KEY_BITS
    places = places[np.argsort(by_key_and_order)]
    found = []
    for step in range(1, _NEIGHBOURS + 1):
        one, other = places[:-step], places[step:]
        is_pair = (key[one] == key[other]) & (owners[one] != owners[other]) & (new[one] | new[other])
        pair = owners[one[is_pair]], owners[other[is_pair]]
        found.append(np.minimum(*pair) * len(is_new) + np.maximum(*pair))
    return np.concatenate(found)


def _best_voted(
    first: NDArray[np.int64], second: NDArray[np.int64], votes: NDArray[np.int64], is_new: NDArray[np.bool_]
) -> list[tuple[int, int]]:
    """Return the pairs with enough votes, the most voted ones of each new video."""
    taken: dict[int, int] = defaultdict(int)
    chosen = []
    for place in np.argsort(-votes, kind="stable").tolist():
        if votes[place] < _FEWEST_VOTES:
            break
        one, other = int(first[place]), int(second[place])
        own = [video for video in (one, other) if is_new[video]]
        if any(taken[video] < _MOST_CANDIDATES for video in own):
            chosen.append((one, other))
            for video in own:
                taken[video] += 1
    return chosen


def update(library: Store, progress: Progress) -> None:
    """Find the near-duplicates among the new videos of a library. The library's lock is held."""
    table = library.open_table(FINGERPRINTS)
    new = sorted(set(library.ids()) - near_copies.listed(table))
    if not new:
        return
    known = near_copies.read_fingerprints(table)
    own: dict[str, Fingerprint] = {}
    for start in range(0, len(new), _VIDEOS):
        progress("comparing videos", start, len(new))
        own |= _fingerprints(library, new[start : start + _VIDEOS])
    ids = [*known, *own]
    videos = [*known.values(), *own.values()]
    is_new = np.arange(len(ids)) >= len(known)
    pairs = [
        pair
        for one, other in candidates(videos, is_new)
        if (pair := relation(ids[one], videos[one], ids[other], videos[other]))
    ]
    with library.writing():  # first the pairs: if the process is killed in between, the next one finds them again
        near_copies.write_pairs(library.kept_table(TABLE, near_copies.PAIR_SCHEMA), pairs)
        near_copies.write_fingerprints(library.kept_table(FINGERPRINTS, near_copies.FINGERPRINT_SCHEMA), own)
    progress("comparing videos", len(new), len(new))


def forget_deleted(library: Store) -> None:
    """Delete what the tables have of videos that are neither in the library nor restorable. The lock is held.

    Raises:
        VopError: the removed videos are damaged.
    """
    listed = near_copies.listed(library.open_table(FINGERPRINTS))
    deleted = listed - set(library.ids())
    deleted -= set(library.removed.videos().values()) if deleted else set()
    if not deleted:
        return
    with library.writing():
        for name, columns in ((FINGERPRINTS, ["video"]), (TABLE, ["video", "other"])):
            if (table := library.open_table(name)) is not None:
                near_copies.forget(table, columns, deleted)


def _fingerprints(library: Store, videos: Sequence[str]) -> dict[str, Fingerprint]:
    columns = ["video", "segment", "duration_seconds", "strip"]
    rows = library.rows_of(videos, columns=columns).to_pydict()
    places: dict[str, list[int]] = defaultdict(list)
    for place, video in enumerate(rows["video"]):
        places[video].append(place)
    pictures = min(PICTURES, library.manifest.num_frames)
    return {
        video: fingerprint(
            [rows["strip"][place] for place in own],
            [clip_of(rows["segment"][place]) for place in own],
            duration=rows["duration_seconds"][own[0]],
            pictures=pictures,
        )
        for video, own in places.items()
    }
