"""Time stamps that restart, jump or are wrong, and frozen pictures. FFmpeg's command is the reference."""

from __future__ import annotations

import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clips import grey_frames, numbers, packets_of, write_clip, write_tone
from vop.errors import VideoError
from vop.video.clock import Clock
from vop.video.frames import read_frames, video_timeline
from vop.video.timeline import without_restarts, without_strays

SECOND = 90_000  # in ticks of MPEG-TS
MIDDLES = [1, 4, 7, 10, 13, 16, 19, 22]  # frames in the middle of eight intervals of three
FINE = {"qmin": "1", "qmax": "2"}
B_FRAMES = {"bf": "2", "g": "8", "keyint_min": "8", "sc_threshold": "0"}


def write_recording(
    path: Path, frames, *, codec="libx264", rate=10, options=None, sound: dict | None = None, container=None
) -> Path:
    """Write frames with sound; `sound` has the arguments of `write_tone`, and `container` is the format."""
    with av.open(str(path), "w", format=container) as output:
        stream = output.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt, stream.options = 64, 48, "yuv420p", options or {}
        if sound:
            write_tone(output, **sound)
        for pixels in frames:
            output.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        output.mux(stream.encode())
    return path


def join(path: Path, lengths: list[int], sounds: list[float] | None = None, *, sound=None, **settings) -> Path:
    """Write numbered frames as recordings of these lengths, with so many seconds of sound, and join their bytes."""
    frames, parts = grey_frames(sum(lengths)), []
    for length, seconds in zip(lengths, sounds or [0] * len(lengths), strict=True):
        heard = {"seconds": seconds, **(sound or {})} if seconds else None
        parts.append(write_recording(path.with_stem("part"), frames[:length], sound=heard, **settings).read_bytes())
        frames = frames[length:]
    path.write_bytes(b"".join(parts))
    return path


def recording(path: Path, *, frames=None, **settings) -> Path:
    """Write 24 frames in 2.4 s."""
    return write_clip(path, grey_frames(24) if frames is None else frames, rate=10, options=B_FRAMES, **settings)


def chosen(path: Path, num_frames: int = 8) -> list[int]:
    return numbers(read_frames(path, num_frames=num_frames, size=8))


def patch_times(path: Path, change: Callable[[int, int], int], *, sound: bool = False) -> None:
    """Rewrite the time stamps of an MPEG-TS file: `change` takes a frame's number and one of its stamps.

    With `sound`, also those of sound, with the number of the frame that is shown meanwhile.
    """
    data, number, start = bytearray(path.read_bytes()), 0, None
    for packet in range(0, len(data), 188):
        begins = packet + 4 + (1 + data[packet + 4] if data[packet + 3] & 0x20 else 0)
        if not data[packet + 1] & 0x40 or data[begins : begins + 3] != b"\0\0\1":
            continue
        start = _read_time(data, begins + 9) if start is None else start
        is_sound = data[begins + 3] != 0xE0
        if is_sound and not sound:
            continue
        shown = (_read_time(data, begins + 9) - start) * 10 // SECOND if is_sound else number
        for place in (begins + 9, begins + 14)[: 2 if data[begins + 7] & 0x40 else 1]:
            _write_time(data, place, change(shown, _read_time(data, place)) % 2**33)
        number += not is_sound
    path.write_bytes(data)


def _read_time(data: bytearray, place: int) -> int:
    a, b, c, d, e = data[place : place + 5]
    return (a >> 1 & 7) << 30 | b << 22 | c >> 1 << 15 | d << 7 | e >> 1


def _write_time(data: bytearray, place: int, time: int) -> None:
    marks = data[place] & 0xF1
    fields = [marks | time >> 30 << 1, time >> 22 & 255, time >> 15 & 127, time >> 7 & 255, time & 127]
    data[place : place + 5] = bytes([fields[0], fields[1], fields[2] << 1 | 1, fields[3], fields[4] << 1 | 1])


