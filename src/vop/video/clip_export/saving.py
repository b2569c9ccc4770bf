"""Save clips for people to keep: copied from a key frame on, or cut at exact times and encoded at high quality.

`export_clip` makes small files for the page instead.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import chain
from pathlib import Path, PurePath

import av
from av.sidedata.sidedata import SideData
from av.video.reformatter import VideoReformatter

from vop.errors import UsageError, VideoError
from vop.utils.files import atomic_write
from vop.video.clip_export.audio import audio_packets, copied_audio
from vop.video.clip_export.remux import with_decoding_times
from vop.video.clip_export.source import ClipSource, Packet, find_clip, opened_at, time_base_of
from vop.video.clip_export.transcode import ShownFrame, decoding
from vop.video.colour import ColourConverter, has_alpha
from vop.video.shape import Matrix, display_matrix
from vop.video.source import open_video

SAVED_VERSION = 1  # increase it when `save_clip` changes, so that caches save their clips again

# Containers that a copy keeps. All others, such as AVI, cannot hold every stream with its times: Matroska can.
_CONTAINERS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm", ".ts": "mpegts"}
_SAME = {".m4v": ".mp4", ".mts": ".ts", ".m2ts": ".ts"}
_OTHERS = ".mkv"
_OPTIONS = {"movflags": "+faststart", "max_interleave_delta": "0"}
_MAX_LEAD_SECONDS = 60  # a copy that begins earlier than this is of no use
_SHORT = Fraction(1, 1000)  # seconds; a frame is not shown for less, and times of segments are rounded

_AUDIO_BIT_RATE = 256_000
# Without reordered frames, decoding times are presentation times: the last frame lasts to the end in every player.
_H264 = {"preset": "medium", "crf": "16", "bf": "0"}
_HEVC = {"preset": "fast", "crf": "16"}
_X265 = ("log-level=none", "bframes=0")
_H264_FORMATS = ("yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p", "gray")
_HEVC_FORMATS = ("yuv420p10le", "yuv422p10le", "yuv444p10le", "yuv420p12le", "yuv422p12le", "yuv444p12le")
_KEPT_TAGS = ("title", "date", "creation_time", "location", "artist", "comment")


@dataclass(frozen=True, kw_only=True)
class SavedClip:
    """A clip that was saved, with its times in the video.

    Attributes:
        start_seconds: when the clip begins. A copy begins at a key frame, at or before the wanted time.
        lead_seconds: how much earlier than wanted it begins.
        copied: whether the pictures are those of the file, not encoded again.
    """

    start_seconds: float
    lead_seconds: float
    copied: bool


def saved_suffix(path: str | PurePath, *, exact: bool = False) -> str:
    """Return the suffix of a clip of this file, such as `.mp4`. Exact clips are MP4 files."""
    suffix = PurePath(path).suffix.lower()
    suffix = _SAME.get(suffix, suffix)
    return ".mp4" if exact else suffix if suffix in _CONTAINERS else _OTHERS


def save_clip(
    path: str | Path,
    out: str | Path,
    *,
    start_seconds: float,
    end_seconds: float,
    duration_seconds: float | None = None,
    exact: bool = False,
) -> SavedClip:
    """Write a clip of a video with its main audio, in the format of the file if possible.

    Without `exact`, pictures and audio are copied from the key frame at or before the start, up to the end or a few
    frames later. What cannot be copied is encoded. Exact clips have the wanted frames only, at their times: H.264, or
    HEVC for more than 8 bits per channel, in the file's size, shape, rotation and colours, with AAC.

    Args:
        out: the file to write. Its format is that of `saved_suffix`.
        start_seconds, end_seconds: the clip, counted from the video's first frame.
        duration_seconds: the duration of the whole video, if known.
        exact: whether to cut exactly at these times.

    Raises:
        VideoError: the file cannot be read, shows nothing in this clip, or its format cannot be written.
        UsageError: a time is not allowed.
        VopError: `out` cannot be written.
    """
    path = Path(path)
    if not 0 <= start_seconds < end_seconds < float("inf"):
        raise UsageError(
            f"the clip from {start_seconds} to {end_seconds} s is empty: its start must be 0 or more, and its end later"
        )
    clip = find_clip(path, Fraction(start_seconds), Fraction(end_seconds), duration_seconds=duration_seconds)
    with atomic_write(out) as temporary:
        container = _CONTAINERS[saved_suffix(path, exact=exact)]
        begins = None if exact else _copy(clip, temporary, container)
        if begins is None:
            try:
                _encode(clip, temporary, container)
            except (av.FFmpegError, ValueError) as error:
                reason = getattr(error, "strerror", None) or error
                raise VideoError(
                    path, f"this clip cannot be written as {container}: {reason}; cut it exactly"
                ) from error
    start = begins if begins is not None else clip.start
    return SavedClip(
        start_seconds=round(float(start - clip.first), 6),
        lead_seconds=round(max(float(clip.start - start), 0.0), 6),
        copied=begins is not None,
    )


def _output(temporary: Path, container: str) -> av.container.OutputContainer:
    return av.open(f"file:{temporary}", "w", format=container, container_options=_OPTIONS)


# Copying


def _copy(clip: ClipSource, temporary: Path, container: str) -> Fraction | None:
    """Write the clip without encoding, and return the time at which it begins; None if it cannot be copied."""
    if clip.ordinal or clip.clock_jumps:  # the times of its packets are not those of its frames
        return None
    try:
        with opened_at(clip) as (stream, _, packets), _output(temporary, container) as output:
            pictures = (packet for packet in packets if packet.stream_index == stream.index and packet.size)
            chosen = _from_key_frame(with_decoding_times(pictures, clip), clip)
            key = next(chosen, None)
            begins = None if key is None else clip.time_of(key)
            if key is None or begins is None:
                return None
            _keep_tags(clip.path, output)
            copied = output.add_stream_from_template(stream, opaque=True)
            if stream.codec_context.codec.canonical_name == "hevc" and container in ("mp4", "mov"):
                copied.codec_context.codec_tag = "hvc1"  # the only tag that Apple's players accept
            start = round(begins / time_base_of(stream))
            audio = _copied_audio(replace(clip, start=begins), output)
            for packet in chain(audio, _rebased(chain([key], chosen), copied, start)):
                output.mux(packet)
            return begins
    except (av.FFmpegError, ValueError, TypeError):  # times or formats that the container cannot hold
        return None


def _from_key_frame(packets: Iterator[Packet], clip: ClipSource) -> Iterator[Packet]:
    """Yield packets from the last key frame at or before the clip on, up to its end; none if it is too far away."""
    held: list[Packet] = []
    following: list[Packet] = []
    limit = clip.start + _SHORT
    for packet in packets:
        if _time(packet, packet.dts) > limit:
            following = [packet]
            break
        if packet.is_keyframe and _time(packet, packet.pts) <= limit:
            held.clear()
        if held or packet.is_keyframe:
            held.append(packet)
    if not held or _time(held[0], held[0].pts) < clip.start - _MAX_LEAD_SECONDS:
        return
    if not following and clip.start >= max(_ends(packet, clip) for packet in held):
        return
    begins = _time(held[0], held[0].pts)
    # Pictures that follow the key frame but are shown before it refer to earlier ones.
    whole = (packet for packet in chain(held, following, packets) if _time(packet, packet.pts) >= begins)
    yield from _up_to(clip.end - _SHORT, whole)


def _up_to(end: Fraction, packets: Iterator[Packet]) -> Iterator[Packet]:
    """Yield the packets shown before `end`, later ones that they refer to, and those in between."""
    waiting: list[Packet] = []
    latest = end
    for packet in packets:
        shown = _time(packet, packet.pts)
        if shown < latest:
            for earlier in waiting:
                latest = max(latest, _time(earlier, earlier.pts))
            yield from waiting
            waiting.clear()
            yield packet
        elif _time(packet, packet.dts) >= latest:
            return
        else:
            waiting.append(packet)


def _ends(packet: Packet, clip: ClipSource) -> Fraction:
    lasts = packet.duration * packet.time_base if packet.duration else 1 / clip.rate
    return _time(packet, packet.pts) + lasts


def _time(packet: Packet, stamp: int | None) -> Fraction:
    if stamp is None:
        raise ValueError("a packet has no times")
    return stamp * packet.time_base


def _rebased(packets: Iterable[Packet], stream: av.VideoStream, start: int) -> Iterator[Packet]:
    """Yield packets as part of a new stream whose time begins at `start`."""
    for packet in packets:
        if packet.is_discard:  # somebody has cut it off with an edit list, which the copy does not have
            raise ValueError("a packet that is not shown would be shown")
        if packet.pts is not None and packet.dts is not None:
            packet.pts, packet.dts, packet.stream = packet.pts - start, packet.dts - start, stream
            yield packet


def _copied_audio(clip: ClipSource, output: av.container.OutputContainer) -> list[Packet]:
    """Return the main audio from the clip's start on. The muxer must know its stream before the first packet."""
    with opened_at(clip) as (_, stream, packets):
        if stream is None:
            return []
        own = (packet for packet in packets if packet.stream_index == stream.index)
        return list(copied_audio(stream, own, clip, output))


