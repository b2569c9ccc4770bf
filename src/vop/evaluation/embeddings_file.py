"""Files of a split's embeddings: an evaluation without videos and without a model. docs/evaluation.md has the layouts.

Shapes: `n` texts, `v` videos, `f` frames, `d` dimensions.
"""

from __future__ import annotations

import json
import reprlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vop.converters.checkpoint import DAMAGE
from vop.converters.gallery import read_gallery
from vop.datasets.types import SPLIT_NAMES, Split, Video
from vop.errors import DataError, UsageError, unknown_name
from vop.evaluation.embedding import SplitEmbeddings
from vop.evaluation.report import ReportFacts
from vop.utils.files import atomic_write, check_file, expand
from vop.utils.parsing import without_float
from vop.utils.text import count

SCORES = ("cosine", "dot")
KINDS = ("text", "video", "bank_text", "bank_video")
_ARRAYS = tuple(f"{kind}_embeds" for kind in KINDS)
_LISTS = ("video_ids", "text_video_ids", "texts")
_FACTS = ("score", "method", "data", "split")
_ALIASES = {"vid_embeds": "video_embeds", "vid_ids": "video_ids"}
_KNOWN = frozenset((*_ARRAYS, *_LISTS, *_FACTS, *_ALIASES))
_LONGEST_UNIT = 1.001  # of unit vectors, and of means of unit vectors, after rounding to 16 bits

Content = dict[str, Any]  # arrays by `_ARRAYS`, lists by `_LISTS`, strings by `_FACTS`


@dataclass(frozen=True, kw_only=True)
class StoredEmbeddings:
    """The content of a file, checked.

    Attributes:
        embedded: the texts and the videos.
        bank: training texts and videos for QB-Norm; None if the file has none.
        facts: the file's name and settings, and the method and the data if the file names them.
        has_texts: whether the captions are the file's. Otherwise they are numbers.
    """

    embedded: SplitEmbeddings
    bank: SplitEmbeddings | None
    facts: ReportFacts
    has_texts: bool


def read_embeddings(path: str | Path, *, score: str | None = None) -> StoredEmbeddings:
    """Read a file of embeddings (.npz, .safetensors, .parquet, .pkl). Nothing in it is executed.

    Args:
        score: "cosine" normalises every vector; "dot" takes the vectors as they are. By default what the file says,
            or else "cosine".

    Raises:
        UsageError: the score or the kind of file is unknown.
        DataError: the file cannot be read, or its content does not fit together.
    """
    path = expand(path)
    if score is not None and score not in SCORES:
        raise unknown_name("score", score, SCORES)
    read = _kind_of(path, _READERS)
    check_file(path, error=DataError)
    content = read(path)
    try:
        content = _named(content)
        return _checked(content, path.name, score)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def save_embeddings(
    path: str | Path,
    embedded: SplitEmbeddings,
    *,
    bank: SplitEmbeddings | None = None,
    facts: ReportFacts | None = None,
) -> None:
    """Write embeddings to a .npz, .safetensors or .parquet file, from which `read_embeddings` gives the same scores.

    Raises:
        UsageError: another kind of file, or the scores do not come from embeddings.
        VopError: the file cannot be written.
    """
    path = expand(path)
    write = _kind_of(path, _WRITERS)
    if embedded.pair_scores is not None:
        raise UsageError(f"{path}: the head scores a text and a video together, so there are no embeddings to save")
    split, facts = embedded.split, facts or ReportFacts()
    content: Content = {"text_embeds": embedded.texts.numpy(), "video_embeds": embedded.videos.numpy()}
    if bank is not None:
        content |= {"bank_text_embeds": bank.texts.numpy(), "bank_video_embeds": bank.videos.numpy()}
    content["video_ids"] = [video.id for video in split.videos]
    content["text_video_ids"] = [split.videos[target].id for target in split.targets]
    content["texts"] = list(split.captions)
    content |= {"score": "dot", "method": facts.method, "data": facts.data, "split": split.name}
    with atomic_write(path) as temporary:
        write(temporary, content)


