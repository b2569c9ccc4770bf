"""Methods that train like `bias`, but have accidents on a Ray cluster."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from torch import nn

from vop.methods.baselines import Bias

NODE = Path("node")  # holds the id of the node that waits to be lost


def is_on_ray() -> bool:
    ray = sys.modules.get("ray")
    return ray is not None and ray.is_initialized()


class Unlucky(Bias):
    """Calls `accident` before each use of the backbone."""

    def attach(self, clip: Any) -> None:
        super().attach(clip)
        norm = next(module for module in clip.modules() if isinstance(module, nn.LayerNorm))
        norm.register_forward_pre_hook(lambda *_: self.accident())

    def accident(self) -> None:
        raise NotImplementedError


class Lost(Unlucky):
    """Its first training waits, once it has a checkpoint, until its node is lost."""

    def accident(self) -> None:
        if is_on_ray() and not NODE.exists() and any(Path("out/runs").glob("*/training/state.safetensors")):
            import ray

            NODE.write_text(ray.get_runtime_context().get_node_id(), encoding="utf-8")
            time.sleep(200)


class Killed(Unlucky):
    """Its process is killed."""

    def accident(self) -> None:
        if is_on_ray():
            os.kill(os.getpid(), signal.SIGKILL)
