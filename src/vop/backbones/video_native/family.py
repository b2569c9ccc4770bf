"""What the families of video encoders share: a folder of `transformers`, from which its own class is built."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from vop.backbones.config_values import read_value
from vop.backbones.family import Family
from vop.backbones.files import has_vocabulary, weight_files
from vop.backbones.preprocessing import Preprocessing, read_preprocessing
from vop.backbones.sizes import Sizes
from vop.utils.parsing import read_json_object
from vop.video.resizing import Resizing

if TYPE_CHECKING:
    from torch import Tensor

    from vop.backbones.tokenizer import Tokenizer
    from vop.backbones.video_native.encoder import VideoEncoder


class VideoFamily(Family):
    """Subclasses name the encoder and say what differs.

    Attributes:
        interpolation, mode, mean, std: of the preprocessing, where the folder does not say.
        cleaning: of texts, a name of `vop.backbones.tokenizer.CLEANING`.
        ends: whether the vocabulary puts an end mark behind a text.
    """

    methods = "zero-shot"
    interpolation: ClassVar[str] = "bilinear"
    mode: ClassVar[str] = "squash"
    mean: ClassVar[tuple[float, ...]]
    std: ClassVar[tuple[float, ...]]
    cleaning: ClassVar[str] = "none"
    ends: ClassVar[bool] = True

    def encoder(self) -> type[VideoEncoder]:
        """Return the class of the encoder."""
        raise NotImplementedError

    def model_config(self, config: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the part of a config.json that describes the model."""
        return config

    def count_parameters(self, config: Mapping[str, Any], *, source: str) -> int:
        """Return how many numbers the files of a config.json hold."""
        from vop.backbones.video_native.encoder import count_parameters

        return count_parameters(self.encoder().kind, self.model_config(config), source=source)

    def rename(self, state: Mapping[str, Tensor], sizes: Sizes, *, source: str) -> dict[str, Tensor]:
        return dict(state)

    def read_preprocessing(self, folder: Path, sizes: Sizes) -> Preprocessing:
        size = sizes.vision.image_size
        resizing = Resizing(size, mode=self.mode, interpolation=self.interpolation)
        usual = Preprocessing(resizing=resizing, mean=self.mean, std=self.std)
        return read_preprocessing(folder, image_size=size, usual=usual)

    def read_tokenizer(self, folder: Path, sizes: Sizes) -> Tokenizer | None:
        from vop.backbones.tokenizer import Tokenizer

        if not has_vocabulary(folder):
            return None
        pad = sizes.text.pad_token_id
        return Tokenizer(folder, sizes.text, cleaning=self.cleaning, ends=self.ends, pad_token_id=pad)

    def build_random(self, sizes: Sizes, config: Mapping[str, Any]) -> VideoEncoder:
        from vop.backbones.video_native.encoder import build_model

        encoder = self.encoder()
        return encoder(sizes, build_model(encoder.kind, self.model_config(config), source=self.title))

    def load(self, folder: Path, sizes: Sizes, *, stored_image_size: int) -> VideoEncoder:
        from vop.backbones.video_native.encoder import load_model
        from vop.backbones.weights import check_size, read_weights

        encoder = self.encoder()
        config = read_json_object(folder / "config.json", remedy="fetch the folder again")
        files, source = weight_files(folder, self.weights), str(folder)
        check_size(files, self.count_parameters(config, source=source), folder=folder)
        state = self.rename(read_weights(files, folder=folder), sizes, source=source)
        model = load_model(encoder.kind, self.model_config(config), state, source=source)
        return encoder(sizes, model).eval().requires_grad_(False)


def read_widths(part: Mapping[str, Any], *, width: int, mlp_width: int) -> dict[str, Any]:
    """Read the widths of a tower whose layers are out of reach, as arguments of `TowerSizes`."""
    return {
        "width": read_value(part, "hidden_size", width),
        "layers": 0,
        "heads": 1,
        "mlp_width": read_value(part, "intermediate_size", mlp_width),
    }


def check_layers(part: Mapping[str, Any], *names: str) -> None:
    """Raise a ValueError if a number of layers is not allowed. Their number is not part of the sizes."""
    for name in names:
        read_value(part, name, 1)
