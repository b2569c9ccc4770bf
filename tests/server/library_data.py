"""A small library of real clips, made with the tiny CLIP."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from clips import write_clip
from vop.models.model import TextVideoModel
from vop.models.pretrained import create
from vop.search import near_copies
from vop.search.failures import COPY_OF, DUPLICATE, PARTIAL, UNREADABLE, failure
from vop.search.manifest import Manifest
from vop.search.models import describe, open_model
from vop.search.near_copies import PART, SAME, Pair
from vop.search.queries import embed_frames
from vop.search.schema import VideoFile, make_rows
from vop.search.store import Store
from vop.search.sync.lock import library_lock
from vop.search.words.lines import Line
from vop.search.words.table import WordsRead
from vop.video.frames import read_frames, video_timeline
from vop.video.probe import probe

NUM_FRAMES = 2
WINDOW_SECONDS = 2.0
# Colour and seconds. The suffix determines the codec.
CLIPS = {
    "red.mp4": ((220, 40, 40), 1),
    "green.mp4": ((40, 200, 60), 1),
    "blue & white.mp4": ((40, 60, 220), 4),
    "old/yellow.avi": ((230, 220, 40), 4),
    "old/grey.webm": ((120, 120, 120), 1),
}
METADATA = {"red.mp4": {"author": "bob", "stars": "5"}, "green.mp4": {"author": "ana", "stars": "3"}}


def write_clips(folder: Path) -> dict[str, Path]:
    """Write the clips; return their paths by name."""
    codecs = {".avi": {"codec": "mpeg4"}, ".webm": {"codec": "libvpx"}, ".mp4": {"options": {"preset": "ultrafast"}}}
    (folder / "old").mkdir(parents=True, exist_ok=True)
    return {
        name: write_clip(folder / name, moving_square(colour, seconds), rate=10, **codecs[Path(name).suffix])
        for name, (colour, seconds) in CLIPS.items()
    }


def moving_square(colour: tuple[int, int, int], seconds: int) -> list[np.ndarray]:
    frames = []
    for number in range(10 * seconds):
        frame = np.full((48, 64, 3), colour, np.uint8)
        frame[16:32, (3 * number) % 48 : (3 * number) % 48 + 16] = 255
        frames.append(frame)
    return frames


def make_run(folder: Path, backbone: Path, *, seed: int = 0) -> Path:
    """Save a run with random prompts."""
    import torch

    torch.manual_seed(seed)
    model = create("vop", str(backbone), num_frames=NUM_FRAMES, device="cpu")
    for parameter in model.trainable().values():
        parameter.data.normal_(std=0.5)
    model.save_pretrained(folder)
    return folder


def open_all(models: Sequence[Path]) -> list[TextVideoModel]:
    return [open_model(str(model), num_frames=NUM_FRAMES, precision="fp32") for model in models]


def manifest_of(models: Sequence[Path], opened: Sequence[TextVideoModel], *, table: str = "segments_1") -> Manifest:
    described = [
        describe(model, name=str(name), column=f"embedding_{number}")
        for number, (name, model) in enumerate(zip(models, opened, strict=True))
    ]
    size = opened[0].image_size
    return Manifest(table=table, models=tuple(described), num_frames=NUM_FRAMES, image_size=size)


def make_library(folder: Path, models: Sequence[Path], clips: dict[str, Path]) -> Store:
    """Create a library of these clips in windows of `WINDOW_SECONDS`, with metadata and two failures."""
    opened = open_all(models)
    library = Store.create(folder, manifest_of(models, opened))
    library.add_columns(["author", "stars"])
    put_clips(library, opened, clips)
    library.put_failures(
        [
            failure("/videos/notes.txt.mp4", UNREADABLE, "no video in it"),
            failure("/videos/cut.mp4", PARTIAL, "it ends early"),
        ]
    )
    return library


def put_versions(library: Store) -> None:
    """Make clips versions of each other: green of red, yellow a cut of blue, and a second file of grey."""
    paths = {path.rpartition("/")[2]: path for path in library.videos()}
    red, green, blue, yellow = (
        library.videos()[paths[name]].video for name in ("red.mp4", "green.mp4", "blue & white.mp4", "yellow.avi")
    )
    with library_lock(library.path):
        table = library.kept_table(near_copies.TABLE, near_copies.PAIR_SCHEMA)
        near_copies.write_pairs(table, [Pair(green, red, SAME, 0.0), Pair(yellow, blue, PART, 1.5)])
        library.put_failures([failure("/videos/again.webm", DUPLICATE, COPY_OF + paths["grey.webm"])])


def put_words(library: Store) -> None:
    """Let red.mp4 and both segments of blue speak, and give grey.webm a subtitle."""
    ids = {path.rpartition("/")[2]: record.video for path, record in library.videos().items()}
    said = Line(text="Good morning, walrus", start_seconds=0.25, end_seconds=0.75, source="speech")
    thanks = [
        Line(text=text, start_seconds=start, end_seconds=start + 1, source="speech")
        for text, start in (("Thank you", 0.5), ("Thank you again", 2.5))
    ]
    written = Line(text="a walrus sleeps", start_seconds=0.0, end_seconds=0.5, source="grey.en.srt")
    library.words.put(
        [
            WordsRead(ids["red.mp4"], "speech", "1", [said]),
            WordsRead(ids["blue & white.mp4"], "speech", "1", thanks),
            WordsRead(ids["grey.webm"], "sidecars", "1", [written]),
        ]
    )


def put_clips(library: Store, opened: Sequence[TextVideoModel], clips: dict[str, Path]) -> None:
    for name, path in clips.items():
        duration = float(video_timeline(path).duration_seconds)
        windows = [
            (start, min(start + WINDOW_SECONDS, duration))
            for start in np.arange(0, duration - 0.1, WINDOW_SECONDS).tolist()
        ]
        embeddings = {
            described.column: np.stack([embed_frames(model, frames_of(path, window, model)) for window in windows])
            for described, model in zip(library.models, opened, strict=True)
        }
        file = VideoFile(
            video=hashlib.sha256(path.read_bytes()).hexdigest()[:32],
            path=path,
            size=path.stat().st_size,
            mtime_ns=path.stat().st_mtime_ns,
            duration_seconds=duration,
            date="2024-05-01T10:00:00+00:00",
            date_source="file",
            plays_in_browsers=probe(path).plays_in_browsers,
            metadata=METADATA.get(name, {}),
        )
        strips = [strip(number) for number in range(len(windows))]
        rows = make_rows(file, windows, strips, embeddings, wanted=library.table.schema, models=library.models)
        library.put(rows)


def frames_of(path: Path, window: tuple[float, float], model: TextVideoModel):
    start, end = window
    return read_frames(path, num_frames=NUM_FRAMES, size=model.image_size, start_seconds=start, end_seconds=end)


def strip(number: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (320, 45), (number * 20 % 256, 80, 80)).save(out, "JPEG")
    return out.getvalue()
