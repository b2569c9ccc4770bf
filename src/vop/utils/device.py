"""Choose the device and the precision of computations."""

from __future__ import annotations

import os
import platform
import subprocess
from functools import cache
from pathlib import Path

import torch

from vop.errors import UsageError, unknown_name
from vop.utils.text import count
from vop.utils.threads import usable_cores

PRECISIONS = {"bf16": torch.bfloat16, "fp32": torch.float32}
AUTO = "auto"
CPU_INFO, MEMORY_INFO = Path("/proc/cpuinfo"), Path("/proc/meminfo")  # Linux
_VARIABLE = "VOP_DEVICE"  # passes the choice to child processes

_chosen: torch.device | None = None


def use_device(name: str = AUTO) -> torch.device:
    """Choose the device that `default_device` returns, in this process and in its child processes.

    Args:
        name: "cpu", "cuda", one GPU such as "cuda:1", or "mps"; "auto" chooses the first available of CUDA, Apple's
            MPS and the CPU.

    Raises:
        UsageError: this machine does not have the device.
    """
    global _chosen
    if name == AUTO:
        _chosen = None
        os.environ.pop(_VARIABLE, None)
        return default_device()
    device = _available(name)
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
        os.environ["CUDA_VISIBLE_DEVICES"] = _gpus()[device.index]  # for child processes
    _chosen, os.environ[_VARIABLE] = device, device.type
    return device


def default_device() -> torch.device:
    """Return the chosen device, or else the first available of CUDA, Apple's MPS and the CPU.

    Raises:
        UsageError: VOP_DEVICE in the environment names a device that this machine does not have.
    """
    if _chosen is not None:
        return _chosen
    name = os.environ.get(_VARIABLE) or AUTO
    if name != AUTO:
        return _available(name)
    kinds = {torch.device(found).type for found in available_devices()}
    return torch.device(next(kind for kind in ("cuda", "mps", "cpu") if kind in kinds))


def available_devices() -> list[str]:
    """Return the names of this machine's devices that PyTorch supports."""
    names = ["cpu"]
    if torch.cuda.is_available():
        names += ["cuda", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        names.append("mps")
    return names


def gpus_to_share() -> list[str]:
    """Return the GPUs that several processes can share out, as CUDA_VISIBLE_DEVICES names them.

    The list is empty if the chosen device is a single GPU, or not a GPU of CUDA.
    """
    device = default_device()
    return _gpus() if device.type == "cuda" and device.index is None else []


@cache
def _gpus() -> list[str]:
    """Return CUDA's machine-wide name of each GPU, in the order of their numbers in this process."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",") if visible else [str(number) for number in range(torch.cuda.device_count())]


def _available(name: str) -> torch.device:
    names = available_devices()
    if name not in names:
        raise UsageError(f"device is {name!r}; available on this machine: {', '.join([AUTO, *names])}")
    return torch.device(name)


def resolve_precision(name: str, device: torch.device | str) -> torch.dtype:
    """Return the data type for "bf16", "fp32" or "auto": bf16 if the hardware supports it, else fp32.

    Raises:
        UsageError: the name is unknown, or this MPS device does not support bf16.
    """
    if name == AUTO:
        return torch.bfloat16 if has_bf16(device) else torch.float32
    if name not in PRECISIONS:
        raise unknown_name("precision", name, [AUTO, *PRECISIONS])
    if name == "bf16" and torch.device(device).type == "mps" and not has_bf16(device):
        raise UsageError("precision is 'bf16', but MPS on this machine does not support it; use 'fp32' or 'auto'")
    return PRECISIONS[name]


def has_bf16(device: torch.device | str) -> bool:
    """Return whether the hardware multiplies bf16 matrices. Emulated in software, bf16 is slower than fp32."""
    kind = torch.device(device).type
    if kind == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if kind == "mps":
        return _mps_has_bf16()
    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()  # since PyTorch 2.11
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16") or capabilities.get("bf16"))


@cache
def _mps_has_bf16() -> bool:
    """Return whether MPS supports bf16. Before macOS 14 it does not."""
    try:
        ones = torch.ones(2, 2, dtype=torch.bfloat16, device="mps")
        return bool((ones @ ones).sum().item() == 8)
    except (RuntimeError, TypeError):
        return False


def free_bytes(device: torch.device) -> int | None:
    """Return the free memory of the device; None if the system does not report it."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type != "cpu" or not MEMORY_INFO.exists():
        return None
    lines = MEMORY_INFO.read_text(encoding="utf-8").splitlines()
    found = (line.split() for line in lines if line.startswith("MemAvailable:"))
    return next((int(kilobytes) * 1024 for _, kilobytes, *_ in found), None)


def machine_name() -> str:
    """Return the name of the hardware in use: the GPU, or the processor and its number of usable cores."""
    device = default_device()
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "mps":
        return f"{_processor()}, MPS"
    return f"{_processor()}, {count('core', usable_cores())}"


def _processor() -> str:
    if CPU_INFO.exists():
        lines = CPU_INFO.read_text(encoding="utf-8").splitlines()
        named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
        found = next(named, "")
    elif platform.system() == "Darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        found = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    else:
        found = platform.processor()
    return found or platform.machine()
