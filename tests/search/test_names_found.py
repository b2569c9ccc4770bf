"""Names in different forms of Unicode: macOS decomposes them (NFD), people and spreadsheets compose them (NFC)."""

from __future__ import annotations

import unicodedata
from itertools import cycle, islice, product
from pathlib import Path

import pytest
from PIL import Image

import vop
from search.filtered import found
from search.libraries import a_file, make_library
from search.owners_videos import rows, write_video
from vop.errors import UsageError
from vop.search.filters import Filters
from vop.search.store import Store
from vop.search.sync import forget, reader
from vop.search.sync.metadata import read_metadata
from vop.search.sync.scanner import is_below
from vop.video.find import absolute_path, find_videos
from vop.video.picture import is_picture


def nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def nfd(text: str) -> str:
    return unicodedata.normalize("NFD", text)


FORMS = [nfc, nfd]
HALF = "\u1eb9\u0302"  # ệ, partly composed, as Vietnamese keyboards on Windows write it


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


# One name in every mix of forms, and one that is only similar.
PATHS = [
    *(
        f"{folder(f'/v/été {n}/한글')}/{name('Größe ệ 한.mp4')}"
        for n, (folder, name) in enumerate(product(FORMS, FORMS))
    ),
    f"/v/{nfd('été 4')}/{nfc('한글')}/{nfd('Größe')} {HALF} {nfc('한')}.mp4",
]
OTHER = "/v/ete 5/하그/Grosse e 하.mp4"


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    files = [
        a_file(path, metadata={"année": form("Été 1"), "n": str(n)})
        for n, (path, form) in enumerate(zip(PATHS, islice(cycle(FORMS), len(PATHS)), strict=True))
    ]
    files.append(a_file(OTHER, metadata={"année": "Ete 1"}))
    return make_library(tmp_path_factory.mktemp("names") / "library", files, columns=["année", "n"])


class TestFilters:
    @pytest.mark.parametrize("form", FORMS)
    def test_folders_match_in_every_form(self, library, form):
        assert found(library, Filters(folder=form("한글"))) == set(PATHS)
        assert found(library, Filters(folder=form("한글/"))) == set(PATHS)
        for n, path in enumerate(PATHS):
            assert found(library, Filters(folder=form(f"été {n}"))) == {path}
            assert found(library, Filters(folder=form(f"/v/été {n}/한글/"))) == {path}
            assert found(library, Filters(folder=form("/v/") + nfc(f"été {n}/") + nfd("한글"))) == {path}
        for none in ("/été 1", "été", "한", "v/한글", "/v/e.te 1"):
            assert found(library, Filters(folder=form(none))) == set()

    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize(
        "name",
        [
            *("Größe ệ 한.mp4", "größe", "GRÖßE", "ệ", "ö", "ệ 한", "한.", "Größe*", "*한.mp4", "*Ệ*", "* ệ *"),
            *("Gr??e ? ?.mp4", "Gr??e*", "*?öß? *", "????? ? ?.???"),
        ],
    )
    def test_names_match_in_every_form(self, library, form, name):
        assert found(library, Filters(name=form(name))) == set(PATHS)

    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize("name", ["하", "하.", "*하*", "Gr???e*", "Gr???e ? ?.mp4", "?????? ? ?.???"])
    def test_similar_letters_match_only_themselves(self, library, form, name):
        assert found(library, Filters(name=form(name))) == {OTHER}

    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize("name", ["ê", "ẹ", "e?", "*ê*", "ệ*한", "Größ ?*", "Gr?ße ? 하.mp4"])
    def test_other_letters_match_nothing(self, library, form, name):
        assert found(library, Filters(name=form(name))) == set()

    def test_letters_with_several_code_points_match(self, tmp_path):
        names = ["\u212bngstr", "Ångstr", "A\u030angstr", "\ufa19", "神", "\u0958", "क\u093c"]
        library = make_library(tmp_path / "library", [a_file(f"/{name}/{name}.mp4") for name in names])
        for group in (names[:3], names[3:5], names[5:]):
            for name in group:
                paths = {f"/{other}/{other}.mp4" for other in group}
                assert found(library, Filters(folder=name)) == found(library, Filters(name=name)) == paths

    @pytest.mark.parametrize("form", FORMS)
    def test_metadata_matches_in_every_form(self, library, form):
        assert found(library, Filters(where=[form("année=Été 1")])) == set(PATHS)
        assert found(library, Filters(where=[form("année~été")])) == set(PATHS)
        assert found(library, Filters(where=[form("année!=Été 1")])) == {OTHER}
        assert found(library, Filters(where=[form("année!=Été 1"), "n>=0"])) == set()
        assert found(library, Filters(where=[form("année>=Été 1"), "n=0"])) == {PATHS[0]}

    @pytest.mark.parametrize("own", FORMS)
    @pytest.mark.parametrize("typed", FORMS)
    def test_columns_are_found_in_every_form(self, tmp_path, own, typed):
        files = [a_file("/v/a.mp4", metadata={own("année"): "2019"}), a_file("/v/b.mp4")]
        library = make_library(tmp_path / "library", files, columns=[own("année")])
        assert found(library, Filters(where=[typed("année=2019")])) == {"/v/a.mp4"}
        with pytest.raises(UsageError, match="'annee'"):
            found(library, Filters(where=["annee=2019"]))

    def test_conditions_are_plain_if_all_forms_are_equal(self):
        for filters in ({"folder": "/v/2024"}, {"folder": "x̂"}, {"name": "a*.mp4"}, {"name": "犬"}):
            assert "regexp" not in Filters(**filters).sql([])
        assert " OR " not in Filters(where=["a=犬"]).sql(["a"])

    @pytest.mark.parametrize("text", ["a", "é", "ệ", "한", "?", "é?", "?é*", "é*", "?*"])
    def test_long_texts_are_accepted(self, library, text):
        """No pattern is too large for the database."""
        for count in (50, 255, 1000, 5000):
            assert found(library, Filters(folder=text * count)) == set()
            assert found(library, Filters(name=text * count)) == set()