def _keep_tags(path: Path, output: av.container.OutputContainer) -> None:
    with open_video(path) as (container, _):
        given = {name.lower(): value for name, value in container.metadata.items()}
    output.metadata.update({name: given[name] for name in _KEPT_TAGS if given.get(name)})


# Cutting exactly


def _encode(clip: ClipSource, temporary: Path, container: str) -> None:
    with _output(temporary, container) as output:
        _keep_tags(clip.path, output)
        pictures = _encoded_pictures(clip, output)
        first = next(pictures, None)
        if first is None:
            raise VideoError(clip.path, f"nothing is shown {float(clip.start - clip.first):.3f} s after its start")
        audio = audio_packets(clip, output, copy=True, bit_rate=_AUDIO_BIT_RATE)
        for packet in chain(audio, [first], pictures):
            output.mux(packet)


def _encoded_pictures(clip: ClipSource, output: av.container.OutputContainer) -> Iterator[Packet]:
    """Yield packets for a new stream of `output`, at the times of the file's frames."""
    colours = _Tags.of(clip.path)
    reformatter = VideoReformatter()
    encoder = None
    durations: dict[int | None, int] = {}
    with decoding(clip) as (stream, converter, frames):
        base = time_base_of(stream)
        for start, end, frame in _shown_in(frames, clip):
            if encoder is None:
                encoder = _encoder(output, frame, stream, clip.rate, colours)
            picture = _picture(frame, encoder.pix_fmt or "yuv420p", reformatter, converter)
            picture.pts, picture.time_base, picture.pict_type = round(start / base), base, 0
            picture.duration = durations[picture.pts] = round(end / base) - picture.pts
            yield from _lasting(encoder.encode(picture), durations)
        if encoder:
            yield from _lasting(encoder.encode(), durations)


