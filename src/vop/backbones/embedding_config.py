"""How a model embeds, as far as this is chosen when it is opened: faster, or into shorter vectors.

A library keeps these settings, because embeddings of different settings cannot be compared. This module does not import
PyTorch, so that reading a library's manifest is fast.
"""

from __future__ import annotations

import reprlib
from dataclasses import asdict, dataclass
from typing import Any

from vop.backbones.sizes import VisionSizes
from vop.errors import UsageError
from vop.utils.checks import check_whole
from vop.utils.text import count

_STRICT: Any = {"extra": "forbid"}  # in files, an unknown key is an error


@dataclass(frozen=True)
class TokenMerging:
    """How a vision tower merges patches; see `vop.backbones.merging`.

    Attributes:
        ratio: the fraction of the patches that the last layer no longer has, from 0 (merging is off) to below 1.
        across_frames: how many neighbouring frames go through the upper half of the layers together. 1 merges only
            within frames.
    """

    __pydantic_config__ = _STRICT

    ratio: float
    across_frames: int = 1

    def __post_init__(self) -> None:
        ratio = self.ratio
        if isinstance(ratio, bool) or not isinstance(ratio, int | float) or not 0 <= ratio < 1:
            shown = reprlib.repr(ratio)
            raise UsageError(
                f"the ratio of token merging is {shown}; it must be a number from 0 to below 1, such as 0.5"
            )
        check_whole("across_frames", self.across_frames, at_least=1)

    @classmethod
    def of(cls, value: float | TokenMerging) -> TokenMerging:
        """Return the setting for an argument that may be only the ratio."""
        return value if isinstance(value, TokenMerging) else cls(value)

    def __str__(self) -> str:
        across = f" across {self.across_frames} frames" if self.across_frames > 1 else ""
        return f"{self.ratio:g}{across}"

    def check_tower(self, tower: VisionSizes) -> None:
        """Raise a UsageError if a tower cannot merge its patches like this."""
        if tower.rope is not None:
            raise UsageError(
                "this backbone has rotary positions, which every layer needs for each patch: leave out merge_tokens"
            )
        if self.across_frames > 1 and tower.readout != "class":
            raise UsageError(
                f"across_frames is {self.across_frames}; this backbone has no [CLS] token for each frame: use 1"
            )
        self.schedule(tower)

    def schedule(self, tower: VisionSizes) -> list[int]:
        """Return the number of patches of a frame that are left after each layer."""
        patches, layers = tower.patches, tower.layers
        last = max(1, round(patches * (1 - self.ratio)))
        counts = [last]
        for number in range(layers - 1, 0, -1):
            linear = round(patches - (patches - last) * number / (layers - 1))
            counts.insert(0, min(linear, 2 * counts[0]))
        if last < patches and (layers == 1 or 2 * counts[0] < patches):
            raise UsageError(
                f"the ratio of token merging is {self.ratio}; {count('layer', layers)} can halve the number of "
                f"patches, {patches}, only {count('time', layers - 1)}: use a smaller ratio"
            )
        return counts

    def check_frames(self, frames: int) -> None:
        """Raise a UsageError if videos of this many frames cannot be divided into groups."""
        if frames % self.across_frames:
            raise UsageError(f"across_frames is {self.across_frames}; it must divide the {frames} frames of a video")


@dataclass(frozen=True, kw_only=True)
class EmbeddingConfig:
    """How a model embeds.

    Attributes:
        merge_tokens: how similar patches are merged. In the settings of a model, None means that none are; in the
            options of a call, None means that nothing was given.
        dimensions: the number of dimensions of an embedding, the first ones of the joint space; None for all.
    """

    __pydantic_config__ = _STRICT

    merge_tokens: TokenMerging | None = None
    dimensions: int | None = None

    @classmethod
    def of(cls, *, merge_tokens: float | TokenMerging | None = None, dimensions: int | None = None) -> EmbeddingConfig:
        """Return the settings for the arguments of `vop.load`."""
        merging = None if merge_tokens is None else TokenMerging.of(merge_tokens)
        return cls(merge_tokens=merging, dimensions=dimensions)

    def differences(self) -> dict[str, Any]:
        """Return the settings that differ from a model's usual ones, in plain values."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def in_words(self) -> list[str]:
        """Return the settings that differ from a model's usual ones, for a list in a sentence."""
        words = []
        if self.merge_tokens is not None:
            words.append(f"token merging {self.merge_tokens}")
        if self.dimensions is not None:
            words.append(count("dimension", self.dimensions))
        return words


AS_USUAL = EmbeddingConfig()
