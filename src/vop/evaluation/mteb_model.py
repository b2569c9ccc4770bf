"""Models for MTEB, the Massive Text Embedding Benchmark, whose tasks search and compare texts, pictures and videos.

MTEB's own models take frames from torchcodec. Here `vop` reads the files of the videos, so that a model sees the same
frames in MTEB as in `vop evaluate`, and torchcodec is not needed.

Shapes: `n` inputs, `f` frames of a video, `e` the joint space.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from vop.datasets.frames import FrameStore
from vop.datasets.types import Video
from vop.errors import UsageError
from vop.evaluation.metrics import similarity_matrix
from vop.models.fingerprint import fingerprint
from vop.utils.threads import free_cores
from vop.video.ahead import map_ahead
from vop.video.frames import Pixels, middles
from vop.video.picture import opaque_rgb
from vop.video.shape import square

if TYPE_CHECKING:
    from mteb.models.model_meta import ModelMeta
    from numpy.typing import NDArray

    from vop.models.model import TextVideoModel

    Embeddings = NDArray[np.float32]

KINDS = ("text", "image", "video")  # MTEB's names of modalities
BATCH_SIZE = 32  # MTEB's default


class MtebModel:
    """A model with the interface of MTEB's encoders (`mteb.EncoderProtocol`, MTEB 2.12.30 and later).

    `mteb.evaluate(vop.MtebModel(vop.load("runs/cooking")), tasks)` runs MTEB's tasks with texts, pictures and videos.
    A picture counts as a video whose frames are all equal. If an input has several of them, their embeddings are added;
    sound is ignored.

    A video is one of:

    - the path of a file, or MTEB's {"path": ..., "bytes": ...}: decoded as in `TextVideoModel.encode_video`.
    - frames, uint8 (f, 3, height, width) or (f, height, width, 3), of any size and number: the frames in the middle of
      `num_frames` equal intervals are resized as in `TextVideoModel.encode_frames`.
    - a `VideoDecoder` of torchcodec: as frames, chosen by their time.

    Args:
        model: what `vop.load` returns. It is set to evaluation mode.
        name: "OWNER/NAME", under which MTEB reports the results. By default the method and the backbone.
        revision: MTEB takes stored results of the same name and revision instead of running a task again. By default a
            hash of everything that determines the embeddings.

    Raises:
        UsageError: the model has a head that scores pairs, so that a video has no embedding, or `name` has no owner.
    """

    def __init__(self, model: TextVideoModel, *, name: str | None = None, revision: str | None = None) -> None:
        model.check_independent()
        model.check_vocabulary()
        self.model = model.eval()
        self.name = name or default_name(model)
        if len(parts := self.name.split("/")) != 2 or not all(parts):
            raise UsageError(f"name is {self.name!r}; MTEB takes OWNER/NAME")
        self.revision = revision or default_revision(model)

    @cached_property
    def mteb_model_meta(self) -> ModelMeta:
        """What MTEB reports about the model.

        Raises:
            UsageError: MTEB is not installed.
        """
        try:
            from mteb.models.model_meta import ModelMeta, ScoringFunction
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] != "mteb":
                raise
            raise UsageError("the description for MTEB needs the library mteb: pip install 'vop[mteb]'") from None

        parameters = list(self.model.parameters())
        return ModelMeta(
            loader=None,
            name=self.name,
            revision=self.revision,
            release_date=None,
            languages=None,
            n_parameters=sum(parameter.numel() for parameter in parameters),
            memory_usage_mb=sum(parameter.nbytes for parameter in parameters) / 2**20,
            max_tokens=self.model.method.max_tokens,
            embed_dim=self.model.dimensions,
            license=None,
            open_weights=None,
            public_training_code=None,
            public_training_data=None,
            framework=["PyTorch"],
            similarity_fn_name=ScoringFunction.COSINE,
            use_instructions=False,
            training_datasets=None,
            modalities=list(KINDS),
        )

    def encode(
        self,
        inputs: Iterable[Mapping[str, Any]],
        *,
        task_metadata: object = None,
        hf_split: str = "",
        hf_subset: str = "",
        prompt_type: object = None,
        batch_size: int = BATCH_SIZE,
        **_: object,
    ) -> Embeddings:
        """Embed the inputs of a task.

        Args:
            inputs: batches with the keys `text`, `image` or `video`, each a list; they are read more than once. Usually
                MTEB's `DataLoader`: then its data set is read directly, because it can give the videos as files.
            task_metadata, hf_split, hf_subset, prompt_type: MTEB passes them; they make no difference, because queries
                and documents are embedded alike, without instructions.
            batch_size: inputs per forward pass.

        Returns:
            Unit embeddings, float32 (n, e).

        Raises:
            UsageError: the inputs have none of these keys, or something is not a picture or a video.
            VideoError: a video cannot be read.
        """
        kinds = _kinds(inputs)
        parts = [self._encode_kind(kind, _items(inputs, kind), batch_size) for kind in kinds]
        if len(parts) == 1:
            return parts[0].numpy()
        return F.normalize(torch.stack(parts).sum(dim=0), dim=-1).numpy()

    def similarity(self, embeddings1: Embeddings | Tensor, embeddings2: Embeddings | Tensor) -> Tensor:
        """Return the cosines of embeddings (n, e) and (m, e): float32 (n, m). Equal embeddings have equal cosines."""
        return similarity_matrix(_unit(embeddings1), _unit(embeddings2))

    def similarity_pairwise(self, embeddings1: Embeddings | Tensor, embeddings2: Embeddings | Tensor) -> Tensor:
        """Return the cosine of each embedding (n, e) with the one at the same place: float32 (n,)."""
        return (_unit(embeddings1) * _unit(embeddings2)).sum(dim=-1)

    def _encode_kind(self, kind: str, items: Iterator[Any], batch_size: int) -> Tensor:
        if kind == "text":
            return self.model.encode_text(list(items), batch_size=8 * batch_size)
        if kind == "image":
            return self._encode_frames(map(self._of_picture, items), batch_size)
        with self._decoded(items, ahead=batch_size) as videos:
            return self._encode_frames(videos, batch_size)

    def _encode_frames(self, videos: Iterator[Pixels], batch_size: int) -> Tensor:
        """Embed videos that are ready for the backbone, (num_frames, 3, size, size) each."""
        parts = []
        while some := list(islice(videos, batch_size)):
            parts.append(self.model.encode_frames(np.stack(some), batch_size=batch_size))
        return torch.cat(parts) if parts else torch.empty(0, self.model.dimensions)

    @contextmanager
    def _decoded(self, items: Iterator[Any], *, ahead: int) -> Iterator[Iterator[Pixels]]:
        """Yield the frames of videos, which threads decode while the model works."""
        workers = free_cores()
        store = FrameStore(num_frames=self.model.num_frames, resizing=self.model.resizing)

        def results() -> Iterator[Pixels]:
            for done in decoding:
                if isinstance(done.result, Exception):
                    raise done.result
                yield done.result

        with (
            store.isolated() as isolated,
            closing(
                map_ahead(items, lambda item: self._of_video(item, isolated), workers=workers, ahead=ahead + workers)
            ) as decoding,
        ):
            yield results()

    def _of_video(self, item: Any, store: FrameStore) -> Pixels:
        """Return the frames of a video in any form, ready for the backbone."""
        if isinstance(item, str | Path):
            return store.load_array(Video(str(item), Path(item)))
        if isinstance(item, Mapping):
            return _of_file(item, store)
        if hasattr(item, "get_frames_played_at"):
            return self._of_frames(_played(item, self.model.num_frames))
        return self._of_frames(item)

    def _of_frames(self, frames: Any) -> Pixels:
        """Choose `num_frames` frames and resize them."""
        frames = frames.cpu().numpy() if isinstance(frames, Tensor) else frames
        if not isinstance(frames, np.ndarray):
            raise UsageError(f"a video is a {type(frames).__name__}; it must be a file, frames or a VideoDecoder")
        if frames.dtype != np.uint8 or frames.ndim != 4 or 3 not in (frames.shape[1], frames.shape[3]):
            raise UsageError(
                f"a video has frames of dtype {frames.dtype} and shape {frames.shape}; they must be uint8 "
                "(f, 3, height, width) or (f, height, width, 3)"
            )
        if 0 in frames.shape:
            raise UsageError(f"a video has no pixels: its shape is {frames.shape}")
        if frames.shape[1] == 3:
            frames = frames.transpose(0, 2, 3, 1)
        chosen = middles(len(frames), self.model.num_frames)
        squares = {place: square(frames[place], resizing=self.model.resizing) for place in {*chosen}}
        return np.stack([squares[place] for place in chosen])

    def _of_picture(self, image: Any) -> Pixels:
        if not isinstance(image, Image.Image):
            raise UsageError(f"an image is a {type(image).__name__}; it must be an Image of Pillow")
        return self._of_frames(np.asarray(opaque_rgb(image))[None])


def default_name(model: TextVideoModel) -> str:
    """Return a name from the method and the backbone, such as "vop/vop-f+p-clip-vit-base-patch32"."""
    backbone = Path(model.backbone.name).name
    method = model.method_name.rpartition(":")[2]
    return f"vop/{method}-{backbone}".replace(":", "-").replace(" ", "-")


def default_revision(model: TextVideoModel) -> str:
    """Return a hash of all that determines the embeddings, and the precision unless it is fp32."""
    reduced = "" if model.clip.dtype == torch.float32 else f"-{str(model.clip.dtype).removeprefix('torch.')}"
    return fingerprint(model) + reduced


def _kinds(inputs: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the keys of the inputs that a model can embed."""
    features = _features(inputs)
    found = list(next(iter(inputs), {}) if features is None else features)
    kinds = [kind for kind in KINDS if kind in found]
    if not kinds:
        raise UsageError(
            f"the inputs have the keys {', '.join(found) or '(none)'}; one of {', '.join(KINDS)} is needed"
        )
    return kinds


