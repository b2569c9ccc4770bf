"""Each reason for which a file cannot be indexed has a plain explanation."""

from __future__ import annotations

import pytest

from vop.errors import VideoError
from vop.search import explanations
from vop.search.explanations import explain
from vop.search.failures import DUPLICATE, PARTIAL, UNREADABLE, failure
from vop.video.source import TOO_LARGE, open_video


@pytest.mark.parametrize(
    ("reason", "part"),
    [
        ("the file is empty (0 bytes)", "no content"),
        ("the file is cut short: its index (moov) is missing", "end of the file"),
        ("it contains no video, and no other stream: it is cut short or damaged", "end of the file"),
        ("it contains no video, only audio", "sound"),
        ("this is not a video that FFmpeg can read", "not that of a video"),
        ("this is a text file", "not that of a video"),
        ("FFmpeg has no decoder for its video", "format"),
        (TOO_LARGE, "size of picture"),
        ("decoding crashed (signal 11)", "decoder failed"),
        ("decoding took longer than 60 s and was stopped", "no progress"),
        ("decoding took more memory than is allowed", "memory"),
        ("Permission denied", "account"),
        ("a broken symbolic link", "link"),
        ("its name is not valid UTF-8 and cannot be stored: rename it", "name"),
        ("the file does not exist", "deleted or moved"),
        ("Input/output error", "drive"),
        ("it has the content of /a/b.mp4: Input/output error", "drive"),
        ("neither a file nor a folder", "device"),
    ],
)
def test_common_reasons_are_explained(reason, part):
    found = explain(failure("/videos/a.mp4", UNREADABLE, reason))
    assert part in found.text
    assert found.next_step.endswith(".")


def test_kinds_are_explained():
    assert "same content" in explain(failure("a.mp4", DUPLICATE, "it has the content of b.mp4")).text
    assert "damaged" in explain(failure("a.mp4", PARTIAL, "1 of 3 segments are damaged")).text
    assert explain(failure("a.mp4", UNREADABLE, "no such reason")) == explanations._OTHER


@pytest.mark.parametrize("content", [b"", b"no video", b"\0\0\0\x18ftypmp42\0\0\0\0"])
def test_real_reasons_are_known(tmp_path, content):
    file = tmp_path / "a.mp4"
    file.write_bytes(content)
    with pytest.raises(VideoError) as raised, open_video(file):
        pass
    assert explain(failure(file, UNREADABLE, raised.value.reason)) != explanations._OTHER
