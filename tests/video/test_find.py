from __future__ import annotations

import inspect
import os
import shutil
import socket
import sys
import tempfile
from pathlib import Path

import pytest
from PIL import Image

from clips import grey_frames, write_clip
from vop.errors import UsageError
from vop.video import find
from vop.video.find import FoundFile, find_videos, volume_of


def touch(path: Path, content: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def found(*paths: Path, **settings) -> list[Path]:
    return [file.path for file in find_videos(paths, **settings).files]


def test_videos_are_found_by_suffix_in_all_subfolders(tmp_path):
    names = ["b/x.mkv", "a.mp4", "b/c/y.WEBM", "b/anim.gif", "z.mov"]
    for name in [*names, "a.jpg", "b/A.PNG", "b/notes.txt", "b/c/song.mp3", "all.zip", "run.py", "x.mp4.part"]:
        touch(tmp_path / name)
    result = find_videos([tmp_path])
    assert [file.path for file in result.files] == sorted(tmp_path / name for name in names)
    assert result.skipped == {
        "a picture": 2,
        "text": 1,
        "audio": 1,
        "an archive": 1,
        "code": 1,
        "an unfinished download": 1,
    }
    assert result.unreadable == []
    assert repr(result) == "FoundVideos(5 files, 7 skipped, 0 unreadable)"


def test_size_and_modification_time_are_reported(tmp_path):
    path = touch(tmp_path / "a.mp4", b"12345")
    os.utime(path, ns=(1, 1_600_000_000_123_456_789))
    (found,) = find_videos([tmp_path]).files
    assert found == FoundFile(path, 5, 1_600_000_000_123_456_789)
    assert found.volume == volume_of(tmp_path) is not None


def test_files_without_a_known_suffix_are_opened(tmp_path):
    clip = write_clip(tmp_path / "clip.ts", grey_frames(24))
    for name in ("video", "video.1", "recording.dat"):
        shutil.copy(clip, tmp_path / name)
    write_clip(tmp_path / "one.mp4", grey_frames(4)).rename(tmp_path / "IMG 7")
    touch(tmp_path / "script.ts", b"export const a = 1;\n" * 20)
    touch(tmp_path / "README", "grüße\n".encode() * 200)  # 1024 bytes end inside a character
    touch(tmp_path / "random.xyz", os.urandom(100_000))
    touch(tmp_path / "zeros", bytes(100_000))
    touch(tmp_path / "nothing", b"")
    touch(tmp_path / "playlist", b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n")
    Image.new("RGB", (8, 8)).save(tmp_path / "photo", "JPEG")
    Image.new("RGB", (8, 8)).save(tmp_path / "drawing", "PNG")
    result = find_videos([tmp_path])
    assert [file.path.name for file in result.files] == ["IMG 7", "clip.ts", "recording.dat", "video", "video.1"]
    assert result.skipped == {"text": 4, "a picture": 2, "not a video": 2}
    assert result.unreadable == []


def test_a_raw_stream_is_found_only_by_its_suffix(tmp_path):
    clip = write_clip(tmp_path / "clip.h264", grey_frames(24))
    shutil.copy(clip, tmp_path / "unnamed")
    result = find_videos([tmp_path])
    assert [file.path for file in result.files] == [clip]
    assert result.skipped == {"not a video": 1}


def test_files_with_known_suffixes_are_not_opened(tmp_path, monkeypatch):
    touch(tmp_path / "a.mp4")
    touch(tmp_path / "a.jpg")
    monkeypatch.setattr(find, "kind_by_content", None)
    assert found(tmp_path) == [tmp_path / "a.mp4"]


def test_hidden_paths_are_skipped_unless_given(tmp_path):
    hidden = touch(tmp_path / ".cache" / "a.mp4")
    below = touch(tmp_path / ".cache" / ".deep" / "b.mp4")
    single = touch(tmp_path / "c" / ".c.mp4")
    seen = touch(tmp_path / "c" / "d.mp4")
    result = find_videos([tmp_path])
    assert [file.path for file in result.files] == [seen]
    assert result.skipped == {"hidden": 2}
    assert found(tmp_path / ".cache") == [hidden]
    assert found(tmp_path, single, below) == sorted([below, single, seen])


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("@eaDir", "a folder of the system"),
        ("#recycle", "a folder of the system"),
        ("#snapshot", "a folder of the system"),
        ("@Recycle", "a folder of the system"),
        ("$RECYCLE.BIN", "a folder of the system"),
        ("$Recycle.Bin", "a folder of the system"),
        ("System Volume Information", "a folder of the system"),
        ("SYSTEM VOLUME INFORMATION", "a folder of the system"),
        ("lost+found", "a folder of the system"),
        ("@Transcode", "a folder of the system"),
        ("@tmp", "a folder of the system"),
        ("FOUND.000", "a folder of the system"),
        ("Recycler", "a folder of the system"),
        ("Network Trash Folder", "a folder of the system"),
        ("Temporary Items", "a folder of the system"),
        (".Trash-1000", "hidden"),
        (".Trashes", "hidden"),
        (".@__thumb", "hidden"),
    ],
)
def test_system_folders_are_skipped_unless_given(tmp_path, name, reason):
    seen = touch(tmp_path / "a" / "seen.mp4")
    inside = touch(tmp_path / "a" / name / "deep" / "x.mp4")
    result = find_videos([tmp_path])
    assert ([file.path for file in result.files], result.skipped) == ([seen], {reason: 1})
    assert found(tmp_path / "a" / name) == [inside]