def _features(inputs: object) -> Mapping[str, Any] | None:
    """Return the columns of a Hugging Face data set behind a `DataLoader`; None for other inputs."""
    dataset = getattr(inputs, "dataset", None)
    return dataset.features if dataset is not None and hasattr(dataset, "select_columns") else None


def _items(inputs: Any, kind: str) -> Iterator[Any]:
    """Yield the inputs of a kind one by one, videos as files where they are files."""
    features = _features(inputs)
    if features is None:
        for batch in inputs:
            yield from batch[kind]
        return
    column = inputs.dataset.select_columns([kind])
    if kind == "video" and getattr(features[kind], "decode", False):
        column = column.cast_column(kind, replace(features[kind], decode=False))
    for row in column:
        yield row[kind]


def _of_file(item: Mapping[str, Any], store: FrameStore) -> Pixels:
    """Return the frames of a file that is on disk or in memory."""
    path, content = item.get("path"), item.get("bytes")
    if content is None:
        if path is None:
            raise UsageError(f"a video has the keys {', '.join(item) or '(none)'}; its path or its bytes are needed")
        return store.load_array(Video(str(path), Path(path)))
    with TemporaryDirectory(prefix="vop-") as folder:
        file = Path(folder) / (Path(path or "").name or "video")  # errors name the file
        file.write_bytes(content)
        return store.load_array(Video(file.name, file))


def _played(decoder: Any, num_frames: int) -> Tensor:
    """Return the frames that a decoder of torchcodec shows in the middle of equal intervals."""
    start, end = decoder.metadata.begin_stream_seconds, decoder.metadata.end_stream_seconds
    seconds = [start + (end - start) * (number + 0.5) / num_frames for number in range(num_frames)]
    return decoder.get_frames_played_at(seconds=seconds).data


def _unit(embeddings: Embeddings | Tensor) -> Tensor:
    """Return unit vectors (n, e) for (n, e) or (e,)."""
    return F.normalize(torch.atleast_2d(torch.as_tensor(embeddings).float()), dim=-1)