class TestMetadata:
    @pytest.mark.parametrize("on_disk", FORMS)
    @pytest.mark.parametrize("written", FORMS)
    def test_videos_match_in_every_form(self, tmp_path, on_disk, written):
        table = tmp_path / "t.csv"
        text = f"path,année,n\n/v/été/a.mp4,Noël,1\n한글/b.mp4,x,2\n../{tmp_path.name}/é/c.mp4,x,3\nÜ.mp4,x,4\n"
        table.write_text(written(text), encoding="utf-8")
        metadata = read_metadata(table)
        assert metadata.columns == (nfc("année"), "n")
        assert metadata.of(Path(on_disk("/v/été/a.mp4"))) == {nfc("année"): nfc("Noël"), "n": "1"}
        for number, path in enumerate((tmp_path / on_disk("한글/b.mp4"), tmp_path / on_disk("é/c.mp4")), start=2):
            assert metadata.of(path)["n"] == str(number)
        assert metadata.of(Path(on_disk("/anywhere/Ü.mp4")))["n"] == "4"

    def test_the_csv_file_is_found_in_every_form(self, tmp_path):
        (tmp_path / nfd("é.csv")).write_text("path,n\na.mp4,1\n")
        assert read_metadata(tmp_path / nfc("é.csv")).of(tmp_path / "a.mp4") == {"n": "1"}

    def test_equal_columns_are_refused(self, tmp_path):
        (tmp_path / "t.csv").write_text(f"path,{nfc('é')},{nfd('é')}\na.mp4,1,2\n")
        with pytest.raises(Exception, match="unique"):
            read_metadata(tmp_path / "t.csv")


@pytest.mark.parametrize("on_disk", FORMS)
@pytest.mark.parametrize("typed", FORMS)
class TestScan:
    def test_given_paths_are_found(self, tmp_path, on_disk, typed):
        path = touch(tmp_path / on_disk("été") / on_disk("한글.mp4"))
        for given in ("été", "été/한글.mp4", "été/../été"):
            assert [file.path for file in find_videos([tmp_path / typed(given)]).files] == [path]

    def test_a_folder_can_be_skipped(self, tmp_path, on_disk, typed):
        touch(tmp_path / on_disk("été") / "a.mp4")
        path = touch(tmp_path / "b.mp4")
        assert [file.path for file in find_videos([tmp_path], skip=tmp_path / typed("été")).files] == [path]

    def test_the_parent_of_a_link_is_resolved(self, tmp_path, on_disk, typed):
        path = touch(tmp_path / "elsewhere" / "a.mp4")
        (tmp_path / "elsewhere" / "deep").mkdir()
        (tmp_path / on_disk("é")).symlink_to(tmp_path / "elsewhere" / "deep")
        assert absolute_path(tmp_path / typed("é") / ".." / "a.mp4") == path

    def test_paths_below_a_folder_are_recognised(self, tmp_path, on_disk, typed):
        roots = {Path(typed("/v/été")), Path("/w")}
        assert is_below(on_disk("/v/été/한글/a.mp4"), roots)
        assert is_below(Path(on_disk("/v/été")), frozenset(roots))
        assert not is_below(on_disk("/v/été 2/a.mp4"), roots)
        assert not is_below(on_disk("/v/été"), set())


