"""`vop data check` and `vop data cache`."""

from __future__ import annotations

import argparse
from pathlib import Path

from vop.cli.common import add_table_options, load_data, print_json, say, warn_skipped
from vop.datasets.augmentation import AUGMENTATIONS, NONE
from vop.utils import progress
from vop.utils.checks import check_choice
from vop.utils.text import count
from vop.video.clip import DISPLAY, check_aspect
from vop.video.resizing import Resizing


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    data = subparsers.add_parser(
        "data",
        help="Check a data set, or decode its videos into a cache.",
        description="Checks a data set before training, or decodes its videos into a cache that trainings share.",
    )
    group = data.add_subparsers(metavar="COMMAND", required=True)
    check = group.add_parser(
        "check",
        help="Count videos, captions, missing and unreadable files.",
        description="Counts the videos and captions of each split, and lists missing and unreadable files. The exit "
        "status is 1 if there are any.",
    )
    check.add_argument("spec", metavar="SPEC", help="Data set, as for `vop train --data`.")
    check.add_argument("--decode", action="store_true", help="Decode every file as in training. This is slower.")
    check.add_argument("--json", action="store_true", help="Print one JSON document.")
    add_table_options(check)
    check.set_defaults(run=run_check)
    cache = group.add_parser(
        "cache",
        help="Decode every video once into a frame cache.",
        description="Decodes every video once into a folder of frames, which `vop train` and `vop evaluate` read with "
        "--cache. Skips videos that the cache already contains.",
    )
    cache.add_argument("spec", metavar="SPEC", help="Data set, as for `vop train --data`.")
    cache.add_argument(
        "--out", type=Path, required=True, help="Folder of the cache. Pass it to other commands as --cache."
    )
    cache.add_argument("--num-frames", type=int, default=12, help="Number of frames per video (default: 12).")
    cache.add_argument(
        "--backbone",
        help="The backbone that the frames are for; it decides how they are resized (default: OpenAI's CLIP).",
    )
    cache.add_argument(
        "--size",
        type=int,
        help="Height and width of frames in pixels (default: the backbone's, or 224, as for OpenAI's CLIP).",
    )
    cache.add_argument(
        "--aspect", default=DISPLAY, help="Shape of frames: display (default) or stored. Use the same in training."
    )
    cache.add_argument(
        "--augment",
        default=NONE,
        help="Also cache the frames from which a training with these random views chooses: none (default) or release.",
    )
    cache.add_argument("--json", action="store_true", help="Print one JSON document.")
    add_table_options(cache)
    cache.set_defaults(run=run_cache, resumes=True)


def run_check(arguments: argparse.Namespace) -> int:
    from vop.datasets.validation import check_dataset

    dataset = load_data(arguments.spec, arguments)
    with progress.show() as show:
        report = check_dataset(dataset, decode=arguments.decode, progress=progress.stage(show, "reading"))
    if arguments.json:
        print_json(report.to_dict())
    else:
        for name, counts in report.splits.items():
            say(f"{name}: {count('video', counts['videos'])}, {count('caption', counts['captions'])}")
        files = count("file", report.videos)
        say(f"{len(report.missing):,} missing and {len(report.unreadable):,} unreadable of {files}")
        for note in report.notes:
            say(f"note: {note}")
    warn_skipped([*report.missing, *report.unreadable])
    return 1 if report.missing or report.unreadable else 0


def run_cache(arguments: argparse.Namespace) -> int:
    from vop.datasets.frames import FrameStore

    check_aspect(arguments.aspect)
    check_choice("--augment", arguments.augment, AUGMENTATIONS)
    from vop.datasets.validation import cache_dataset

    dataset = load_data(arguments.spec, arguments)
    resizing = _resizing(arguments.backbone, arguments.size)
    store = FrameStore(arguments.num_frames, resizing, cache=arguments.out, aspect=arguments.aspect)
    with progress.show() as show:
        report = cache_dataset(
            dataset, store, augmentation=AUGMENTATIONS[arguments.augment], progress=progress.stage(show, "decoding")
        )
    if arguments.json:
        print_json(report.to_dict())
    else:
        say(f"{report.decoded:,} decoded, {report.reused:,} already in the cache, {len(report.failed):,} failed")
    warn_skipped(report.failed)
    return 1 if report.failed else 0


def _resizing(backbone: str | None, size: int | None) -> Resizing:
    """How a frame becomes a square for a backbone, by default as for OpenAI's CLIP."""
    if backbone is None:
        return Resizing() if size is None else Resizing(size)
    from vop.backbones import find_backbone

    found = find_backbone(backbone)
    return found.resizing if size is None else found.with_image_size(size).resizing
