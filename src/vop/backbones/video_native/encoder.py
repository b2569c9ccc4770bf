"""Encoders that read the frames of a video together: `transformers` computes them, and methods cannot reach inside.

Shapes: `b` videos or texts, `f` frames, `n` tokens, `e` the joint space.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from typing import Any, ClassVar

import torch
from torch import Tensor

from vop.backbones.sizes import Sizes
from vop.backbones.towers import Encoder
from vop.errors import UsageError, VopError

# Values that make transformers fetch and run code that the folder, not transformers, brings.
_CODE = ("auto_map", "attn_implementation", "_attn_implementation", "experts_implementation")


class VideoEncoder(Encoder):
    """A model of `transformers`. One embedding per video, in place of one per frame.

    Attributes:
        kind: the name of the model's class in `transformers`.
    """

    kind: ClassVar[str]
    model: Any  # the classes of transformers have no common type for what is used here

    def __init__(self, sizes: Sizes, model: Any) -> None:
        super().__init__(sizes)
        self.model = model
        self.add_logit_scale()

    def embed_frames(self, pixels: Tensor) -> Tensor:
        """Embed videos (b, f, 3, h, w): (b, 1, e), not normalised."""
        self.sizes.check_num_frames(pixels.shape[1])
        return self.embed_videos(pixels.to(self.dtype))[:, None]

    def embed_videos(self, pixels: Tensor) -> Tensor:
        """Embed videos (b, f, 3, h, w), which have the dtype of the weights: (b, e)."""
        raise NotImplementedError


def load_model(kind: str, config: Mapping[str, Any], state: Mapping[str, Tensor], *, source: str) -> Any:
    """Build a model of `transformers` from its configuration and fill in all of its weights, in fp32.

    Raises:
        UsageError: a library that the model needs is missing.
        VopError: `transformers` cannot build the model, or the weights are not of this model.
    """
    model_class = _find_class(kind)
    with _building(kind, source):
        model, found = model_class.from_pretrained(
            None,
            config=model_class.config_class.from_dict(_without_code(config)),
            state_dict=dict(state),
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are reported here, with the name of the tensor
        )
    if found["mismatched_keys"]:
        name, got, needed = min(found["mismatched_keys"])
        raise VopError(
            f"{source}: {name} has the shape {tuple(got)} in the weights; its config.json needs {tuple(needed)}"
        )
    missing = found["missing_keys"] or [name for name in found["unexpected_keys"] if not name.endswith("position_ids")]
    if missing:
        what = "is missing" if found["missing_keys"] else "is not part of the model"
        raise VopError(f"{source}: the tensor {min(missing)!r} {what}: these are not the weights of a {kind}")
    return model


def build_model(kind: str, config: Mapping[str, Any], *, source: str) -> Any:
    """Build a model of `transformers` from its configuration, with random weights in fp32.

    Raises:
        UsageError: a library that the model needs is missing.
        VopError: `transformers` cannot build the model.
    """
    model_class = _find_class(kind)
    with _building(kind, source):
        return model_class(model_class.config_class.from_dict(_without_code(config)))


def count_parameters(kind: str, config: Mapping[str, Any], *, source: str) -> int:
    """Return the number of parameters of a model, without allocating them."""
    with torch.device("meta"):
        model = build_model(kind, config, source=source)
    return sum(tensor.numel() for tensor in model.state_dict().values())


def _find_class(kind: str) -> Any:
    import transformers

    found = getattr(transformers, kind, None)
    if found is None:
        raise UsageError(f"transformers {transformers.__version__} has no {kind}: pip install --upgrade transformers")
    return found


def _without_code(config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _without_code(value) if isinstance(value, Mapping) else value
        for name, value in config.items()
        if name not in _CODE
    }


@contextmanager
def _building(kind: str, source: str) -> Iterator[None]:
    """Raise errors of ours for those of transformers, which itself reports nothing meanwhile."""
    import transformers

    logging: Any = transformers.utils.logging  # its functions have no types
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with redirect_stdout(StringIO()):  # it prints remarks on its own docstrings
            yield
    except ImportError as error:
        raise UsageError(f"{source}: a library is not installed: {' '.join(str(error).split())}") from error
    except Exception as error:  # of any kind, for any value that transformers does not expect
        raise VopError(f"{source}: transformers cannot build its {kind} ({error}); fetch the folder again") from error
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