def test_joined_recordings_play_one_after_the_other(tmp_path):
    first = recording(tmp_path / "first.ts", frames=grey_frames(24)[:12])
    second = recording(tmp_path / "second.ts", frames=grey_frames(24)[12:])
    joined = tmp_path / "joined.ts"
    joined.write_bytes(first.read_bytes() + second.read_bytes())
    timeline = video_timeline(joined)
    assert (len(timeline.stamps), timeline.duration_seconds) == (24, 2.4)
    assert chosen(joined) == MIDDLES
    assert numbers(read_frames(joined, num_frames=3, size=8, start_seconds=1.0, end_seconds=1.6)) == [11, 13, 15]


NO_B_FRAMES = {"bf": "0", "g": "8"}
WITH_SOUND: dict[str, dict] = {  # in these files, the streams restart at different packets
    "mp2.ts": {"options": NO_B_FRAMES, "sound": {"codec": "mp2", "rate": 48000}},
    "ac3.ts": {"options": B_FRAMES, "sound": {"codec": "ac3", "rate": 48000}},
    "ac3.m2ts": {"options": NO_B_FRAMES, "sound": {"codec": "ac3", "rate": 48000}},
    "ac3.vob": {"codec": "mpeg2video", "options": NO_B_FRAMES, "sound": {"codec": "ac3", "rate": 48000}, "rate": 25},
    "mp2.mpg": {"codec": "mpeg2video", "options": B_FRAMES, "sound": {"codec": "mp2", "rate": 48000}, "rate": 25},
}


def sound_of(path: Path) -> tuple[float, float]:
    """When a file's sound begins and ends by its corrected clock, in seconds from the first frame."""
    times: dict[str, list[float]] = {"audio": [], "video": []}
    with av.open(str(path)) as container:
        clock = Clock(container)
        for packet in container.demux():
            if packet.dts is not None:
                clock.set(packet)
                times[packet.stream.type].append(float(packet.pts * packet.time_base))
    return times["audio"][0] - times["video"][0], times["audio"][-1] - times["video"][0]


@pytest.mark.parametrize("name", WITH_SOUND)
@pytest.mark.parametrize("lengths", [[12, 12], [8, 8, 8]], ids=str)
@pytest.mark.parametrize("share", [1, 0.8, 1.2], ids=lambda share: f"sound {share}")
def test_joined_recordings_with_sound_play_one_after_the_other(tmp_path, name, lengths, share):
    kind = WITH_SOUND[name]
    rate = kind.get("rate", 10)
    path = join(tmp_path / name, lengths, [share * length / rate for length in lengths], **kind)
    timeline = video_timeline(path)
    assert len(timeline.stamps) == 24
    assert timeline.duration_seconds == pytest.approx(24 / rate, abs=0.001)
    assert chosen(path) == MIDDLES
    last = lengths[-1] / rate
    assert sound_of(path) == pytest.approx((0, 24 / rate - last + share * last), abs=0.12)


@pytest.mark.parametrize("name", WITH_SOUND)
@pytest.mark.parametrize("sounds", [(0, 1, 1), (1, 0, 1), (1, 1, 0), (1, 0, 0)], ids=str)
def test_some_of_the_joined_recordings_have_no_sound(tmp_path, name, sounds):
    kind = WITH_SOUND[name]
    rate = kind.get("rate", 10)
    path = join(tmp_path / name, [8, 8, 8], [8 / rate * heard for heard in sounds], **kind)
    assert video_timeline(path).duration_seconds == pytest.approx(24 / rate, abs=0.001)
    assert chosen(path) == MIDDLES


MATROSKA: dict[str, dict] = {
    "clip.mkv": {"options": B_FRAMES},
    "clip.webm": {"codec": "libvpx", "options": {"g": "8", "crf": "4", "b": "1M"}},
    "intra.mkv": {"codec": "ffv1"},
}


@pytest.mark.parametrize("name", MATROSKA)
@pytest.mark.parametrize("lengths", [[12, 12], [4, 20], [20, 4]], ids=str)
def test_short_recordings_joined_in_matroska_play_one_after_the_other(tmp_path, name, lengths):
    path = join(tmp_path / name, lengths, **MATROSKA[name])
    timeline = video_timeline(path)
    assert (len(timeline.stamps), timeline.duration_seconds) == (24, pytest.approx(2.4))
    assert chosen(path) == MIDDLES
    assert numbers(read_frames(path, num_frames=2, size=8, start_seconds=1.05, end_seconds=1.45)) == [11, 13]


