"""Read weight files, and check them before they fill memory. Code in them is not executed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError

import torch
import torch.nn.functional as F
from torch import Tensor

from vop.backbones.files import check_header
from vop.backbones.sizes import VisionSizes
from vop.errors import VopError
from vop.utils.files import check_file


def check_size(files: Sequence[Path], count: int, *, folder: Path) -> None:
    """Raise a VopError if the files are much larger than the `count` numbers of the configuration."""
    for path in files:
        check_file(path)
        if path.suffix == ".safetensors":
            check_header(path)
    size, most = sum(path.stat().st_size for path in files), 8 * count + 64 * 2**20
    if size > most:
        raise VopError(
            f"{folder}: the weights have {size:,} bytes; a model with this config.json has at most {most:,}: "
            "they belong to another model"
        )


def read_weights(files: Sequence[Path], *, folder: Path) -> dict[str, Tensor]:
    """Read the tensors of one file, or of all its shards.

    Raises:
        VopError: the files are missing or damaged, or contain more than tensors.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not files:
        raise VopError(f"{folder}: model.safetensors is missing: the folder contains no weights")
    state: dict[str, Tensor] = {}
    try:
        for path in files:
            if path.suffix == ".safetensors":
                state |= load_file(path)
            else:
                loaded = torch.load(path, map_location="cpu", weights_only=True)
                state |= {name: value for name, value in loaded.items() if isinstance(value, Tensor)}
    except UnpicklingError as error:
        raise VopError(f"{folder}: the weights contain more than tensors and are not read; use safetensors") from error
    except (SafetensorError, OSError, RuntimeError, AttributeError) as error:
        raise VopError(f"{folder}: the weights cannot be read ({error}); fetch or convert them again") from error
    return state


def check_shapes(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], folder: Path) -> None:
    """Raise a VopError if the weights do not have the shapes of the configuration."""
    for name in sorted(wanted.keys() | state.keys()):
        got, needed = (tuple(part[name].shape) if name in part else "no tensor" for part in (state, wanted))
        if got != needed:
            raise VopError(f"{folder}: the shape of {name} is {got} in the weights, {needed} by config.json")


def resize_positions(positions: Tensor, grid: int, vision: VisionSizes) -> Tensor:
    """Interpolate the positions of `grid` x `grid` patches to the grid of `vision` (bicubic). That of [CLS] stays.

    Args:
        positions: (summaries + grid * grid, d).
    """
    summaries, patches = positions.float().split([vision.summaries, grid**2])
    image = patches.T.unflatten(1, (grid, grid))[None]
    resized = F.interpolate(image, (vision.grid, vision.grid), mode="bicubic", align_corners=False)
    return torch.cat([summaries, resized[0].flatten(1).T])