def _lasting(packets: Iterable[Packet], durations: dict[int | None, int]) -> Iterator[Packet]:
    """Give each packet the duration of its frame, so that the last one ends with the clip."""
    for packet in packets:
        packet.duration = durations.pop(packet.pts, packet.duration or 0)
        yield packet


def _shown_in(frames: Iterable[ShownFrame], clip: ClipSource) -> Iterator[ShownFrame]:
    """Yield the frames that are shown in the clip, each with its start and end there, from 0 on."""
    before: ShownFrame | None = None
    for shown in frames:
        if before and shown[0] > clip.start + _SHORT:
            yield max(before[0] - clip.start, Fraction(0)), min(shown[0], clip.end) - clip.start, before[2]
        before = shown
        if shown[0] >= clip.end - _SHORT:
            return
    if before:
        leaves = clip.end if clip.holds_last_frame else min(before[1], clip.end)
        if leaves > clip.start + _SHORT:
            yield max(before[0] - clip.start, Fraction(0)), leaves - clip.start, before[2]


@dataclass(frozen=True)
class _Tags:
    """The colours that a container declares; those of its frames come first."""

    space: int
    colour_range: int
    primaries: int
    transfer: int

    @classmethod
    def of(cls, path: Path) -> _Tags:
        with open_video(path) as (_, stream):
            codec = stream.codec_context
            return cls(codec.colorspace, codec.color_range, codec.color_primaries, codec.color_trc)