def test_names_similar_to_system_folders_are_not_skipped(tmp_path):
    paths = [touch(tmp_path / name / "x.mp4") for name in ("@EADIR", "Lost+Found", "recycle", "lost+found 2")]
    shutil.copy(write_clip(tmp_path / "clip.ts", grey_frames(4)), tmp_path / "lost+found")
    assert found(tmp_path) == sorted([*paths, tmp_path / "clip.ts", tmp_path / "lost+found"])


def test_a_link_with_the_name_of_a_system_folder_is_skipped(tmp_path):
    path = touch(tmp_path / "elsewhere" / "x.mp4")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "#recycle").symlink_to(path.parent)
    assert found(tmp_path / "in") == []


def test_given_files_are_always_listed(tmp_path):
    paths = [touch(tmp_path / name) for name in ("a.txt", "b.jpg", "c", "d.mp4")]
    assert found(*paths) == paths
    assert found(tmp_path, *paths) == paths


def test_overlapping_paths_give_each_file_once(tmp_path):
    path = touch(tmp_path / "a" / "b" / "x.mp4")
    for paths in ([tmp_path, tmp_path / "a" / "b", path], [path, tmp_path / "a" / "b", tmp_path], [path, path]):
        result = find_videos(paths)
        assert [file.path for file in result.files] == [path]
        assert result.skipped == {}


def test_paths_are_absolute(tmp_path, monkeypatch):
    path = touch(tmp_path / "a" / "x.mp4")
    (tmp_path / "b").mkdir()
    monkeypatch.chdir(tmp_path / "b")
    assert found(Path("../a")) == [path]
    assert found(Path("../a/x.mp4")) == [path]
    monkeypatch.chdir(tmp_path)
    assert [file.path for file in find_videos(["a"]).files] == [path]


def test_links_are_followed_without_cycles(tmp_path):
    path = touch(tmp_path / "in" / "a" / "x.mp4")
    outside = touch(tmp_path / "out" / "y.mp4")
    (tmp_path / "in" / "a" / "circle").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "self").symlink_to(tmp_path / "in" / "self")
    (tmp_path / "in" / "more").symlink_to(tmp_path / "out")
    (tmp_path / "out" / "back").symlink_to(tmp_path / "in")
    result = find_videos([tmp_path / "in"])
    assert [file.path for file in result.files] == [path, tmp_path / "in" / "more" / outside.name]
    assert result.unreadable == [(tmp_path / "in" / "self", "a broken symbolic link")]