def check_embeddings_path(path: str | Path) -> None:
    """Raise a UsageError unless `save_embeddings` can write a file of this name."""
    _kind_of(Path(path), _WRITERS)


def is_embeddings_file(path: str | Path) -> bool:
    """Return whether the suffix is that of a file of embeddings."""
    return Path(path).suffix.lower() in _READERS


def _kind_of(path: Path, known: Mapping[str, Any]) -> Callable[..., Any]:
    suffix = path.suffix.lower()
    if suffix not in known:
        raise UsageError(
            f"{path}: embeddings are stored as {', '.join(known)}, not as {suffix or 'a file without suffix'}"
        )
    found: Callable[..., Any] = known[suffix]
    return found


# -- checks


def _named(content: Content) -> Content:
    """Return the content by our names, and its facts as strings."""
    for alias, name in _ALIASES.items():
        if content.get(alias) is not None:
            if content.get(name) is not None:
                raise DataError(f"the file has both {alias} and {name}: leave one of them out")
            content[name] = content.pop(alias)
    for name in _FACTS:
        value = content.get(name)
        if isinstance(value, np.ndarray) and value.ndim == 0:
            content[name] = value = value.item()
        if value is not None and not isinstance(value, str):
            raise DataError(f"{name} is {reprlib.repr(value)}; it must be a string")
    return content


def _checked(content: Content, name: str, score: str | None) -> StoredEmbeddings:
    for needed in ("text_embeds", "video_embeds", "video_ids"):
        if content.get(needed) is None:
            raise DataError(f"{needed} is missing; the file has {', '.join(content) or 'nothing'}")
    given = content.get("score")
    if score is None and given not in (None, *SCORES):
        raise DataError(f"score is {given!r}; it must be {' or '.join(SCORES)}")
    score = score or given or SCORES[0]
    texts = _vectors("text_embeds", content["text_embeds"], score)
    videos = _vectors("video_embeds", content["video_embeds"], score)
    split = _split(content, texts, videos)
    vectors = [texts, videos]
    bank = _bank(content, score)
    if bank is not None:
        vectors += [bank.texts, bank.videos]
    widths = sorted({part.shape[1] for part in vectors})
    if len(widths) > 1:
        shapes = ", ".join(f"{key} {tuple(np.shape(content[key]))}" for key in _ARRAYS if content.get(key) is not None)
        raise DataError(f"the dimensions of texts and videos differ: {shapes}")
    facts = ReportFacts(
        method=str(content.get("method") or "embeddings"),
        data=str(content.get("data") or Path(name).stem),
        settings={"embeddings": name, "score": score, "dimension": widths[0]},
        notes=(
            "scores are cosines: every vector was normalised"
            if score == "cosine"
            else "scores are dot products of the vectors in the file",
        ),
    )
    cosines = all(float(part.norm(dim=1).max()) <= _LONGEST_UNIT for part in vectors)
    return StoredEmbeddings(
        embedded=SplitEmbeddings(split, texts, videos, cosines=cosines),
        bank=bank,
        facts=facts,
        has_texts=content.get("texts") is not None,
    )


def _vectors(name: str, values: Any, score: str) -> Tensor:
    """Check vectors (n, d), or videos' (v, f, d), and return them as (n, d), float32. Frames are pooled."""
    array = np.asarray(values)
    dimensions = (2, 3) if name == "video_embeds" else (2,)
    if array.dtype.kind not in "fiu" or array.ndim not in dimensions or 0 in array.shape:
        wanted = "(videos, d) or (videos, frames, d)" if len(dimensions) > 1 else "(texts, d)"
        raise DataError(f"{name} is {array.dtype} of shape {array.shape}; it must be numbers of shape {wanted}")
    vectors = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float64))
    wrong = ~vectors.isfinite().all(dim=-1)
    _refuse(name, wrong, "is not finite")
    lengths = vectors.norm(dim=-1)
    _refuse(name, ~lengths.isfinite(), "is too long: the sum of its squares is not finite")
    _refuse(name, lengths == 0, "is zero: it has no direction")
    if vectors.ndim == 3:
        vectors = F.normalize(vectors, dim=-1).mean(dim=1)
        _refuse(name, vectors.norm(dim=-1) < 1e-6, "has frames that cancel each other out")
    return (F.normalize(vectors, dim=-1) if score == "cosine" else vectors).float()