def test_recordings_with_sound_are_joined_in_matroska(tmp_path):
    path = join(tmp_path / "clip.mkv", [12, 12], [1.2, 1.2], options=B_FRAMES)
    assert video_timeline(path).duration_seconds == pytest.approx(2.4)
    assert chosen(path) == MIDDLES


def test_joined_ivf_files_are_refused(tmp_path):
    path = join(tmp_path / "clip.ivf", [12, 12], codec="libvpx")
    with pytest.raises(VideoError):
        video_timeline(path)


@pytest.mark.parametrize("lengths", [[24], [8, 16]], ids=str)
@pytest.mark.parametrize("codec", ["mpeg1video", "mpeg2video", "mpeg4"])
def test_bare_streams_with_b_frames(tmp_path, codec, lengths):
    path, bare = tmp_path / "clip.bin", {"mpeg4": "m4v"}.get(codec, codec)
    options = {"g": "12", "bf": "2", **FINE}
    join(path, lengths, rate=25, codec=codec, container=bare, options=options)
    assert video_timeline(path).duration_seconds == pytest.approx(0.96)
    assert chosen(path) == MIDDLES
    assert chosen(path, 24) == list(range(24))


def test_a_damaged_ivf_file_is_as_long_as_its_frames(tmp_path):
    path = write_clip(tmp_path / "clip.ivf", grey_frames(12), rate=10, codec="libvpx", options={"g": "4"})
    data = bytearray(path.read_bytes())
    position, _ = packets_of(path)[11]
    data[position + 4 : position + 12] = b"\x7f" * 8  # the last frame's time
    path.write_bytes(data)
    assert video_timeline(path).duration_seconds == pytest.approx(1.1)
    assert chosen(path, 11) == list(range(11))


JUMPS: dict[str, Callable[[int, int], int]] = {
    "leap": lambda number, time: time + (7200 * SECOND if number >= 10 else 0),  # two hours are skipped
    "restart": lambda number, time: time - (1 * SECOND if number >= 16 else 0),  # the clock is set back
    "wrap": lambda number, time: time + 2**33 - 2 * SECOND,  # the 33-bit counter overflows
}
STRAYS: dict[str, Callable[[int, int], int]] = {
    "late": lambda number, time: time + (7200 * SECOND if number == 10 else 0),
    "early": lambda number, time: time - (100 * SECOND if number == 16 else 0),
}


@pytest.mark.parametrize("change", (JUMPS | STRAYS).values(), ids=JUMPS | STRAYS)
def test_jumps_of_a_broadcast_clock_are_corrected(tmp_path, change):
    path = recording(tmp_path / "clip.ts")
    patch_times(path, change)
    assert video_timeline(path).duration_seconds == pytest.approx(2.4, abs=0.01)
    assert chosen(path) == MIDDLES


@pytest.mark.parametrize("name", JUMPS | STRAYS)
@pytest.mark.parametrize("options", [B_FRAMES, NO_B_FRAMES], ids=["B-frames", "none"])
def test_jumps_of_a_broadcast_clock_are_corrected_with_sound(tmp_path, name, options):
    path = write_recording(tmp_path / "clip.ts", grey_frames(24), options=options, sound={"seconds": 2.4})
    patch_times(path, (JUMPS | STRAYS)[name], sound=name in JUMPS)
    assert video_timeline(path).duration_seconds == pytest.approx(2.4, abs=0.01)
    assert chosen(path) == MIDDLES
    assert sound_of(path) == pytest.approx((0, 2.4), abs=0.2)


@pytest.mark.parametrize("number", [5, 10, 18])
@pytest.mark.parametrize("milliseconds", [3000, 30_000, -30_000])
def test_a_single_wrong_time_stamp_is_corrected(tmp_path, number, milliseconds):
    path = recording(tmp_path / "clip.mkv")
    data, (position, _) = bytearray(path.read_bytes()), packets_of(path)[number]
    block = data.index(b"\xa3", position)  # SimpleBlock: track, time in its cluster, flags
    place = block + 1 + _length_of_size(data[block + 1]) + 1
    (time,) = struct.unpack_from(">h", data, place)
    struct.pack_into(">h", data, place, max(min(time + milliseconds, 2**15 - 1), -(2**15)))
    path.write_bytes(data)
    assert video_timeline(path).duration_seconds == pytest.approx(2.4, abs=0.15)
    assert chosen(path) == MIDDLES


