"""The device is the best available one unless another is chosen."""

from __future__ import annotations

import os
import platform
import subprocess

import pytest
import torch

from vop.errors import UsageError
from vop.utils import device
from vop.utils.device import available_devices, default_device, machine_name, resolve_precision, use_device


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """Simulate a machine with these devices. The choice of a device is reset after each test."""
    monkeypatch.setattr(device, "_chosen", None)
    monkeypatch.setenv("VOP_DEVICE", "")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    caches = [device._mps_has_bf16, device._gpus]
    for cached in caches:
        cached.cache_clear()

    def make(*, gpus: int = 0, mps: bool = False) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    make()
    yield make
    for cached in caches:
        cached.cache_clear()


@pytest.mark.parametrize(
    ("gpus", "mps", "best"), [(0, False, "cpu"), (0, True, "mps"), (2, False, "cuda"), (1, True, "cuda")]
)
def test_the_best_device_is_the_default(machine, gpus, mps, best):
    machine(gpus=gpus, mps=mps)
    assert default_device() == torch.device(best)
    assert use_device("auto") == torch.device(best)


def test_a_chosen_device_becomes_the_default(machine):
    machine(gpus=2, mps=True)
    assert available_devices() == ["cpu", "cuda", "cuda:0", "cuda:1", "mps"]
    for name in ("cpu", "cuda", "cuda:0", "cuda:1", "mps"):
        assert use_device(name) == default_device() == torch.device(name)
    assert use_device() == default_device() == torch.device("cuda")


@pytest.mark.parametrize("name", ["cuda", "cuda:1", "mps", "tpu", "CPU", "cpu:0", ""])
def test_an_unavailable_device_is_refused(machine, name):
    machine()
    with pytest.raises(UsageError, match=f"{name!r}.*: auto, cpu$"):
        use_device(name)
    assert default_device() == torch.device("cpu")


def test_child_processes_inherit_the_choice(machine, monkeypatch):
    machine(gpus=1)
    use_device("cpu")
    monkeypatch.setattr(device, "_chosen", None)  # a child process has only the environment
    assert default_device() == torch.device("cpu")


@pytest.mark.parametrize(("visible", "left"), [("", "1"), ("4,7", "7")])
def test_child_processes_see_only_the_chosen_gpu(machine, monkeypatch, visible, left):
    machine(gpus=2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    use_device("cuda:1")
    assert default_device() == torch.device("cuda:1")
    assert os.environ["CUDA_VISIBLE_DEVICES"] == left
    assert os.environ["VOP_DEVICE"] == "cuda"


def test_the_environment_chooses_the_device(machine, monkeypatch):
    machine(gpus=1)
    monkeypatch.setenv("VOP_DEVICE", "cpu")
    assert default_device() == torch.device("cpu")
    monkeypatch.setenv("VOP_DEVICE", "mps")
    with pytest.raises(UsageError, match="'mps'"):
        default_device()


@pytest.mark.parametrize(("supported", "resolved"), [(True, torch.bfloat16), (False, torch.float32)])
def test_precision_on_mps(machine, monkeypatch, supported, resolved):
    machine(mps=True)
    ones = torch.ones

    def on_mps(*shape, dtype, device):
        if not supported:
            raise TypeError("BFloat16 is not supported on MPS")
        return ones(*shape, dtype=dtype)

    monkeypatch.setattr(torch, "ones", on_mps)
    assert resolve_precision("auto", "mps") == resolved
    assert resolve_precision("fp32", "mps") == torch.float32
    if supported:
        assert resolve_precision("bf16", "mps") == torch.bfloat16
    else:
        with pytest.raises(UsageError, match="'bf16'.*'fp32'"):
            resolve_precision("bf16", "mps")


def test_precision_on_cpu():
    assert resolve_precision("bf16", "cpu") == torch.bfloat16
    assert resolve_precision("fp32", "cpu") == torch.float32
    with pytest.raises(UsageError, match="unknown precision 'fp23'.*fp32"):
        resolve_precision("fp23", "cpu")


@pytest.mark.parametrize(("system", "name"), [("Darwin", "Apple M9"), ("Other", "risc")])
def test_machine_name_without_proc(machine, monkeypatch, tmp_path, system, name):
    monkeypatch.setattr(device, "CPU_INFO", tmp_path / "none")
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(platform, "processor", lambda: "risc")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 0, stdout="Apple M9\n"))
    assert machine_name().startswith(f"{name}, ")
    machine(mps=True)
    assert machine_name() == f"{name}, MPS"