def _refuse(name: str, wrong: Tensor, reason: str) -> None:
    if wrong.any():
        place = ", ".join(str(int(index)) for index in wrong.nonzero()[0])
        raise DataError(f"{name}[{place}] {reason}; {int(wrong.sum())} of {wrong.numel()} are like this")


def _split(content: Content, texts: Tensor, videos: Tensor) -> Split:
    ids = _strings("video_ids", content["video_ids"], len(videos), "video_embeds")
    repeated = [key for key, times in Counter(ids).items() if times > 1]
    if repeated:
        raise DataError(f"video_ids has {repeated[0]!r} more than once: give every video one row and one id")
    place = {key: index for index, key in enumerate(ids)}
    if content.get("text_video_ids") is not None:
        of_texts = _strings("text_video_ids", content["text_video_ids"], len(texts), "text_embeds")
        unknown = [key for key in of_texts if key not in place]
        if unknown:
            raise DataError(f"text_video_ids has {unknown[0]!r}, which is not in video_ids ({count('id', len(ids))})")
        targets = [place[key] for key in of_texts]
    elif len(texts) == len(videos):
        targets = list(range(len(texts)))
    else:
        raise DataError(
            f"{count('text', len(texts))} and {count('video', len(videos))} are not pairs: "
            "add text_video_ids, the id of each text's video"
        )
    captions = [f"text {row}" for row in range(len(texts))]
    if content.get("texts") is not None:
        captions = _strings("texts", content["texts"], len(texts), "text_embeds")
    name = content.get("split")
    return Split(
        name=name if name in SPLIT_NAMES else "test",
        videos=tuple(Video(key, Path(key)) for key in ids),
        captions=tuple(captions),
        targets=tuple(targets),
    )


def _bank(content: Content, score: str) -> SplitEmbeddings | None:
    given = [name for name in _ARRAYS[2:] if content.get(name) is not None]
    if not given:
        return None
    if len(given) == 1:
        raise DataError(f"{given[0]} is alone: a bank for QB-Norm has bank_text_embeds and bank_video_embeds")
    texts, videos = (_vectors(name, content[name], score) for name in _ARRAYS[2:])
    if len(texts) != len(videos):
        raise DataError(f"a bank for QB-Norm has one text per video, not {len(texts)} and {len(videos)}")
    names = [str(row) for row in range(len(videos))]
    split = Split("train", tuple(Video(key, Path(key)) for key in names), tuple(names), tuple(range(len(names))))
    return SplitEmbeddings(split, texts, videos)


def _strings(name: str, values: Any, length: int, beside: str) -> list[str]:
    found = values.tolist() if isinstance(values, np.ndarray) else values
    if not isinstance(found, list):
        raise DataError(f"{name} is {reprlib.repr(found)}; it must be a list of strings")
    if len(found) != length:
        raise DataError(f"{name} has {len(found)} entries, {beside} has {length} rows: give one for each row")
    return [_string(name, item) for item in found]


def _string(name: str, item: Any) -> str:
    item = without_float(item)
    if isinstance(item, bool) or not isinstance(item, str | int):
        raise DataError(
            f"{name} has {reprlib.repr(item)}, a {type(item).__name__}; it must be a list of strings or whole numbers"
        )
    return str(item)


# -- .npz


def _read_npz(path: Path) -> Content:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            content = {name: arrays[name] if name in _KNOWN else None for name in arrays.files}
    except DAMAGE as error:
        raise DataError(f"{path}: not a .npz file of numbers and strings ({error})") from error
    return content


def _write_npz(path: Path, content: Content) -> None:
    with open(path, "wb") as file:
        arrays: Content = {name: np.asarray(value) for name, value in content.items()}
        np.savez(file, **arrays)


