"""Plain explanations of the reasons for which files cannot be indexed, with the next step."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from vop.search.failures import DUPLICATE, PARTIAL, Failure

_AGAIN = "It is tried again at the next indexing."


@dataclass(frozen=True)
class Explanation:
    """What a failure means.

    Attributes:
        text: what is wrong with the file.
        next_step: what the owner can do.
    """

    text: str
    next_step: str


_OF_KINDS: Final = {
    DUPLICATE: Explanation(
        "Another file in the library has exactly the same content, so this one is not listed twice.",
        "Nothing needs to be done. If the other file is deleted, this one takes its place.",
    ),
    PARTIAL: Explanation(
        "Some parts of the video are damaged. The other parts can be searched.",
        "If you have another copy of the file, replace this one and index again.",
    ),
}
_OF_REASONS: Final = [
    (
        r"empty \(0 bytes\)|its video stream is empty",
        "The file has no content: a recording or a copy has failed.",
        "Copy the file again from its source, or delete it.",
    ),
    (
        r"cut short: its index|it is cut short or damaged",
        "The end of the file is missing, which happens if a recording or a copy is interrupted.",
        "Copy the file again. If it is the only copy, a repair tool for MP4 files may rescue it.",
    ),
    (
        r"contains no video, only",
        "The file has sound or pictures but no moving pictures.",
        "Exclude it if it bothers you: vop library exclude LIBRARY --add GLOB.",
    ),
    (
        r"not a video that FFmpeg can read|a text file",
        "The content is not that of a video, whatever the name of the file says.",
        "If it plays elsewhere, convert it to MP4. Else rename or exclude it: vop library exclude LIBRARY --add GLOB.",
    ),
    (
        r"no decoder",
        "The video has a format that this program cannot decode.",
        "Convert the file to MP4 (H.264) with a video converter.",
    ),
    (
        r"megapixels",
        "The file claims a size of picture that no camera has, so it is damaged or not a video.",
        "Check whether it plays elsewhere. If it does, convert it to a smaller size.",
    ),
    (
        r"decoding (crashed|was cut short)",
        "The decoder failed on this file, which is usually damaged. Other files are not affected.",
        f"If it plays elsewhere, convert it to MP4. {_AGAIN}",
    ),
    (
        r"decoding took longer",
        "Decoding made no progress for a long time: the file is damaged, or its drive is very slow.",
        f"Check the drive, and whether the file plays elsewhere. {_AGAIN}",
    ),
    (
        r"more memory",
        "Decoding needs more memory than is free.",
        "Close other programs and index again, or convert the file to a smaller size of picture.",
    ),
    (
        r"[Pp]ermission denied|[Oo]peration not permitted",
        "The account that indexes may not read the file or folder.",
        "Give that account the permission to read it, then index again.",
    ),
    (
        r"broken symbolic link",
        "The entry is a link to a file or folder that does not exist any more.",
        "Delete the link, or mount the drive to which it leads.",
    ),
    (
        r"not valid UTF-8",
        "The name of the file or folder contains bytes that are no letters, from an old system or archive.",
        "Rename it, then index again.",
    ),
    (
        r"does not exist|was deleted|No such file",
        "The file was deleted or moved while it was read.",
        f"Nothing needs to be done if that was on purpose. {_AGAIN}",
    ),
    (
        r"Input/output error|[Ss]tale file handle|[Hh]ost is down|[Tt]imed out",
        "The drive or the network share did not deliver the file.",
        f"Check the drive and its connection. {_AGAIN}",
    ),
    (
        r"neither a file nor a folder|a pipe or a device",
        "The entry is a device or a connection between programs.",
        "Exclude it: vop library exclude LIBRARY --add GLOB.",
    ),
]
_OTHER: Final = Explanation("The file cannot be read.", f"Check whether it plays elsewhere. {_AGAIN}")


def explain(failed: Failure) -> Explanation:
    """Explain why a file is not, or only in part, in the library."""
    if failed.kind in _OF_KINDS:
        return _OF_KINDS[failed.kind]
    found = (Explanation(text, step) for pattern, text, step in _OF_REASONS if re.search(pattern, failed.reason))
    return next(found, _OTHER)