@pytest.mark.parametrize("link", ["0 first.mp4", "z last.mp4"])
def test_a_link_to_a_listed_file_is_skipped(tmp_path, link):
    path = touch(tmp_path / "k.mp4")
    (tmp_path / link).symlink_to(path)
    result = find_videos([tmp_path])
    assert [file.path for file in result.files] == [path]
    assert result.skipped == {"another name of a file that is listed": 1}


def test_a_link_to_a_listed_folder_is_skipped(tmp_path):
    path = touch(tmp_path / "m" / "k.mp4")
    for link in ("a", "z"):
        (tmp_path / link).symlink_to(tmp_path / "m")
    assert found(tmp_path) == [path]
    assert found(tmp_path / "a", tmp_path) == [path]
    assert found(tmp_path / "a", tmp_path / "z") == [tmp_path / "a" / "k.mp4"]


def test_the_first_of_several_links_to_a_file_is_listed(tmp_path):
    path = touch(tmp_path / "elsewhere" / "k.mp4")
    for link in ("c.mp4", "a.mp4", "b.mp4"):
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / link).symlink_to(path)
    assert found(tmp_path / "in") == [tmp_path / "in" / "a.mp4"]


def test_broken_links_are_reported(tmp_path):
    (tmp_path / "gone.mp4").symlink_to(tmp_path / "nowhere.mp4")
    (tmp_path / "gone.txt").symlink_to(tmp_path / "nowhere.txt")
    result = find_videos([tmp_path])
    assert result.unreadable == [(tmp_path / "gone.mp4", "a broken symbolic link")]
    assert result.skipped == {"text": 1}


def _library(folder: Path) -> Path:
    (folder / "database").mkdir(parents=True)
    (folder / "library.json").write_text("{}")
    touch(folder / "frames" / "x.mp4")
    return folder


def test_libraries_are_skipped(tmp_path):
    path = touch(tmp_path / "a.mp4")
    library = _library(tmp_path / "b" / "library")
    (tmp_path / "link").symlink_to(library)
    result = find_videos([tmp_path])
    assert [file.path for file in result.files] == [path]
    assert result.skipped == {"a library of vop": 1}
    only_a_file = touch(tmp_path / "c" / "y.mp4")
    touch(tmp_path / "c" / "library.json")
    assert found(tmp_path) == [path, only_a_file]


def test_the_skip_folder_is_skipped(tmp_path):
    path = touch(tmp_path / "a.mp4")
    touch(tmp_path / "new" / "b.mp4")
    (tmp_path / "link").symlink_to(tmp_path / "new")
    assert found(tmp_path, skip=tmp_path / "new") == [path]
    assert found(tmp_path, skip=tmp_path / "link") == [path]
    assert found(tmp_path, skip=tmp_path / "not there yet") == [path, tmp_path / "new" / "b.mp4"]


@pytest.mark.parametrize(
    "name", ["two\nlines.mp4", "🐕 dog 犬.mp4", " .mp4", "a:b%d.mp4", "-x.mp4", "x" * 250 + ".mp4"]
)
def test_unusual_names(tmp_path, name):
    path = touch(tmp_path / name)
    result = find_videos([tmp_path])
    assert [file.path for file in result.files] == [path]
    assert result.unreadable == []


def test_names_that_are_not_utf8_are_reported(tmp_path):
    good = touch(tmp_path / "good.mp4")
    bad, text, folder = (tmp_path / os.fsdecode(name) for name in (b"bad\xff.mp4", b"bad\xff.txt", b"\xfe"))
    touch(bad)
    touch(text)
    touch(folder / "x.mp4")
    result = find_videos([tmp_path])
    reason = "its name is not valid UTF-8 and cannot be stored: rename it"
    assert [file.path for file in result.files] == [good]
    assert result.unreadable == [(bad, reason), (folder, reason)]
    assert result.skipped == {"text": 1}
    assert find_videos([bad]).unreadable == [(bad, reason)]


