"""Writes open_clip_golden.json: the outputs of open_clip for reproducible random weights.

python tests/backbones/make_open_clip_golden.py, with open_clip installed. The test beside it needs the file alone.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from open_clip_models import GOLDEN, LAYERED, draw, draw_state, full_config, make_open_clip_folder


def main() -> None:
    from vop.backbones import find_backbone

    golden = {}
    for name in LAYERED:
        with TemporaryDirectory() as folder:
            path, model = make_open_clip_folder(Path(folder), full_config(name))
            sizes = find_backbone(str(path)).sizes
        shapes = {key: list(tensor.shape) for key, tensor in model.state_dict().items()}
        model.load_state_dict(draw_state(shapes))
        pixels, ids = draw(sizes)
        with torch.no_grad():
            texts, images = model.encode_text(ids), model.encode_image(pixels)
        golden[name] = {
            "sizes": asdict(sizes),
            "shapes": shapes,
            "texts": [[round(value, 7) for value in row] for row in texts.tolist()],
            "images": [[round(value, 7) for value in row] for row in images.tolist()],
        }
    GOLDEN.write_text(json.dumps(golden) + "\n")


if __name__ == "__main__":
    main()
