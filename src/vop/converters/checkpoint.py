"""Read the tensors of a PyTorch file without executing anything in it.

A state dict written by `torch.save` is read by PyTorch's own weights-only reader. OpenAI's CLIP files are TorchScript
archives: zip files with a description of the modules (`data.pkl`) and with code that `torch.jit.load` would compile
(`code/`). They are read here by an unpickler that builds only tensors and plain containers. `code/` is never opened.
"""

from __future__ import annotations

import math
import pickle
import pickletools
import re
import zipfile
import zlib
from collections import OrderedDict
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from vop.errors import UsageError, VopError
from vop.utils.files import expand

_FEWEST_OBJECTS = 10_000  # that any pickle may number
MAX_PICKLE_BYTES = 64 * 2**20  # OpenAI's largest pickle has less than 1 MB
# Errors that damaged or hostile bytes cause in the zip reader, the unpickler and PyTorch.
DAMAGE: tuple[type[Exception], ...] = (
    *(pickle.UnpicklingError, zipfile.BadZipFile, RuntimeError, EOFError, ValueError, TypeError, KeyError),
    *(IndexError, AttributeError, OverflowError, MemoryError, NotImplementedError, OSError, AssertionError, zlib.error),
)


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """Return the tensors in a PyTorch file by name, on the CPU.

    The file is a TorchScript archive or a state dict, which may be under the key "state_dict" or "model". The prefix
    "module." of data parallel training is removed.

    Raises:
        UsageError: the file does not exist.
        VopError: the file is damaged, contains no tensors, or refers to code.
    """
    path = expand(path)
    if not path.is_file():
        raise UsageError(f"{path}: the file does not exist")
    try:
        state = _read_archive(path) if _is_archive(path) else _read_state_dict(path)
    except DAMAGE as error:
        raise VopError(
            f"{path}: neither a TorchScript archive nor a PyTorch state dict of plain tensors ({reason_of(error)}): "
            "fetch the file again, and check that it is a model"
        ) from error
    if not state:
        raise VopError(f"{path}: the file contains no tensors")
    return state


def reason_of(error: BaseException) -> str:
    """Return the reason in a few words. PyTorch's own message recommends loading the file unsafely."""
    named = re.search(r"(?:GLOBAL|code:) ([\w.]+)", str(error))
    if named:
        return f"it refers to {named[1]}, which is not executed"
    first = (str(error).splitlines() or [""])[0]
    return "damaged or of another kind" if "weights_only" in first or not first else first[:160]


def _read_state_dict(path: Path) -> dict[str, Tensor]:
    loaded = torch.load(path, map_location="cpu", weights_only=True)
    for key in ("state_dict", "model"):
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    if not isinstance(loaded, dict):
        raise ValueError(f"it contains a {type(loaded).__name__}")
    state = {name: value for name, value in loaded.items() if isinstance(name, str) and isinstance(value, Tensor)}
    return {name.removeprefix("module."): value.detach() for name, value in state.items()}


def _is_archive(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.count("/") == 1 and name.endswith("/constants.pkl") for name in archive.namelist())


def _read_archive(path: Path) -> dict[str, Tensor]:
    with zipfile.ZipFile(path) as archive:
        root = next(name for name in archive.namelist() if name.endswith("/constants.pkl")).split("/")[0]
        described = archive.getinfo(f"{root}/data.pkl")
        if described.file_size > MAX_PICKLE_BYTES:
            raise ValueError(f"data.pkl has {described.file_size} bytes")
        with archive.open(described) as file:
            module = ArchiveUnpickler(file, archive, root).load()
        return _tensors_in(module)


def _tensors_in(module: object) -> dict[str, Tensor]:
    """Return the tensors of a tree of modules by their dotted names."""
    found: dict[str, Tensor] = {}
    waiting, seen = [("", module)], set()
    while waiting:
        prefix, one = waiting.pop()
        if id(one) in seen:  # in a hostile file, a module can contain itself
            continue
        seen.add(id(one))
        for name, value in vars(one).items():
            if isinstance(value, Tensor):
                found[prefix + name] = value
            elif type(value) is type(module):
                waiting.append((f"{prefix}{name}.", value))
    return found


def _check_memo(file: IO[bytes]) -> None:
    """Refuse a pickle that numbers its objects far beyond its size: the unpickler would take memory for all numbers."""
    for opcode, argument, position in pickletools.genops(file):
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(argument or 0) > _FEWEST_OBJECTS + (position or 0):
            raise pickle.UnpicklingError(f"object number {argument} at byte {position}")
    file.seek(0)


class ArchiveUnpickler(pickle.Unpickler):
    """Builds only tensors, plain containers, and for each scripted module an object with its attributes."""

    def __init__(self, file: IO[bytes], archive: zipfile.ZipFile, root: str) -> None:
        _check_memo(file)
        super().__init__(file)
        self.archive, self.root = archive, root
        # A new class for every file, because a pickle can set attributes of the classes that it names.
        self.module_class = type("ScriptedModule", (), {})
        self.storages: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> object:
        if module == "__torch__" or module.startswith("__torch__."):
            return self.module_class
        if module == "torch" and name.endswith("Storage") and name in _STORAGE_DTYPES:
            return _STORAGE_DTYPES[name]
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return self.rebuild_tensor
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch.jit._pickle":  # marks the type of a list or dict
            return self._as_it_is
        raise pickle.UnpicklingError(f"code: {module}.{name}")

    def persistent_load(self, reference: Any) -> Tensor:
        """Return the storage of ("storage", dtype, key, device, number of elements) as a flat tensor."""
        kind, dtype, key, _, count = reference
        if kind != "storage":
            raise pickle.UnpicklingError(f"unknown reference {kind!r}")
        if key not in self.storages:
            stored = self.archive.getinfo(f"{self.root}/data/{key}")
            if stored.compress_type != zipfile.ZIP_STORED:  # a few bytes could stand for any number of zeros
                raise ValueError(f"data/{key} is compressed")
            if stored.file_size != count * dtype.itemsize:
                raise ValueError(f"data/{key} has {stored.file_size} bytes, not {count} x {dtype.itemsize}")
            data = bytearray(self.archive.read(stored))  # a copy that tensors may write to
            self.storages[key] = torch.frombuffer(data, dtype=dtype) if count else torch.empty(0, dtype=dtype)
        return self.storages[key]

    def rebuild_tensor(
        self, storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object
    ) -> Tensor:
        if math.prod(size) > storage.numel():  # strides of 0 could ask for any amount of memory
            raise ValueError(f"a tensor of shape {tuple(size)} in a storage of {storage.numel()} elements")
        return storage.as_strided(size, stride, offset)

    @staticmethod
    def _as_it_is(value: object, *_: object) -> object:
        return value


_STORAGE_DTYPES = {
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
