"""Libraries that cannot be opened, and invalid ids."""

from __future__ import annotations

import shutil

import pytest

from search.libraries import a_file, content_of, make_library
from vop.errors import UsageError, VopError
from vop.search.schema import segment_id
from vop.search.store import Store
from vop.search.sync.lock import check_folder

VIDEO = content_of("/v/a.mp4")
ATTACKS = ["../x", "/v/a.mp4", "' OR 1=1 --", "x' OR '1'='1", f"{VIDEO}' OR '1'='1", "%", "\udcff"]
BAD = ["", "\n", "😀", *ATTACKS, VIDEO.upper(), f"{VIDEO}0", f"{VIDEO}\n", f" {VIDEO}"]


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return make_library(tmp_path_factory.mktemp("ids") / "library", [a_file("/v/a.mp4")])


@pytest.mark.parametrize("bad", [*BAD, VIDEO, f"{VIDEO}-0-10000-1", f"{VIDEO}-0-10000\n", f"{VIDEO}-0-{10**13}"])
def test_invalid_segment_ids_are_refused(library, bad):
    with pytest.raises(UsageError, match="is not the id of a segment") as caught:
        library.segment(bad)
    assert repr(bad) in str(caught.value)


@pytest.mark.parametrize("bad", [*BAD, segment_id(VIDEO, (0.0, 10.0))])
def test_invalid_video_ids_are_refused(library, bad):
    with pytest.raises(UsageError, match="is not the id of a video") as caught:
        library.video(bad)
    assert repr(bad) in str(caught.value)


def test_unknown_ids_are_refused(library):
    with pytest.raises(UsageError, match=f"the library library has no segment {'0' * 32}-0-10000; it may have changed"):
        library.segment(f"{'0' * 32}-0-10000")
    with pytest.raises(UsageError, match=f"the library library has no video {'0' * 32}; it may have changed"):
        library.video("0" * 32)


class TestOpening:
    def test_a_file_is_refused(self, tmp_path):
        (tmp_path / "file").write_text("text")
        with pytest.raises(UsageError, match=f"{tmp_path}/file: .*vop index"):
            Store.open(tmp_path / "file")
        with pytest.raises(UsageError, match=f"{tmp_path}/file exists and is not a library"):
            check_folder(tmp_path / "file")

    def test_a_folder_with_other_files_is_refused(self, tmp_path):
        (tmp_path / "clip.mp4").touch()
        with pytest.raises(UsageError, match=f"{tmp_path} exists and is not a library"):
            check_folder(tmp_path)

    def test_new_empty_and_library_folders_are_accepted(self, tmp_path):
        check_folder(tmp_path / "new")
        check_folder(tmp_path)  # an empty folder
        library = make_library(tmp_path / "library", [])
        (library.path / ".lock").touch()
        check_folder(library.path)
        (library.path / "library.json").unlink()  # which is written last
        check_folder(library.path)

    @pytest.mark.parametrize("harm", ["folder", "table", "failures", "content"])
    def test_a_missing_database_is_reported(self, tmp_path, harm):
        path = make_library(tmp_path / "library", [a_file("/v/a.mp4")]).path
        database = path / "database"
        lost = {"folder": database, "table": database / "segments_0.lance", "failures": database / "failures.lance"}
        shutil.rmtree(lost.get(harm, database / "segments_0.lance" / "_versions"))
        with pytest.raises(VopError, match=f"{path}: its database cannot be read.*vop library check {path}"):
            Store.open(path)