def _length_of_size(first: int) -> int:
    return 9 - first.bit_length()


def test_a_long_gap_is_a_frozen_picture(tmp_path):
    stamps = [40 * number + (3_600_000 if number >= 12 else 0) for number in range(24)]
    path = write_clip(tmp_path / "paused.mkv", grey_frames(24), stamps=stamps, options=B_FRAMES)
    assert video_timeline(path).duration_seconds == pytest.approx(3600.96, abs=0.01)
    assert chosen(path) == [11] * 8


def test_the_last_picture_lasts_as_long_as_the_sound(tmp_path):
    path = tmp_path / "stands.mkv"
    write_recording(path, grey_frames(24), sound={"seconds": 6.0})
    assert video_timeline(path).duration_seconds == pytest.approx(6.0, abs=0.1)
    assert chosen(path, 4) == [7, 22, 23, 23]


@pytest.mark.parametrize("name", ["sound.mp4", "sound.mkv"])
def test_slightly_longer_sound_is_padding(tmp_path, name):
    path = write_clip(tmp_path / name, grey_frames(12), audio=True)  # 0.48 s of pictures, 0.5 s of sound
    assert video_timeline(path).duration_seconds == pytest.approx(0.48)


# Empty packets: the picture freezes.


def mp4_with_empty_samples(path: Path, which: list[int]) -> None:
    """Empty samples of an MP4 file: set their size to 0 and remove their data."""
    data, spots = bytearray(path.read_bytes()), packets_of(path)
    sizes, offsets = data.index(b"stsz") + 16, data.index(b"stco") + 8
    cuts = sorted((spots[number] for number in which), reverse=True)
    for number in which:
        struct.pack_into(">I", data, sizes + 4 * number, 0)
    (chunks,) = struct.unpack_from(">I", data, offsets)
    for chunk in range(chunks):
        (offset,) = struct.unpack_from(">I", data, offsets + 4 + 4 * chunk)
        removed = sum(size for position, size in cuts if position < offset)
        struct.pack_into(">I", data, offsets + 4 + 4 * chunk, offset - removed)
    box = data.index(b"mdat") - 4
    (size,) = struct.unpack_from(">I", data, box)
    struct.pack_into(">I", data, box, size - sum(size for _, size in cuts))
    for position, size in cuts:
        del data[position : position + size]
    path.write_bytes(data)


def test_empty_mp4_samples_at_the_end_repeat_the_picture(tmp_path):
    path = write_clip(tmp_path / "clip.mp4", grey_frames(24), rate=10, options={"bf": "0"})
    mp4_with_empty_samples(path, list(range(18, 24)))
    assert video_timeline(path).duration_seconds == pytest.approx(2.4)
    assert chosen(path) == [1, 4, 7, 10, 13, 16, 17, 17]


def test_empty_mp4_samples_in_the_middle_repeat_the_picture(tmp_path):
    path = write_clip(tmp_path / "clip.mp4", grey_frames(24), rate=10, options={"g": "1"})
    mp4_with_empty_samples(path, list(range(6, 12)))
    assert chosen(path) == [1, 4, 5, 5, 13, 16, 19, 22]


def test_empty_mp4_samples_among_b_frames_repeat_the_picture(tmp_path):
    options = {"x264-params": "keyint=24:bframes=2:b-adapt=0:b-pyramid=0:scenecut=0"}
    path = write_clip(tmp_path / "clip.mp4", grey_frames(24), rate=10, options=options)
    mp4_with_empty_samples(path, [2, 3])  # the two frames between the first and the fourth
    assert chosen(path) == [0, 4, 7, 10, 13, 16, 19, 22]


