"""Writes interlaced H.264 of which each packet has one field, half of the lines, as broadcasters do and x264 cannot.

Fields consist of macroblocks without compression (I_PCM), so that a few lines write the stream (ITU-T H.264, 7.3).
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av

_IDR, _NOT_IDR, _SEQUENCE, _PICTURE = 0x65, 0x61, 0x67, 0x68
_MACROBLOCKS = 8  # 4 x 2 in a field of 64 x 32 pixels


def write_fields(path: Path, levels: list[int], *, keys: int, rate: int = 25) -> Path:
    """Write frames of 64 x 64 pixels, each of one level above 3; every one of `keys` begins with an IDR field."""
    stream = path.with_suffix(".h264")
    stream.write_bytes(b"".join(_frame(level, number % keys) for number, level in enumerate(levels)))
    with av.open(str(stream)) as source, av.open(str(path), "w") as target:
        copied = target.add_stream_from_template(source.streams.video[0], opaque=True)
        for number, packet in enumerate(packet for packet in source.demux(video=0) if packet.size):
            packet.pts, packet.duration, packet.time_base = number, 1, Fraction(1, 2 * rate)
            packet.dts, packet.stream = packet.pts, copied
            target.mux(packet)
    return path


class _Bits:
    def __init__(self) -> None:
        self.text = ""

    def fixed(self, length: int, *values: int) -> _Bits:
        self.text += "".join(f"{value:0{length}b}" for value in values)
        return self

    def exp_golomb(self, *values: int) -> _Bits:
        for code in (f"{value + 1:b}" for value in values):
            self.text += "0" * (len(code) - 1) + code
        return self

    def aligned(self) -> _Bits:
        self.text += "0" * (-len(self.text) % 8)
        return self

    def unit(self, kind: int) -> bytes:
        """Return a NAL unit with a start code. Another one cannot appear in it: it has no two bytes of 0."""
        text = self.fixed(1, 1).aligned().text
        data = bytes(int(text[place : place + 8], 2) for place in range(0, len(text), 8))
        return bytes([0, 0, 0, 1, kind]) + data


def _frame(level: int, number: int) -> bytes:
    top = _field(level, number, bottom=False)
    return (_parameters() if number == 0 else b"") + top + _field(level, number, bottom=True)


def _parameters() -> bytes:
    sequence = _Bits().fixed(8, 77, 0, 30).exp_golomb(0, 0, 0, 4, 1).fixed(1, 0).exp_golomb(3, 1)
    picture = _Bits().exp_golomb(0, 0).fixed(1, 0, 0).exp_golomb(0, 0, 0).fixed(1, 0, 0, 0).exp_golomb(0, 0, 0)
    return sequence.fixed(1, 0, 0, 1, 0, 0).unit(_SEQUENCE) + picture.fixed(1, 1, 0, 0).unit(_PICTURE)


def _field(level: int, number: int, *, bottom: bool) -> bytes:
    is_idr = number == 0 and not bottom
    bits = _Bits().exp_golomb(0, 7, 0).fixed(4, number % 16).fixed(1, 1, bottom)
    bits = bits.exp_golomb(*[0] * is_idr).fixed(8, 2 * number + bottom).fixed(1, *[0] * (1 + is_idr)).exp_golomb(0, 1)
    for _ in range(_MACROBLOCKS):
        bits = bits.exp_golomb(25).aligned().fixed(8, *[level] * 256, *[128] * 128)
    return bits.unit(_IDR if is_idr else _NOT_IDR)
