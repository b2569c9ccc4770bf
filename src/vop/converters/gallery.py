"""Read a pickled gallery of features, such as the authors' `VoP_msrvtt9k_features.pkl`, without executing code.

The file is a dict of NumPy arrays, PyTorch tensors, and lists of strings, written by `pickle.dump` or `torch.save`. Its
pickle is read by an unpickler that knows only these. A NumPy array or type is recorded and checked, and then built from
its bytes; NumPy's own functions never see what the file says.
"""

from __future__ import annotations

import io
import math
import pickle
import re
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from vop.converters.checkpoint import DAMAGE, MAX_PICKLE_BYTES, ArchiveUnpickler, reason_of
from vop.errors import DataError
from vop.utils.files import check_file

_DTYPE = re.compile(r"[?bB]|[iu][1248]|f[248]|[biu?]1|[US]\d{1,6}|O8?")
_NUMPY = {f"numpy.{core}.{module}" for core in ("core", "_core") for module in ("multiarray", "numeric")}


def read_gallery(path: str | Path, names: Collection[str]) -> dict[str, Any]:
    """Return the dict in a file: arrays, lists of strings or numbers, and strings.

    Args:
        names: the entries that are wanted. The others are None, and may contain any containers of these.

    Raises:
        DataError: the file is missing or damaged, contains something else, or refers to code.
    """
    path = Path(path)
    check_file(path, error=DataError)
    try:
        found = _load(path)
        if not isinstance(found, dict):
            raise ValueError(f"it contains a {type(found).__name__}, not a dict")
        return {str(name): _plain(value) if name in names else None for name, value in found.items()}
    except DAMAGE as error:
        raise DataError(
            f"{path}: not a pickled dict of arrays, tensors and lists of strings ({reason_of(error)})"
        ) from error


def _load(path: Path) -> Any:
    if zipfile.is_zipfile(path):  # torch.save
        with zipfile.ZipFile(path) as archive:
            (described,) = [one for one in archive.infolist() if re.fullmatch(r"[^/]+/data\.pkl", one.filename)]
            if described.file_size > MAX_PICKLE_BYTES:
                raise ValueError(f"data.pkl has {described.file_size} bytes")
            with archive.open(described) as file:
                return _GalleryUnpickler(file, archive, described.filename.split("/")[0]).load()
    with open(path, "rb") as file:
        return _GalleryUnpickler(file).load()


class _GalleryUnpickler(ArchiveUnpickler):
    """Builds only tensors, records of NumPy arrays, and plain containers."""

    def __init__(self, file: IO[bytes], archive: zipfile.ZipFile | None = None, root: str = "") -> None:
        super().__init__(file, archive, root)  # type: ignore[arg-type]  # without an archive no storage is read

    def find_class(self, module: str, name: str) -> object:
        if module in _NUMPY and name in ("_reconstruct", "scalar", "_frombuffer"):
            return {"_reconstruct": self._array, "scalar": self._scalar, "_frombuffer": self._from_buffer}[name]
        if (module, name) == ("numpy", "ndarray"):
            return "ndarray"
        if (module, name) == ("numpy", "dtype"):
            return self._dtype
        if (module, name) == ("_codecs", "encode"):  # bytes in old pickles
            return self._bytes
        if (module, name) == ("torch.storage", "_load_from_bytes"):
            return self._storage
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return self._as_it_is
        known = {("torch._utils", "_rebuild_tensor_v2"), ("collections", "OrderedDict")}
        if (module, name) in known or (module == "torch" and name.endswith("Storage")):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"code: {module}.{name}")

    def persistent_load(self, reference: Any) -> Tensor:
        if self.archive is None:
            raise pickle.UnpicklingError("a tensor outside of the file")
        return super().persistent_load(reference)

    @staticmethod
    def _array(*_: object) -> _Array:
        return _Array()

    @staticmethod
    def _dtype(code: object, *_: object) -> _DType:
        return _DType(code)

    @staticmethod
    def _scalar(dtype: object, raw: object) -> Any:
        return _Array(dtype, (1,), raw).to_numpy()[0].item()

    @staticmethod
    def _from_buffer(raw: object, dtype: object, shape: object, order: object) -> _Array:
        return _Array(dtype, shape, raw, fortran=order == "F")

    @staticmethod
    def _bytes(text: object, encoding: object) -> bytes:
        if not isinstance(text, str) or encoding != "latin1":
            raise ValueError("bytes in an unknown encoding")
        return text.encode("latin1")

    @staticmethod
    def _storage(data: object) -> Tensor:
        if not isinstance(data, bytes):
            raise ValueError("a storage that is not bytes")
        stored = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        if not isinstance(stored, torch.storage.TypedStorage):
            raise ValueError(f"a storage that is a {type(stored).__name__}")
        return torch.empty(0, dtype=stored.dtype).set_(stored._untyped_storage)  # untyped() warns


class _DType:
    """What a pickle says about a NumPy type."""

    def __init__(self, code: object) -> None:
        self.code = code
        self.order: Any = "="

    def __setstate__(self, state: Any) -> None:
        order = state[1]
        self.order = "=" if order == "|" else order

    def to_numpy(self) -> np.dtype[Any]:
        if not isinstance(self.code, str) or not _DTYPE.fullmatch(self.code) or self.order not in ("<", ">", "="):
            raise ValueError(f"an array of type {self.code!r}")
        return np.dtype(self.code).newbyteorder(self.order)


class _Array:
    """What a pickle says about a NumPy array."""

    def __init__(self, dtype: object = None, shape: object = (), raw: object = None, *, fortran: bool = False) -> None:
        self.dtype, self.shape, self.raw, self.fortran = dtype, shape, raw, fortran

    def __setstate__(self, state: Any) -> None:
        _, self.shape, self.dtype, self.fortran, self.raw = state

    def to_numpy(self) -> np.ndarray[Any, Any]:
        if not isinstance(self.dtype, _DType) or not isinstance(self.shape, tuple):
            raise ValueError("an array without a type or a shape")
        shape = tuple(int(size) for size in self.shape)
        dtype, count = self.dtype.to_numpy(), math.prod(shape)
        if dtype.kind == "O":
            if not isinstance(self.raw, list) or len(self.raw) != count or min(shape, default=0) < 0:
                raise ValueError(f"an array of objects with the shape {shape}")
            return np.array([str(_text(item)) for item in self.raw]).reshape(shape)
        raw = self.raw.encode("latin1") if isinstance(self.raw, str) else self.raw
        if not isinstance(raw, bytes | bytearray) or len(raw) != count * dtype.itemsize or min(shape, default=0) < 0:
            raise ValueError(f"an array with the shape {shape} and too few or too many bytes")
        return np.frombuffer(raw, dtype).reshape(shape, order="F" if self.fortran else "C").copy()


def _plain(value: object) -> Any:
    if isinstance(value, _Array):
        return value.to_numpy()
    if isinstance(value, Tensor):
        return (value.float() if value.is_floating_point() else value).detach().numpy()
    if isinstance(value, list | tuple):
        if value and all(isinstance(item, Tensor | _Array) for item in value):
            return np.stack([_plain(item) for item in value])
        return [_text(item) for item in value]
    return _text(value)


def _text(value: object) -> str | int | float | None:
    if value is None or isinstance(value, str | int | float):
        return value
    raise ValueError(f"a {type(value).__name__} where a string belongs")
