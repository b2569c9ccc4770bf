"""The work of a forward pass, which determines the number of threads."""

from __future__ import annotations

from dataclasses import replace

from vop.backbones import find_sizes
from vop.backbones.sizes import VIT_B_32
from vop.backbones.work import forward_work
from vop.utils.threads import WORK_PER_THREAD


def test_a_sentence_needs_one_thread_and_a_video_needs_all():
    assert forward_work(find_sizes("mini"), tokens=20) < 2 * WORK_PER_THREAD
    assert forward_work(VIT_B_32, tokens=20) < 2 * WORK_PER_THREAD
    assert forward_work(VIT_B_32, frames=12) > 8 * WORK_PER_THREAD


def test_work_counts_multiply_adds_with_the_weights():
    tower = 12 * (4 * 768**2 + 2 * 768 * 3072)
    assert forward_work(VIT_B_32, frames=2) == 2 * 50 * tower
    assert forward_work(VIT_B_32, frames=2, tokens=7) == 2 * 50 * tower + 7 * 12 * (4 * 512**2 + 2 * 512 * 2048)


def test_inaccessible_layers_count_as_a_base_model():
    hidden = replace(VIT_B_32, text=replace(VIT_B_32.text, layers=0))
    assert forward_work(hidden, tokens=5) == forward_work(VIT_B_32, tokens=5) > 0
