"""Subtitle files, subtitle tracks and sound are read with times from the video's first frame."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from search.words_media import srt, write_media
from vop.errors import UsageError, VideoError
from vop.search.words import speech, whisper
from vop.search.words.lines import Line, within
from vop.search.words.sidecars import find_sidecars
from vop.search.words.speech import SpokenLine, open_recognizer, pieces, spoken_lines
from vop.search.words.subtitles import SubtitleError, parse
from vop.search.words.tracks import SAMPLE_RATE, NoSound, read_sound, read_tracks

ENCODED = {
    "utf-8": ["Ein Hund läuft am Strand", "犬"],
    "utf-8-sig": ["Ein Hund läuft am Strand"],
    "utf-16": ["Ein Hund läuft", "犬が走る"],
    "utf-16-le": ["A dog runs on the beach"],
    "cp1252": [
        "Où est le château ?",
        "C'est l'été, à Besançon.",
        "Voilà pourquoi il a quitté la forêt.",
        "Une crêpe !",
    ],
    "cp1251": ["Собака бежит по берегу моря", "Добрый вечер, друзья"],
    "cp932": ["犬が浜辺を走っています", "今日はとても良い天気ですね"],
    "gb18030": ["一只狗在海滩上奔跑", "今天天气很好，我们去公园吧"],
}
ASS = r"""[Script Info]
ScriptType: v4.00+
[V4+ Styles]
Format: Name, Fontname, Fontsize
Style: Default,Arial,20
[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
Dialogue: 0,0:00:01.00,0:00:03.00,Default,,0,0,0,,{\pos(1,2)\i1}Hello,\Nworld{\i0} again, you
Dialogue: 0,0:00:01.00,0:00:03.00,Default,,0,0,0,,{\p1}m 0 0 l 10 10{\p0}
Comment: 0,0:00:05.00,0:00:06.00,Default,,0,0,0,,a note
"""
VTT = """WEBVTT - a title

NOTE a comment

STYLE
::cue { color: red }

cue-1
00:01.000 --> 00:02.500 align:start
<v Bob>Hello <c.red>there</c> &amp; you</v>

00:00:03.000 --> 00:00:03.000
zero <00:00:03.100>length, 2 < 3
"""


@pytest.mark.parametrize("encoding", ENCODED)
def test_encodings(encoding):
    texts = ENCODED[encoding]
    content = srt(*((number, number + 1.5, text) for number, text in enumerate(texts))).encode(encoding)
    assert [line.text for line in parse(content, "a.srt")] == texts


def test_markup_is_removed():
    (line,) = parse(ASS.encode(), "a.ASS", offset_seconds=-0.5)
    assert line == Line(text="Hello, world again, you", start_seconds=0.5, end_seconds=2.5, source="a.ASS")
    assert [(line.text, line.start_seconds, line.end_seconds) for line in parse(VTT.encode(), "a.vtt")] == [
        ("Hello there & you", 1.0, 2.5),
        ("zero length, 2 < 3", 3.0, 3.0),
    ]
    (line,) = parse(srt((1, 2, "<font color='red'><i>Hi</i></font>\n{\\an8}you")).encode(), "a.srt")
    assert line.text == "Hi you"


@pytest.mark.parametrize("content", [b"", b"hello world", b"\x00\x01\xff" * 50, b"1\n00:00 --> what\nx\n"])
def test_broken_files(content):
    with pytest.raises(SubtitleError):
        parse(content, "a.srt")


def test_lines_are_limited_to_the_video():
    lines = [
        Line(text=text, start_seconds=start, end_seconds=end, source="s")
        for text, start, end in [
            ("b", 2.0, 9.0),
            ("a", -1.0, 1.0),
            ("early", -2.0, -1.0),
            ("late", 5.0, 6.0),
            ("", 1, 2),
            ("back", 3.0, 1.0),
            ("b", 2.0, 9.0),
        ]
    ]
    kept, late = within(lines, 5.0)
    assert [(one.text, one.start_seconds, one.end_seconds) for one in kept] == [
        ("a", 0.0, 1.0),
        ("b", 2.0, 5.0),
        ("back", 3.0, 3.0),
    ]
    assert late == 1


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mp4", "mov_text"), ("a.mkv", "subrip"), ("b.mkv", "ass"), ("a.webm", "webvtt")]
)
def test_text_tracks(tmp_path, name, codec):
    cues = [(1.5, 2.0, r"{\i1}Hello{\i0}, wörld"), (2.5, 3.0, "犬が走る")]
    found = read_tracks(write_media(tmp_path / name, begins=1.0, tracks=[(codec, {"language": "eng"}, cues)]))
    assert [(line.text, line.source) for line in found.lines] == [
        ("Hello, wörld", "track 1 (eng)"),
        ("犬が走る", "track 1 (eng)"),
    ]
    assert [line.start_seconds for line in found.lines] == pytest.approx([0.5, 1.5], abs=0.01)
    assert found.skipped == []


@pytest.mark.parametrize(
    ("name", "codec", "kind"), [("a.mkv", "dvd_subtitle", "VobSub"), ("a.ts", "dvb_subtitle", "DVB")]
)
def test_pictures_of_text_are_named(tmp_path, name, codec, kind):
    found = read_tracks(write_media(tmp_path / name, images=codec))
    assert found.lines == []
    (reason,) = found.skipped
    assert "track 1" in reason
    assert kind in reason


@pytest.mark.parametrize(
    ("name", "begins", "sound_begins", "heard"),
    [("a.mp4", 0.0, 0.0, 0.0), ("b.mkv", 1.0, 0.0, 0.0), ("c.ts", 1.0, 2.0, 1.0), ("d.webm", 0.0, 1.0, 1.0)],
)
def test_sound_begins_at_the_first_frame(tmp_path, name, begins, sound_begins, heard):
    """A tone of 2 s is where it is heard beside the pictures; what sounds before them is left out."""
    tone = (np.sin(np.arange(2 * 22_050) / 5) * 8000).astype(np.int16)
    path = write_media(tmp_path / name, begins=begins, sound=tone, sound_begins=sound_begins)
    samples = np.concatenate(list(read_sound(path)))
    loud = np.flatnonzero(np.abs(samples) > 2000) / SAMPLE_RATE
    assert loud[0] == pytest.approx(heard, abs=0.03)
    assert loud[-1] == pytest.approx(sound_begins + 2 - begins, abs=0.03)
    # Players start with whatever comes first in the file, and so do files of subtitles.
    assert read_tracks(path).start_seconds == pytest.approx(min(0, sound_begins - begins), abs=0.03)


def test_no_sound(tmp_path):
    with pytest.raises(NoSound):
        list(read_sound(write_media(tmp_path / "a.mp4")))
    broken = write_media(tmp_path / "b.mkv", sound=np.ones(22_050, np.int16))
    broken.write_bytes(broken.read_bytes()[:60])
    with pytest.raises(VideoError):
        list(read_sound(broken))


def test_files_beside_videos(tmp_path):
    names = ["talk.mp4", "talk.en.mkv", "Other.MOV", "2024.mp4"]
    sidecars = [
        "talk.srt",
        "talk.en.srt",
        "TALK.en.forced.vtt",
        "other.SRT",
        "other.de.Ass",
        "2024.07.01.srt",
        ".x.srt",
    ]
    for name in [*names, *sidecars, "talk.txt"]:
        (tmp_path / name).touch()
    found = find_sidecars([tmp_path / name for name in names], frozenset())
    assert {path.name: [one.name for one in own] for path, own in found.items()} == {
        "talk.mp4": ["talk.srt"],
        "talk.en.mkv": ["TALK.en.forced.vtt", "talk.en.srt"],
        "Other.MOV": ["other.SRT", "other.de.Ass"],
    }


class Loudness:
    """Stands in for a recognizer: a line for each recording, with its length."""

    def transcribe(self, samples):
        yield SpokenLine(f" {len(samples)} ", 0.5, 1.0)


def test_long_recordings_are_cut_where_they_are_quiet(monkeypatch):
    loud = np.full(3 * SAMPLE_RATE, 1000, np.int16)
    quiet = np.zeros(SAMPLE_RATE, np.int16)
    sound = [loud, quiet, loud, loud, quiet, loud]
    found = list(pieces(sound, seconds=5.0))
    assert sum(len(samples) for _, samples in found) == 14 * SAMPLE_RATE
    assert 3.0 <= found[1][0] / SAMPLE_RATE <= 4.0
    assert found[0][1].dtype == np.float32
    assert found[0][1].max() == pytest.approx(1000 / 32768)
    monkeypatch.setattr(speech, "PIECE_SECONDS", 5.0)
    lines = spoken_lines(Loudness(), sound)
    assert [line.text for line in lines] == [str(14 * SAMPLE_RATE)]  # half an hour, by default
    assert (lines[0].source, lines[0].matched, lines[0].start_seconds) == ("speech", "heard", 0.5)


# -- Whisper


class Model:
    """Stands in for `faster_whisper.WhisperModel`, whose weights cannot be downloaded here."""

    def __init__(self, name: str) -> None:
        if name == "missing/model":
            raise OSError("no such repository")
        self.name, self.calls = name, []

    def transcribe(self, samples, **settings):
        self.calls.append((samples.dtype, len(samples), settings))
        return iter([SimpleNamespace(text=" Good morning.", start=0.25, end=1.5)]), SimpleNamespace(language="en")


def test_whisper(monkeypatch, tmp_path):
    import faster_whisper

    real = faster_whisper.WhisperModel.transcribe.__code__.co_varnames
    monkeypatch.setattr(faster_whisper, "WhisperModel", Model)
    recognizer = open_recognizer("Systran/faster-whisper-small")
    assert isinstance(recognizer, whisper.WhisperRecognizer)
    (line,) = spoken_lines(recognizer, [np.zeros(32_000, np.int16)])
    assert line == Line(text="Good morning.", start_seconds=0.25, end_seconds=1.5, source="speech")
    ((dtype, length, settings),) = recognizer._model.calls
    assert (dtype, length) == (np.float32, 32_000)
    assert settings.keys() <= set(real)
    with pytest.raises(UsageError, match="missing/model"):
        open_recognizer("missing/model")
    with pytest.raises(UsageError, match=r"model\.bin"):
        open_recognizer(str(tmp_path))
    (tmp_path / "model.bin").touch()
    assert open_recognizer(str(tmp_path))._model.name == str(tmp_path)
    assert open_recognizer("whisper:small")._model.name == "small"


def test_the_extra_is_missing(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "faster_whisper", None)
    with pytest.raises(UsageError, match=r"vop\[speech\]"):
        open_recognizer("small")