# -- .safetensors: numbers are tensors; strings stand in the metadata, lists of them as JSON


def _read_safetensors(path: Path) -> Content:
    from safetensors import SafetensorError, safe_open

    damage: tuple[type[Exception], ...] = (SafetensorError, *DAMAGE)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            content: Content = {name: file.get_tensor(name).float().numpy() for name in file.keys()}  # noqa: SIM118
        content |= {name: metadata[name] for name in _FACTS if name in metadata}
        lists = {*_LISTS, *_ALIASES}
        return content | {name: json.loads(text) for name, text in metadata.items() if name in lists}
    except damage as error:
        raise DataError(f"{path}: not a .safetensors file with lists as JSON in its metadata ({error})") from error


def _write_safetensors(path: Path, content: Content) -> None:
    from safetensors.numpy import save_file

    arrays = {name: np.ascontiguousarray(content[name]) for name in _ARRAYS if name in content}
    metadata = {name: json.dumps(content[name], ensure_ascii=False) for name in _LISTS}
    save_file(arrays, path, metadata=metadata | {name: content[name] for name in _FACTS})


# -- .parquet: a row per vector


def _read_parquet(path: Path) -> Content:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
        metadata = table.schema.metadata or {}
        content: Content = {name: metadata[name.encode()].decode() for name in _FACTS if name.encode() in metadata}
    except (pa.ArrowException, *DAMAGE) as error:
        raise DataError(f"{path}: not a Parquet file ({error})") from error
    missing = [name for name in ("kind", "video_id", "embedding") if name not in table.column_names]
    if missing:
        raise DataError(f"{path}: the column {missing[0]!r} is missing; found {', '.join(table.column_names)}")
    kinds = table["kind"].to_pylist()
    unknown = [kind for kind in kinds if not isinstance(kind, str) or kind not in KINDS]
    if unknown:
        raise DataError(f"{path}: kind is {reprlib.repr(unknown[0])}; it must be {', '.join(KINDS)}")
    for kind in KINDS:
        rows = table.filter(pa.array([one == kind for one in kinds]))
        if not len(rows):
            continue
        content[f"{kind}_embeds"] = _stacked(rows["embedding"], kind, path)
        if kind in ("text", "video"):
            content["text_video_ids" if kind == "text" else "video_ids"] = rows["video_id"].to_pylist()
        if kind == "text" and "text" in rows.column_names and rows["text"].null_count == 0:
            content["texts"] = rows["text"].to_pylist()
    return content


def _stacked(column: Any, kind: str, path: Path) -> np.ndarray[Any, Any]:
    try:
        return np.stack([np.asarray(vector, dtype=np.float32) for vector in column.to_pylist()])
    except (ValueError, TypeError) as error:
        raise DataError(f"{path}: the embeddings of kind {kind!r} must be lists of numbers of equal length") from error


def _write_parquet(path: Path, content: Content) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns: dict[str, list[Any]] = {"kind": [], "video_id": [], "text": [], "embedding": []}
    for kind in KINDS:
        vectors: Sequence[Any] = list(content.get(f"{kind}_embeds", ()))
        ids = {"text": content["text_video_ids"], "video": content["video_ids"]}.get(kind, [None] * len(vectors))
        columns["kind"] += [kind] * len(vectors)
        columns["video_id"] += ids
        columns["text"] += content["texts"] if kind == "text" else [None] * len(vectors)
        columns["embedding"] += vectors
    strings = ((name, pa.string()) for name in ("kind", "video_id", "text"))
    schema = pa.schema(
        [*strings, ("embedding", pa.list_(pa.float32()))], metadata={name: content[name] for name in _FACTS}
    )
    pq.write_table(pa.table(columns, schema=schema), path)


_READERS = {
    ".npz": _read_npz,
    ".safetensors": _read_safetensors,
    ".parquet": _read_parquet,
    ".pkl": partial(read_gallery, names=_KNOWN),
    ".pickle": partial(read_gallery, names=_KNOWN),
}
_WRITERS = {".npz": _write_npz, ".safetensors": _write_safetensors, ".parquet": _write_parquet}
