"""Which device and precision to compute with."""

from __future__ import annotations

import platform
from pathlib import Path

import torch

from vop.errors import unknown_name
from vop.utils.text import count
from vop.utils.threads import usable_cores

PRECISIONS = {"bf16": torch.bfloat16, "fp32": torch.float32}


def default_device() -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("cpu")


def resolve_precision(name: str, device: torch.device | str) -> torch.dtype:
    """ "bf16", "fp32", or "auto": bf16 where the hardware computes in it, else fp32."""
    if name == "auto":
        return torch.bfloat16 if has_bf16(device) else torch.float32
    if name not in PRECISIONS:
        raise unknown_name("precision", name, ["auto", *PRECISIONS])
    return PRECISIONS[name]


def has_bf16(device: torch.device | str) -> bool:
    """Whether the hardware multiplies bf16 matrices (in software it is slower than fp32)."""
    if torch.device(device).type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()  # since PyTorch 2.11
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16") or capabilities.get("bf16"))


def machine_name() -> str:
    """What a result was computed on: the GPU, or the processor and how many of its cores may be used."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    cpus = Path("/proc/cpuinfo")
    lines = cpus.read_text(encoding="utf-8").splitlines() if cpus.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return f"{next(named, platform.processor() or platform.machine())}, {count('core', usable_cores())}"
