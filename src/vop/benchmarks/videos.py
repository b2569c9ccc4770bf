"""Draw and encode short videos of the built-in world, as H.264 files.

They differ on purpose from the pictures that `mini` was trained on: drifting and flickering backgrounds, sensor noise,
compression.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from random import Random

import numpy as np

from vop.benchmarks.artwork import Atlas
from vop.benchmarks.scenes import Sticker, named_background, paste
from vop.benchmarks.stories import Actor
from vop.utils.files import atomic_write

# An odd number of frames, so that the middles of equal intervals are the same frames forwards and backwards. With an
# even number, sampling would select slightly late frames, and a model could detect a reversal without a sense of time.
NUM_FRAMES, FRAMES_PER_SECOND, PIXELS = 25, 12, 96
_FIELD = 2 * PIXELS  # side of a background that repeats when it drifts


def draw_clip(actors: Sequence[Actor], atlas: Atlas, rng: Random, *, colour: str = "") -> np.ndarray:
    """Draw all frames of a clip, uint8 (25, 96, 96, 3), on a background of a named colour, or of any two colours."""
    noise = np.random.default_rng(rng.getrandbits(32))
    background = _drifting_background(rng, noise, colour)
    grain, strength = _grain(), rng.uniform(0.015, 0.05)
    flicker, phase = rng.uniform(0, 0.05), rng.uniform(0, 6)
    frames = np.empty((NUM_FRAMES, PIXELS, PIXELS, 3), np.uint8)
    for i in range(NUM_FRAMES):
        canvas = background(i)
        for actor in actors:
            sticker = _at(actor, i / (NUM_FRAMES - 1))
            if sticker.opacity > 0:
                paste(canvas, sticker, atlas)
        dx, dy = noise.integers(0, PIXELS, 2)
        canvas += strength * grain[dy : dy + PIXELS, dx : dx + PIXELS] + flicker * np.sin(i * 0.9 + phase)
        frames[i] = (canvas * 255).clip(0, 255)
    return frames


def _at(actor: Actor, time: float) -> Sticker:
    """Return the sticker at a time in 0..1. It rests for a moment at both ends."""
    done = float(time > 0.5) if actor.swap else min(1.0, max(0.0, (time - 0.12) / 0.76))
    a, b = actor.start, actor.end
    mixed = {k: getattr(a, k) + (getattr(b, k) - getattr(a, k)) * done for k in ("x", "y", "size", "opacity", "angle")}
    return replace(a, **mixed)


def _drifting_background(rng: Random, noise: np.random.Generator, colour: str) -> Callable[[int], np.ndarray]:
    """Return a function that returns a new float32 canvas (96, 96, 3) for a frame's index."""
    if colour:
        named = named_background(colour, rng)
        colours = np.array([named.colour, named.shade], np.float32)
    else:
        colours = noise.uniform(0.1, 0.9, (2, 3)).astype(np.float32)
        colours[1] = colours[0] + (colours[1] - colours[0]) * rng.uniform(0.2, 0.7)
    field = _fields()[rng.randrange(len(_fields()))][..., None]
    start = noise.uniform(0, _FIELD, 2)
    speed = noise.uniform(-1.5, 1.5, 2)

    def canvas(frame: int) -> np.ndarray:
        y, x = (start + speed * frame).astype(int) % _FIELD
        window = field[y : y + PIXELS, x : x + PIXELS]
        painted: np.ndarray = colours[0] + (colours[1] - colours[0]) * window
        return painted

    return canvas


@lru_cache(maxsize=1)
def _fields() -> np.ndarray:
    """Return textures that repeat, float32 (24, 288, 288) in 0..1: chequers, bricks, rings of waves, cloth."""
    rng = np.random.default_rng(2)
    side = _FIELD + PIXELS
    y, x = np.mgrid[:side, :side]
    fields = []
    for i in range(24):
        step = (8, 12, 16, 24)[i // 4 % 4]
        if i % 4 == 0:
            field = (x // step + y // step) % 2
        elif i % 4 == 1:
            field = ((x + (y // step % 2) * step) % (2 * step) < 2) | (y % step < 2)
        elif i % 4 == 2:
            waves = rng.integers(-5, 6, (6, 2)) * 2 * np.pi / _FIELD
            field = sum(np.sin(a * x + b * y + rng.uniform(0, 6)) for a, b in waves) / 8 + 0.5
        else:
            field = np.sin(x * 2 * np.pi / step) * np.sin(y * 2 * np.pi / step) / 2 + 0.5
        fields.append(np.clip(field, 0, 1))
    return np.stack(fields).astype(np.float32)


@lru_cache(maxsize=1)
def _grain() -> np.ndarray:
    return np.random.default_rng(3).standard_normal((2 * PIXELS, 2 * PIXELS, 3)).astype(np.float32)


def encode(frames: np.ndarray, path: Path, *, crf: int = 20) -> None:
    """Write frames, uint8 (n, height, width, 3), atomically as an H.264 file with 12 frames per second.

    The same frames give the same bytes: x264 runs on one thread and without its macroblock tree, whose decisions
    vary from call to call at this size.
    """
    import av

    with atomic_write(path) as temporary, av.open(str(temporary), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FRAMES_PER_SECOND)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        stream.options = {"crf": str(crf), "preset": "veryfast", "x264-params": "mbtree=0"}
        for array in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(array, format="rgb24")))
        container.mux(stream.encode(None))