def write_avi(path: Path, source: Path, *, drop: set[int] = frozenset(), trailing: int = 0) -> None:
    """Copy an AVI file, with empty chunks in place of some frames and `trailing` more at the end."""
    data = source.read_bytes()
    movie, index = data.index(b"movi"), data.rindex(b"idx1")
    (size,) = struct.unpack_from("<I", data, index + 4)
    chunks = []
    for place in range(index + 8, index + 8 + size, 16):
        name, flags, offset, length = struct.unpack_from("<4sIII", data, place)
        number = len(chunks)
        content = b"" if number in drop else data[movie + offset + 8 : movie + offset + 8 + length]
        chunks.append((name, flags, content))
    chunks += [(name, 0, b"")] * trailing
    body, entries = bytearray(b"movi"), b""
    for name, flags, content in chunks:
        entries += struct.pack("<4sIII", name, flags, len(body), len(content))
        body += name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)
    head = bytearray(data[: movie - 8])
    for box, place in ((b"avih", 24), (b"strh", 40)):
        struct.pack_into("<I", head, head.index(box) + place, len(chunks))
    out = head + b"LIST" + struct.pack("<I", len(body)) + body + b"idx1" + struct.pack("<I", len(entries)) + entries
    struct.pack_into("<I", out, 4, len(out) - 8)
    path.write_bytes(out)


@pytest.mark.parametrize(
    ("codec", "options"), [("mpeg4", {"bf": "0", **FINE}), ("mpeg4", {"bf": "2", **FINE}), ("libx264", {})]
)
def test_empty_avi_chunks_at_the_end_repeat_the_picture(tmp_path, codec, options):
    source = write_clip(tmp_path / "clip.avi", grey_frames(18), rate=10, codec=codec, options=options)
    write_avi(tmp_path / "still.avi", source, trailing=6)
    assert video_timeline(tmp_path / "still.avi").duration_seconds == pytest.approx(2.4)
    assert chosen(tmp_path / "still.avi") == [1, 4, 7, 10, 13, 16, 17, 17]


@pytest.mark.parametrize("codec", ["mpeg4", "libx264"])
def test_empty_avi_chunks_in_the_middle_repeat_the_picture(tmp_path, codec):
    options = {"g": "1"} if codec == "libx264" else {"g": "1", "bf": "0"}
    source = write_clip(tmp_path / "clip.avi", grey_frames(24), rate=10, codec=codec, options=options)
    write_avi(tmp_path / "holes.avi", source, drop=set(range(6, 12)))
    assert video_timeline(tmp_path / "holes.avi").duration_seconds == pytest.approx(2.4)
    assert chosen(tmp_path / "holes.avi") == [1, 4, 5, 5, 13, 16, 19, 22]


def test_a_truncated_avi_is_as_long_as_its_frames(tmp_path):
    path = write_clip(tmp_path / "cut.avi", grey_frames(24), rate=10, codec="mpeg4", options={"g": "1", "bf": "0"})
    position, _ = packets_of(path)[12]
    path.write_bytes(path.read_bytes()[:position])
    assert video_timeline(path).duration_seconds == pytest.approx(1.2, abs=0.11)


# Functions of time stamps

even = st.tuples(st.integers(20, 60), st.integers(20, 80)).map(lambda drawn: [drawn[0] * k for k in range(drawn[1])])


@given(even, st.integers(4, 10**6), st.sampled_from([-1, 1]))
def test_a_wrong_stamp_moves_to_the_gap_in_time(stamps, away, side):
    place = len(stamps) // 2
    wrong = list(stamps)
    wrong[place] += side * (2000 + 30 * (stamps[1] - stamps[0]) + away)
    corrected = without_strays(wrong, Fraction(1, 1000))
    assert corrected[:place] + corrected[place + 1 :] == stamps[:place] + stamps[place + 1 :]
    assert abs(corrected[place] - stamps[place]) <= 1


@given(even, st.integers(2000, 10**6))
def test_a_lasting_jump_of_time_is_kept(stamps, gap):
    place = len(stamps) // 2
    leaping = stamps[:place] + [stamp + gap for stamp in stamps[place:]]
    assert without_restarts(without_strays(leaping, Fraction(1, 1000)), Fraction(1, 1000)) == leaping


