"""Reader for `sidecar:DIR`: folders `train`, `val` and `test` with videos and a caption file beside each."""

from pathlib import Path

from vop.datasets import Dataset, Split, Video
from vop.errors import DataError


def read(name: str, root: Path | None, *, videos: Path | None = None) -> Dataset:
    """Read the splits whose folders exist. `root` is the DIR of the SPEC, `videos` the value of `--videos`."""
    if root is None or not root.is_dir():
        raise DataError(f"{name}: give the folder of the captions, {name}:DIR")
    splits = {}
    for folder in (root / split for split in ("train", "val", "test") if (root / split).is_dir()):
        texts = sorted(folder.glob("*.txt"))
        place = (videos / folder.name) if videos else folder
        splits[folder.name] = Split(
            name=folder.name,
            videos=tuple(Video(text.stem, place / f"{text.stem}.mp4") for text in texts),
            captions=tuple(text.read_text(encoding="utf-8").strip() for text in texts),
            targets=tuple(range(len(texts))),
        )
    return Dataset(name, splits)
