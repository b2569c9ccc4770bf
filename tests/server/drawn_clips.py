"""Drawn videos for the page, of several shapes and lengths, with words that describe them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from clips import write_clip

RATE = 10
_COLOURS = {
    "red": (214, 64, 58),
    "blue": (62, 116, 214),
    "green": (64, 160, 92),
    "yellow": (236, 190, 60),
    "white": (240, 238, 230),
}


@dataclass(frozen=True)
class Clip:
    """A drawn video: `words` say the colour, the shape and where it moves."""

    path: str
    words: str
    ground: tuple[int, int, int]
    size: tuple[int, int] = (320, 180)
    seconds: int = 6
    date: str = "2024-05-01T10:00:00+00:00"
    author: str = "ana"
    stars: str = "3"
    audio: bool = False


CLIPS = (
    Clip("/videos/sport/ball rolls.mp4", "a red ball rolls to the right", (222, 226, 214), seconds=12, audio=True),
    Clip("/videos/sport/ball-returns.mp4", "a red ball rolls to the left", (206, 220, 232), author="bob", stars="5"),
    Clip(
        "/videos/sport/long game.mp4",
        "a blue ball rolls to the right",
        (38, 48, 66),
        seconds=24,
        date="2023-01-15T09:30:00+00:00",
    ),
    Clip("/videos/garden/2024/summer/boxes.mp4", "a green square falls down", (238, 232, 214), author="bob"),
    Clip("/videos/garden/portrait.mp4", "a yellow ball jumps up", (70, 96, 84), size=(180, 320), stars="4"),
    Clip("/videos/garden/square.mp4", "a white square moves to the left", (120, 84, 96), size=(180, 180)),
    Clip(
        "/videos/old camera/tape 7.avi",
        "a blue square moves to the right",
        (214, 204, 190),
        seconds=12,
        date="2009-08-20T12:00:00+00:00",
    ),
    Clip("/videos/odd/<img src=x onerror=alert(1)><script>alert(2)<script>.mp4", "a green ball jumps up", (30, 30, 34)),
)


def draw(clip: Clip, second: float) -> Image.Image:
    """Return the picture of a clip at a time."""
    (width, height), words = clip.size, clip.words.split()
    ground = np.array(clip.ground)[None, None] * np.linspace(1.05, 0.72, height)[:, None, None]
    picture = Image.fromarray(np.broadcast_to(ground.clip(0, 255), (height, width, 3)).astype(np.uint8))
    done = (second % 6) / 6
    along = {"right": (done, 0.55), "left": (1 - done, 0.55), "down": (0.5, done), "up": (0.5, 1 - abs(2 * done - 1))}
    x, y = next(place for word, place in along.items() if word in words)
    radius = min(width, height) * 0.19
    centre = radius + x * (width - 2 * radius), radius + y * (height - 2 * radius)
    box = [centre[0] - radius, centre[1] - radius, centre[0] + radius, centre[1] + radius]
    pen = ImageDraw.Draw(picture)
    shape = pen.ellipse if "ball" in words else pen.rectangle
    shape(box, fill=next(colour for word, colour in _COLOURS.items() if word in words))
    return picture


def encode(clip: Clip, path: Path) -> Path:
    """Write a clip in the format that the suffix names."""
    frames = [np.asarray(draw(clip, second)) for second in np.arange(0, clip.seconds, 1 / RATE)]
    if path.suffix == ".avi":
        return write_clip(path, frames, codec="mpeg4", rate=RATE)
    options = {"preset": "ultrafast", "g": str(RATE)}
    return write_clip(
        path, frames, rate=RATE, options=options, audio=clip.audio, container_options={"movflags": "faststart"}
    )


def write_videos(folder: Path) -> Path:
    """Write all clips with their dates and two files that are not videos to `folder/videos`; return their table."""
    rows = ["path,author,stars"]
    for clip in CLIPS:
        path = folder / clip.path.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        seconds = datetime.fromisoformat(clip.date).timestamp()
        os.utime(encode(clip, path), (seconds, seconds))
        rows.append(f'"{path}",{clip.author},{clip.stars}')
    (folder / "videos/odd/notes.mp4").write_text("no video")
    (folder / "videos/odd/empty.mp4").write_bytes(b"")
    table = folder / "metadata.csv"
    table.write_text("\n".join(rows), encoding="utf-8")
    return table