@given(even)
def test_stamps_continue_after_a_restart(stamps):
    far = [stamp + 10**5 for stamp in stamps]
    assert without_restarts(far + stamps, Fraction(1, 1000)) == [
        *far,
        *(stamp + far[-1] + stamps[1] - stamps[0] for stamp in stamps),
    ]


@given(st.integers(6, 30), st.integers(2, 30), st.integers(0, 20), st.sampled_from([20, 40, 100]))
def test_stamps_continue_where_a_key_frame_begins_another_recording(first, second, later, gap):
    stamps = [gap * number for number in range(first)] + [later + gap * number for number in range(second)]
    expected = [gap * number for number in range(first + second)]
    assert without_restarts(stamps, Fraction(1, 1000), {0, first}) == expected


@given(even, st.integers(3, 30))
def test_a_single_early_key_frame_is_not_another_recording(stamps, back):
    place, gap = len(stamps) // 2, stamps[1]
    early = [*stamps[:place], stamps[place] - min(back, place) * gap, *stamps[place + 1 :]]
    assert without_restarts(early, Fraction(1, 1000), {0, place}) == early


@pytest.mark.parametrize("keys", [(), range(60)], ids=["few key frames", "key frames only"])
def test_reordered_frames_are_left_alone(keys):
    random = np.random.default_rng(0)
    for _ in range(50):
        order = np.argsort(np.arange(60) + random.uniform(0, 4, 60))
        stamps = [int(number) * 40 for number in order]
        assert without_restarts(without_strays(stamps, Fraction(1, 1000)), Fraction(1, 1000), keys) == stamps


@settings(max_examples=40, deadline=None)
@given(place=st.integers(1, 39), pause=st.integers(1500, 60_000), b_frames=st.integers(0, 12))
def test_a_pause_among_b_frames_keeps_all_stamps(place, pause, b_frames):

    with TemporaryDirectory() as folder:
        stamps = [40 * number + (pause if number >= place else 0) for number in range(40)]
        options = {"x264-params": f"bframes={b_frames}:b-adapt=0:keyint=40:scenecut=0"}
        path = write_clip(Path(folder, "clip.mkv"), grey_frames(1) * 40, stamps=stamps, options=options)
        assert list(video_timeline(path).stamps) == stamps


@pytest.mark.parametrize("edits", [[(400, 800)], [(0, 600), (1400, 800)], [(1200, 600), (200, 600)]])
def test_edit_lists_give_the_frames_that_ffmpeg_shows(tmp_path, edits):
    path = write_clip(tmp_path / "clip.mp4", grey_frames(24), rate=10, options=B_FRAMES)
    write_edit_list(path, edits)
    with av.open(str(path)) as container:
        expected = sorted(frame.pts for frame in container.decode(video=0))
    timeline = video_timeline(path)
    assert [stamp for stamp in timeline.stamps if stamp in set(expected)] == expected
    assert timeline.duration_seconds == pytest.approx(sum(length for _, length in edits) / 1000, abs=0.25)


def write_edit_list(path: Path, edits: list[tuple[int, int]]) -> None:
    """Make an MP4 file with one track show only these parts: start and length of each in milliseconds."""
    data = bytearray(path.read_bytes())
    (scale,) = struct.unpack_from(">I", data, data.index(b"mdhd") + 16)
    (movie_scale,) = struct.unpack_from(">I", data, data.index(b"mvhd") + 16)
    rows = b"".join(
        struct.pack(">Iihh", length * movie_scale // 1000, start * scale // 1000, 1, 0) for start, length in edits
    )
    box = b"elst" + struct.pack(">II", 0, len(edits)) + rows
    new = struct.pack(">I", len(box) + 12) + b"edts" + struct.pack(">I", len(box) + 4) + box
    old = data.index(b"edts") - 4
    (size,) = struct.unpack_from(">I", data, old)
    for name in (b"moov", b"trak"):
        place = data.index(name) - 4
        (length,) = struct.unpack_from(">I", data, place)
        struct.pack_into(">I", data, place, length + len(new) - size)
    data[old : old + size] = new  # the index follows the pictures, whose offsets stay
    path.write_bytes(data)