def test_pipes_sockets_and_devices_are_never_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "device").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as listening:
        before = os.getcwd()
        os.chdir(tmp_path)  # a socket's name is limited to about 100 characters
        listening.bind("socket.mp4")
        os.chdir(before)
        result = find_videos([tmp_path])
    assert result.files == []
    assert result.skipped == {"neither a file nor a folder": 4}
    given = find_videos([tmp_path / "pipe"])
    assert given.unreadable == [(tmp_path / "pipe", "neither a file nor a folder")]


@pytest.fixture
def open_folder():
    """A folder for all users. A test may drop root's rights; they are restored afterwards."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    if os.getuid() == 0:
        os.seteuid(0)
    for path in folder.rglob("*"):
        path.chmod(0o700)
    shutil.rmtree(folder)


def test_paths_without_permission_are_reported(open_folder):
    good = touch(open_folder / "good.mp4")
    locked = touch(open_folder / "locked.mp4")
    unknown = touch(open_folder / "unknown")
    inside = touch(open_folder / "folder" / "x.mp4").parent
    for path in (locked, unknown, inside):
        path.chmod(0)
    if os.getuid() == 0:
        os.seteuid(65534)
    result = find_videos([open_folder])
    assert [file.path for file in result.files] == [good]
    assert result.unreadable == [(path, "Permission denied") for path in (inside, locked, unknown)]
    assert find_videos([locked]).unreadable == [(locked, "Permission denied")]
    with pytest.raises(UsageError, match=r"folder/x\.mp4' cannot be indexed: Permission denied"):
        find_videos([inside / "x.mp4"])


def test_a_folder_deleted_during_the_walk_is_reported(tmp_path, monkeypatch):
    path = touch(tmp_path / "a.mp4")
    folder = touch(tmp_path / "b" / "x.mp4").parent
    whole = os.stat

    def removing(place, **settings):
        status = whole(place, **settings)
        if str(place) == str(folder):
            shutil.rmtree(folder)
        return status

    monkeypatch.setattr(os, "stat", removing)
    result = find_videos([tmp_path])
    assert [file.path for file in result.files] == [path]
    assert result.unreadable == [(folder, "No such file or directory")]


@pytest.mark.parametrize("path", ["nowhere", "nowhere/x.mp4", "a.mp4/x.mp4", "broken.mp4", "x" * 300])
def test_a_missing_path_is_refused(tmp_path, path):
    touch(tmp_path / "a.mp4")
    (tmp_path / "broken.mp4").symlink_to(tmp_path / "nowhere.mp4")
    with pytest.raises(UsageError, match=rf"{path}' cannot be indexed: "):
        find_videos([tmp_path / path, tmp_path / "nothing either"])
    result = find_videos([tmp_path, tmp_path / path])
    assert [file.path for file in result.files] == [tmp_path / "a.mp4"]
    ((missing, reason),) = result.missing
    assert missing == tmp_path / path
    assert reason


def test_an_impossible_path_is_refused():
    with pytest.raises(UsageError, match=r"a\\x00b' cannot be indexed"):
        find_videos(["a\0b"])
    with pytest.raises(UsageError, match=r"\\ud800' cannot be indexed"):
        find_videos(["/tmp/\ud800"])


def test_an_empty_folder_gives_nothing(tmp_path):
    assert find_videos([tmp_path]) == find.FoundVideos()
    assert find_videos([]) == find.FoundVideos()


def test_deep_folders_are_walked_without_recursion(tmp_path):
    path = touch(tmp_path.joinpath(*["d"] * 150, "x.mp4"))
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack(0)) + 100)
    try:
        files = found(tmp_path)
    finally:
        sys.setrecursionlimit(before)
    assert files == [path]