class TestIndex:
    @pytest.fixture
    def videos(self, tmp_path) -> list[Path]:
        folder = tmp_path / "videos" / nfd("été") / nfd("한글")
        return [write_video(folder / nfd(f"é{number}.mp4"), seed=number) for number in range(2)]

    def test_a_folder_renamed_to_another_form_has_moved(self, index_videos, folder, videos, tmp_path, no_decoding):
        assert index_videos().added == 2
        before = {row["path"]: row["embedding_1"] for row in rows(folder).values()}
        assert set(before) == {str(path) for path in videos}
        for path in videos:
            path.rename(path.with_name(nfc(path.name)))
        for place in (videos[0].parent, videos[0].parents[1]):
            place.rename(place.with_name(nfc(place.name)))
        no_decoding()
        report = index_videos()
        assert (report.moved, report.added, report.changed, report.deleted) == (2, 0, 0, 0)
        assert {row["path"]: row["embedding_1"] for row in rows(folder).values()} == {
            nfc(path): embedding for path, embedding in before.items()
        }

    def test_a_folder_may_be_given_in_two_forms(self, index_videos, folder, videos, tmp_path, monkeypatch):
        index_videos(tmp_path / "videos" / nfc("été"))
        monkeypatch.setattr(reader, "content_id", lambda path: pytest.fail(f"{path} was hashed"))
        for form in FORMS:
            assert index_videos(tmp_path / "videos" / form("été")).unchanged == 2
        assert set(Store.open(folder).videos()) == {str(path) for path in videos}

    def test_deleted_files_are_pruned(self, index_videos, folder, videos, tmp_path):
        index_videos()
        videos[0].unlink()
        assert index_videos(tmp_path / "videos" / nfc("été")).deleted == 1
        assert index_videos(tmp_path / "videos" / nfc("été"), prune=True).removed == 1
        assert forget(folder, [tmp_path / "videos" / nfc("été/한글/é1.mp4")]) == 1

    def test_metadata_is_compared_and_stored_composed(self, index_videos, folder, videos, tmp_path):
        (tmp_path / "about.csv").write_text(nfd("path,année\nvideos/été/한글/é0.mp4,Noël\né1.mp4,Été\n"))
        index_videos(metadata=tmp_path / "about.csv")
        assert Store.open(folder).columns == [nfc("année")]
        assert {row[f"about_{nfc('année')}"] for row in rows(folder).values()} == {nfc("Noël"), nfc("Été")}
        (tmp_path / "about.csv").write_text(nfc((tmp_path / "about.csv").read_text()))
        assert index_videos(metadata=tmp_path / "about.csv").described == 0


@pytest.mark.parametrize("given", FORMS)
def test_files_and_libraries_are_found_in_any_form(tiny_folder, tmp_path, given):
    written = nfd if given is nfc else nfc
    folder = tmp_path / written("Zürich")
    video = write_video(folder / written("Kühe.mp4"), seed=1)
    picture = folder / written("Kühe.png")
    Image.new("RGB", (32, 32)).save(picture)
    library = vop.Library.create(folder / written("Bücher"), model=str(tiny_folder), num_frames=2, precision="fp32")
    library.index([folder])
    asked = tmp_path / given("Zürich")
    assert vop.probe(asked / given("Kühe.mp4")).num_frames == vop.probe(video).num_frames
    assert is_picture(asked / given("Kühe.png"))
    opened = vop.Library.open(asked / given("Bücher"))
    for query in (given("Kühe.mp4"), given("Kühe.png")):
        assert [moment.path for moment in opened.search(asked / query, k=1)] == [str(video)]
    assert opened.mark([asked / given("Kühe.mp4")], add=["cows"]) == 1
