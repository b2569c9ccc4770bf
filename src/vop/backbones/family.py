"""The base class of families of backbones. A family reads folders in the format of its authors.

It reads configuration, weights, preprocessing and vocabulary, and returns `Sizes`, an `Encoder`, a `Preprocessing` and
a `Tokenizer`. The rest of the package uses only these.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from vop.backbones.files import has_vocabulary
from vop.backbones.preprocessing import Preprocessing, read_preprocessing
from vop.backbones.sizes import Sizes
from vop.errors import VopError

if TYPE_CHECKING:
    from torch import Tensor

    from vop.backbones.tokenizer import Tokenizer
    from vop.backbones.towers import CLIP, Encoder


class Family:
    """A family whose folders are those of `transformers`: config.json, model.safetensors, tokenizer.json.

    Subclasses override what differs: at least `read_sizes` and `rename`.

    Attributes:
        title: the family's name in messages and tables.
        methods: the methods that its backbones support, in tables: "all", "zero-shot", or "all or zero-shot" if it
            depends on the checkpoint.
        weights: patterns of the weight files. The first pattern that matches is used.
    """

    title: ClassVar[str]
    methods: ClassVar[str] = "all"
    weights: ClassVar[tuple[str, ...]] = ("model*.safetensors", "pytorch_model*.bin")

    def read_sizes(self, config: Mapping[str, Any]) -> Sizes:
        """Read the sizes from a folder's configuration.

        Raises:
            ValueError: a value is not allowed or missing. The message names it.
        """
        raise NotImplementedError

    def rename(self, state: Mapping[str, Tensor], sizes: Sizes, *, source: str) -> dict[str, Tensor]:
        """Rename the weights of a folder to those of `CLIP`.

        Raises:
            VopError: a tensor is missing. The message names it and `source`.
        """
        raise NotImplementedError

    def read_preprocessing(self, folder: Path, sizes: Sizes) -> Preprocessing:
        """Read the preprocessing of frames."""
        return read_preprocessing(folder, image_size=sizes.vision.image_size)

    def read_tokenizer(self, folder: Path, sizes: Sizes) -> Tokenizer | None:
        """Read the vocabulary, or return None if the folder has none."""
        from vop.backbones.tokenizer import Tokenizer

        return Tokenizer(folder, sizes.text) if has_vocabulary(folder) else None

    def build(self, sizes: Sizes) -> CLIP:
        """Build the towers with random parameters. On the device `meta`, no memory is allocated."""
        from vop.backbones.towers import CLIP

        return CLIP(sizes)

    def build_random(self, sizes: Sizes, config: Mapping[str, Any]) -> Encoder:
        """Build the model with random weights, without any file.

        Args:
            config: the folder's configuration, for models whose `sizes` have no layers.

        Raises:
            VopError: the model cannot be built without its files, or a library is missing.
        """
        if not sizes.has_layers:
            raise VopError(f"{self.title} cannot be built without the files of its weights")
        return self.build(sizes)

    def load(self, folder: Path, sizes: Sizes, *, stored_image_size: int) -> Encoder:
        """Load the weights, in fp32.

        Args:
            stored_image_size: the image size of the weights. If `sizes` has another one, positions are interpolated.

        Raises:
            VopError: the weights are missing or damaged, or belong to another model.
        """
        import torch

        from vop.backbones.files import weight_files
        from vop.backbones.weights import check_shapes, check_size, read_weights, resize_positions

        with torch.device("meta"):
            clip = self.build(sizes)
        wanted = clip.state_dict()
        files = weight_files(folder, self.weights)
        check_size(files, sum(tensor.numel() for tensor in wanted.values()), folder=folder)
        state = self.rename(read_weights(files, folder=folder), sizes, source=str(folder))
        if stored_image_size != sizes.vision.image_size:
            state["vision.positions"] = resize_positions(
                state["vision.positions"], stored_image_size // sizes.vision.patch_size, sizes.vision
            )
        check_shapes(state, wanted, folder)
        clip.load_state_dict({name: tensor.float() for name, tensor in state.items()}, assign=True)
        return clip.eval().requires_grad_(False)