_UNKNOWN = 2  # in ITU-T H.273


def _encoder(
    output: av.container.OutputContainer, frame: av.VideoFrame, stream: av.VideoStream, rate: Fraction, tags: _Tags
) -> av.VideoStream:
    is_deep = not frame.format.has_palette and any(component.bits > 8 for component in frame.format.components)
    options = {**_HEVC, "x265-params": _x265(frame)} if is_deep else _H264
    encoder = output.add_stream("libx265" if is_deep else "libx264", rate=rate, options=options)
    encoder.width, encoder.height = frame.width, frame.height
    encoder.pix_fmt = _format(frame, is_deep=is_deep)
    codec = encoder.codec_context
    codec.time_base = time_base_of(stream)
    if stream.sample_aspect_ratio:
        codec.sample_aspect_ratio = stream.sample_aspect_ratio
    if is_deep:
        codec.codec_tag = "hvc1"
    if not (frame.format.is_rgb or has_alpha(frame)):
        codec.colorspace = _known(frame.colorspace, tags.space)
        codec.color_range = frame.color_range or tags.colour_range
        codec.color_primaries = _known(frame.color_primaries, tags.primaries)
        codec.color_trc = _known(frame.color_trc, tags.transfer)
    _turn(encoder, display_matrix(frame, stream.codec_context.name))
    return encoder


def _known(of_frame: int, of_file: int) -> int:
    return of_file if of_frame == _UNKNOWN else of_frame


def _format(frame: av.VideoFrame, *, is_deep: bool) -> str:
    """Return the frame's own pixel format, if the encoder takes it."""
    name = frame.format.name.removesuffix("le") + ("le" if is_deep else "")
    halves = frame.width % 2 or frame.height % 2
    allowed = _HEVC_FORMATS if is_deep else _H264_FORMATS
    if name in allowed and not (halves and "444" not in name):
        return name
    chroma = "yuv444p" if halves else "yuv420p"
    return f"{chroma}10le" if is_deep else chroma


def _turn(encoder: av.VideoStream, matrix: Matrix | None) -> None:
    if matrix is not None:
        a, b, c, d = matrix
        encoder.set_display_matrix([a, b, 0, c, d, 0, 0, 0, 1 << 30])


def _picture(
    frame: av.VideoFrame, pix_fmt: str, reformatter: VideoReformatter, converter: ColourConverter
) -> av.VideoFrame:
    if has_alpha(frame):  # H.264 has no transparency
        frame = av.VideoFrame.from_ndarray(converter.rgb(frame), format="rgb24")
    return frame if frame.format.name == pix_fmt else reformatter.reformat(frame, format=pix_fmt)


def _x265(frame: av.VideoFrame) -> str:
    """Return x265's parameters, with the brightness and colours of the display that HDR was made for."""
    found = list(_X265)
    display = frame.side_data.get("MASTERING_DISPLAY_METADATA")
    if isinstance(display, SideData):
        # AVMasteringDisplayMetadata: red, green, blue, white point, minimum and maximum luminance, what is known.
        numbers = struct.unpack_from("22i", bytes(display))
        ratios = [Fraction(top, bottom or 1) for top, bottom in zip(numbers[:20:2], numbers[1:20:2], strict=True)]
        if all(numbers[20:]):
            red, green, blue, white = (
                f"({round(x * 50000)},{round(y * 50000)})" for x, y in zip(ratios[:8:2], ratios[1:8:2], strict=True)
            )
            darkest, brightest = (round(luminance * 10000) for luminance in ratios[8:])
            found.append(f"master-display=G{green}B{blue}R{red}WP{white}L({brightest},{darkest})")
    light = frame.side_data.get("CONTENT_LIGHT_LEVEL")
    if isinstance(light, SideData):
        found.append("max-cll={},{}".format(*struct.unpack_from("2I", bytes(light))))
    return ":".join(found)
