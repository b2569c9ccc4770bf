"""Export a finished pre-training run as a `transformers` CLIP folder with a record of its checks.

python -m tools.mini.export RUN --out DIR
"""

from __future__ import annotations

import argparse
import json
import platform
from datetime import UTC, datetime
from pathlib import Path

import torch

from tools.mini import acceptance
from tools.mini.pretrain import build_model, build_tokenizer
from tools.mini.settings import WORLDS, Settings
from tools.mini.tokenizer import save_tokenizer
from vop.backbones.preprocessing import FILE, preprocessor_config
from vop.benchmarks.artwork import CONCEPTS
from vop.utils.files import atomic_write
from vop.utils.threads import usable_cores

RECORD = "record.json"
_TEXT = """\
# {name}

A small CLIP for the built-in world of stickers, an ordinary `transformers` CLIP folder. It was trained {start}
on pictures drawn by `vop.benchmarks`; it knows nothing else.

Pre-trained by `{command}`
on {finished}, in {minutes} minutes on {machine}: {images:,} pictures, {speed} a second.
{parameters:,} parameters, fp16; pictures of {side} x {side} pixels; {concepts} things.

| check ({count} held-out pictures or pairs each) | result | required |
| --- | --- | --- |
{rows}

Swaps are forced choices between two pictures (or captions) that differ in one respect; chance is 50 %. The numbers are
in `{record}` as well, with every setting. `python -m tools.mini.acceptance DIR --version {version}` repeats them.

The drawings are OpenMoji's (openmoji.org), CC BY-SA 4.0.
"""


def export(run: Path, folder: Path) -> dict:
    """Write the weights of `run`'s checkpoint to `folder` in fp16, check them, and return the record."""
    state = torch.load(run / "checkpoint.pt", map_location="cpu", weights_only=True)
    settings = Settings(**state["settings"])
    tokenizer = build_tokenizer(settings)
    model = build_model(settings, tokenizer)
    model.load_state_dict(state["model"])
    folder.mkdir(parents=True, exist_ok=True)
    model.half().save_pretrained(folder)
    save_tokenizer(tokenizer, folder)
    _write_json(folder / FILE, preprocessor_config(settings.image_size))
    record = _training_record(run, state, model)
    record["acceptance"] = acceptance.check_folder(folder, settings.version)
    record["acceptance_small"] = acceptance.check_folder(folder, settings.version, count=60)  # fast enough for a test
    _write_json(folder / RECORD, record)
    with atomic_write(folder / "README.md") as temporary:
        temporary.write_text(_readme(record), encoding="utf-8")
    return record


def _training_record(run: Path, state: dict, model) -> dict:
    settings, finished = state["settings"], (run / "checkpoint.pt").stat().st_mtime
    usual = vars(WORLDS[settings["version"]].settings)
    changed = {k: v for k, v in settings.items() if k == "version" or v != usual[k]}
    options = "".join(f" --{k.replace('_', '-')} {v}" for k, v in changed.items())
    images = state["step"] * settings["batch"]
    return {
        "command": f"python -m tools.mini.pretrain{options} --out DIR",
        "finished": datetime.fromtimestamp(finished, UTC).date().isoformat(),
        "machine": machine(),
        "seconds": round(state["seconds"]),
        "images": images,
        "images_per_second": round(images / state["seconds"]),
        "parameters": sum(p.numel() for p in model.parameters()),
        "concepts": len(CONCEPTS),
        "settings": settings,
    }


def machine() -> str:
    """Describe the machine: the model of its GPU, or of its CPU with the number of cores."""
    if torch.cuda.is_available():
        return f"one {torch.cuda.get_device_name()}"
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        models = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        name = models[0] if models else name
    return f"{usable_cores()} cores of {name}"


def _readme(record: dict) -> str:
    results, settings = record["acceptance"], record["settings"]
    rows = []
    for name, value in results.items():
        if name == "count":
            continue
        limit = WORLDS[settings["version"]].required.get(name)
        unit = "" if "cosine" in name else " points" if "lost" in name else " %"
        rows.append(f"| {name.replace('_', ' ')} | {value}{unit} | {f'{limit:.0f}{unit}' if limit else ''} |")
    return _TEXT.format(
        version=settings["version"],
        name="mini" if settings["version"] == 1 else f"mini-{settings['version']}",
        start=f"from the weights of `{settings['start']}`" if settings["start"] else "from scratch",
        **{k: v for k, v in record.items() if not isinstance(v, dict)},
        minutes=round(record["seconds"] / 60),
        speed=record["images_per_second"],
        side=settings["image_size"],
        count=results["count"],
        rows="\n".join(rows),
        record=RECORD,
    )


def _write_json(path: Path, value: dict) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    export(options.run, options.out)


if __name__ == "__main__":
    main()
