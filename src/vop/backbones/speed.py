"""Measure how fast backbones embed videos and texts on this machine, with random weights.

The towers alone are measured: no decoding, no resizing, no tokenizer. Random weights are as fast as trained ones, so
neither weights nor a network are needed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vop.backbones.known import BY_NAME, KNOWN, KnownBackbone, full_name
from vop.backbones.sizes import Sizes, TextSizes
from vop.backbones.source import (
    FAMILIES,
    UnknownBackbone,
    find_backbone,
    find_sizes,
    split_image_size,
    without_hub_prefix,
)
from vop.backbones.towers import Encoder
from vop.backbones.work import forward_work
from vop.errors import UsageError, VopError
from vop.utils.checks import check_whole
from vop.utils.device import free_bytes
from vop.utils.files import expand
from vop.utils.fitting import empty_caches, is_out_of_memory
from vop.utils.progress import Progress, silent
from vop.utils.threads import limit_threads
from vop.utils.timing import median_seconds

CAPTION_TOKENS = 24  # a sentence, where captions are not padded to a fixed length
TEXTS = 32  # texts in a batch
VIDEOS = {"cpu": 1}  # videos in a batch: on a CPU more of them are no faster
VIDEOS_ON_GPU = 8
NUM_FRAMES = 12
SECONDS = 1.5  # for each of the three figures


@dataclass(frozen=True, kw_only=True)
class Speed:
    """The speed of a backbone's towers.

    Attributes:
        name: as it was given.
        num_frames: frames per video; None if nothing was measured.
        videos_per_second, texts_per_second: in batches.
        query_milliseconds: for one text by itself.
        problem: why there are no figures, or None.
    """

    name: str
    num_frames: int | None = None
    videos_per_second: float | None = None
    texts_per_second: float | None = None
    query_milliseconds: float | None = None
    problem: str | None = None


def measure_backbones(
    names: Sequence[str],
    *,
    device: torch.device,
    dtype: torch.dtype,
    num_frames: int | None = None,
    seconds: float = SECONDS,
    progress: Progress = silent,
) -> list[Speed]:
    """Measure backbones one after the other.

    Args:
        names: as for `find_backbone`; without names all well-known checkpoints, the smallest first.
        num_frames: frames per video; by default 12, or a video encoder's own number.
        seconds: about how long each of the three figures may take.

    Returns:
        The speeds in order. What cannot be built or does not fit into memory has a `problem` instead.

    Raises:
        UnknownBackbone: a name is unknown.
        UsageError: `num_frames` is less than 1.
    """
    if num_frames is not None:
        check_whole("num_frames", num_frames, at_least=1)
    names = names or [known.name for known in sorted(KNOWN, key=lambda known: known.millions)]
    builders = [_find(name) for name in names]
    speeds = []
    encoder: Encoder | None
    for done, (name, build) in enumerate(zip(names, builders, strict=True)):
        progress("measuring", done, len(names), note=name)
        try:
            encoder = _build(build, device=device, dtype=dtype)
            speeds.append(measure(encoder, name=name, device=device, num_frames=num_frames, seconds=seconds))
        except (VopError, ValueError, ImportError) as error:
            speeds.append(Speed(name=name, problem=" ".join(str(error).split())))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            speeds.append(Speed(name=name, problem="it does not fit into the memory of the device"))
        encoder = None  # its memory is free for the next one
        empty_caches()
    progress("measuring", len(names), len(names))
    return speeds


@torch.no_grad()
def measure(
    encoder: Encoder, *, name: str, device: torch.device, num_frames: int | None = None, seconds: float = SECONDS
) -> Speed:
    """Measure an encoder that is on `device`.

    Raises:
        UsageError: the encoder does not take videos of `num_frames` frames.
    """
    sizes = encoder.sizes
    frames = (sizes.num_frames or NUM_FRAMES) if num_frames is None else num_frames
    sizes.check_num_frames(frames)
    videos = VIDEOS.get(device.type, VIDEOS_ON_GPU)
    pixels, ids = random_pixels(sizes, videos, frames=frames), random_ids(sizes.text, TEXTS)
    pixels, ids = pixels.to(device), ids.to(device)
    return Speed(
        name=name,
        num_frames=frames,
        videos_per_second=videos / median_seconds(lambda: encoder.embed_frames(pixels), device, within_seconds=seconds),
        texts_per_second=TEXTS / _text_seconds(encoder, ids, device=device, seconds=seconds),
        query_milliseconds=1000 * _text_seconds(encoder, ids[:1], device=device, seconds=seconds),
    )


def _text_seconds(encoder: Encoder, ids: Tensor, *, device: torch.device, seconds: float) -> float:
    with limit_threads(forward_work(encoder.sizes, tokens=ids.numel())):  # as `TextVideoModel.encode_text` does
        return median_seconds(lambda: encoder.embed_tokens(ids), device, within_seconds=seconds)


def random_pixels(sizes: Sizes, videos: int, *, frames: int) -> Tensor:
    """Return normalised pixels (videos, frames, 3, h, w)."""
    return torch.randn(videos, frames, 3, sizes.vision.image_size, sizes.vision.image_size)


def random_ids(text: TextSizes, texts: int, *, length: int | None = None) -> Tensor:
    """Return token ids (texts, length), with an end mark at the end where the text is read there.

    Args:
        length: by default `CAPTION_TOKENS`, or all positions if captions are padded to them.
    """
    length = length or (text.positions if text.fixed_length else min(CAPTION_TOKENS, text.positions))
    ids = torch.randint(min(4, text.vocab_size - 3), text.vocab_size - 2, (texts, length))  # the first are padding
    if text.readout == "eos" and text.eos_token_id < text.vocab_size:  # encoders without layers do not tell theirs
        ids[:, -1] = text.eos_token_id
    return ids


def _find(name: str) -> Callable[[], Encoder]:
    """Return what builds a backbone with random weights.

    Raises:
        UnknownBackbone: the name is unknown.
    """
    known = BY_NAME.get(full_name(without_hub_prefix(split_image_size(name)[0])))
    if known is not None and not expand(name).is_dir():
        return lambda: _build_known(known, find_sizes(name))
    try:
        return find_backbone(name).build_random
    except UnknownBackbone:
        raise
    except VopError as error:  # a library is missing, or a folder is damaged
        problem = error

        def fail() -> Encoder:
            raise problem

        return fail


def _build_known(known: KnownBackbone, sizes: Sizes) -> Encoder:
    family = FAMILIES.find(known.family)()
    return family.build_random(sizes if sizes.has_layers else family.read_sizes(known.config), known.config)


def _build(build: Callable[[], Encoder], *, device: torch.device, dtype: torch.dtype) -> Encoder:
    """Build an encoder on a device.

    Raises:
        UsageError: its weights do not fit into the free memory.
    """
    free = free_bytes(device)
    if free is not None:
        with torch.device("meta"):
            needed = 4 * sum(parameter.numel() for parameter in build().parameters())  # drawn in fp32
        if needed > free:
            raise UsageError(f"its weights need {needed / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB are free")
    with device:
        encoder = build()
    encoder.eval().requires_grad_(False).compute_in(dtype)
    return encoder
