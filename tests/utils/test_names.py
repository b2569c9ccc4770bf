from __future__ import annotations

import unicodedata
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

from vop.utils.names import existing_path, letters, names_in, nfc, spellings


def nfd(text: str) -> str:
    return unicodedata.normalize("NFD", text)


@pytest.mark.parametrize("text", ["café", "Ångström", "한글", "が", "Việt", "क़", "神", "plain"])
def test_nfc(text):
    assert nfc(text) == nfc(nfd(text))


class TestExistingPath:
    @pytest.mark.parametrize("on_disk", [nfc, nfd])
    @pytest.mark.parametrize("typed", [nfc, nfd])
    def test_every_part_of_a_path_may_differ(self, tmp_path, on_disk, typed):
        path = tmp_path / on_disk("été") / nfd("Größe") / nfc("한글") / on_disk("é.mp4")
        path.parent.mkdir(parents=True)
        path.touch()
        assert existing_path(tmp_path / typed("été/Größe/한글/é.mp4")) == path
        assert existing_path(str(tmp_path / typed("été/Größe"))) == path.parents[1]

    def test_an_existing_path_is_returned_unchanged(self, tmp_path):
        for form in (nfc, nfd):
            (tmp_path / form("é")).mkdir()
            assert existing_path(tmp_path / form("é")) == tmp_path / form("é")

    def test_the_folder_that_has_the_file_is_chosen(self, tmp_path):
        (tmp_path / nfc("é")).mkdir()
        path = tmp_path / nfd("é") / "a.mp4"
        path.parent.mkdir()
        path.touch()
        assert existing_path(tmp_path / nfc("é") / "a.mp4") == path

    @pytest.mark.parametrize("missing", ["é", "é/a.mp4", "a.mp4/é", "x/é", "a\0é", "\ud800", "\udcffé", "é" * 300])
    def test_a_missing_path_gives_none(self, tmp_path, missing):
        (tmp_path / "a.mp4").touch()
        assert existing_path(tmp_path / missing) == tmp_path / missing

    def test_relative_paths_stay_relative(self, tmp_path, monkeypatch):
        (tmp_path / nfd("é") / nfd("ü")).mkdir(parents=True)
        monkeypatch.chdir(tmp_path / nfd("é"))
        assert existing_path(nfc("ü")) == Path(nfd("ü"))
        assert existing_path(nfc("../é/./ü")) == Path(nfd("../é/ü"))
        assert existing_path("") == Path(".")

    def test_links_are_kept(self, tmp_path):
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / nfd("é")).symlink_to(tmp_path / "elsewhere")
        (tmp_path / nfd("ü")).symlink_to(tmp_path / "nowhere")
        assert existing_path(tmp_path / nfc("é")) == tmp_path / nfd("é")
        assert existing_path(tmp_path / nfc("ü")) == tmp_path / nfd("ü")

    def test_only_folders_with_differing_names_are_listed(self, tmp_path):
        (tmp_path / "plain" / nfd("é")).mkdir(parents=True)
        for number in range(5):
            (tmp_path / "plain" / nfd("é") / f"{number}.mp4").touch()
        listed: Counter = Counter()

        @cache
        def counting(folder: Path) -> dict[str, list[str]]:
            listed[folder] += 1
            return names_in(folder)

        for number in range(5):
            existing_path(tmp_path / "plain" / nfc("é") / f"{number}.mp4", names_in=counting)
            existing_path(tmp_path / "plain" / "none" / f"{number}.mp4", names_in=counting)
        assert listed == {tmp_path / "plain": 1}


def test_names_in_a_folder(tmp_path):
    for name in (nfc("é"), nfd("é"), "a"):
        (tmp_path / name).touch()
    assert names_in(tmp_path) == {"a": ["a"], nfc("é"): [nfd("é"), nfc("é")]}
    assert names_in(tmp_path / "none") == names_in(tmp_path / "a") == {}


def test_letters():
    assert letters(nfd("aé한x̂")) == ["a", nfc("é"), nfc("한"), "x\u0302"]
    assert letters("\u0301a") == ["\u0301", "a"]
    assert letters("") == []


@pytest.mark.parametrize(
    ("letter", "wanted"),
    [
        ("a", {"a"}),
        ("/", {"/"}),
        ("\udcff", {"\udcff"}),
        ("x\u0302", {"x\u0302"}),  # has no precomposed form
        ("é", {"é", "e\u0301"}),
        ("Å", {"Å", "A\u030a", "\u212b"}),
        ("ệ", {"ệ", "ê\u0323", "ẹ\u0302", "e\u0323\u0302", "e\u0302\u0323"}),
        ("한", {"한", "하\u11ab", "\u1112\u1161\u11ab"}),
        ("क\u093c", {"क\u093c", "\u0958"}),  # composed in keyboards, decomposed in NFC
        ("神", {"神", "\ufa19"}),
    ],
)
def test_spellings_of_a_letter(letter, wanted):
    assert set(spellings(nfc(letter))) == wanted


def test_spellings_of_every_letter():
    """Except musical and mathematical symbols that NFC decomposes, and duplicates of K, ; and `."""
    for character in map(chr, [*range(0x2AD0), *range(0x2AE0, 0x1D100), *range(0x1D200, 0x30000)]):
        if nfd(character) != character and not nfc(character).isascii():
            (letter,) = letters(character)
            assert {character, nfc(character), nfd(character)} <= set(spellings(letter)), hex(ord(character))


def test_a_letter_with_many_marks():
    letter = "a" + "\u0301\u0323" * 1000
    assert nfd(letter) in spellings(nfc(letter))
