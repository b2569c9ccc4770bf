"""Table 1 of the paper, to the last parameter."""

from __future__ import annotations

import pytest
import torch

from vop.backbone.clip import Clip
from vop.backbone.config import VIT_B_32
from vop.methods.params import count_parameters, paper_size

TABLE_1 = {  # method: the paper's count, its percentage
    "zero-shot": (0, 0.0),
    "vop": (122_880, 0.103),
    "vop-p": (528_384, 0.441),
    "vop-c": (14_257_152, 11.898),
    "vop-f": (122_880, 0.103),
    "vop-f+p": (393_216, 0.328),
    "vop-f+c": (14_269_440, 11.908),
}


@pytest.fixture(scope="module")
def counts():
    return count_parameters(VIT_B_32)


@pytest.mark.parametrize("method", TABLE_1)
def test_counts_of_the_paper(counts, method):
    assert (counts[method].paper_count, counts[method].paper_percent) == TABLE_1[method]


@pytest.mark.parametrize("method", TABLE_1)
def test_true_counts_add_the_frame_embedding(counts, method):
    extra = 9_216 if "-f" in method else 0
    assert counts[method].true_count == TABLE_1[method][0] + extra


def test_whole_backbone():
    with torch.device("meta"):
        clip = Clip(VIT_B_32)
    assert paper_size(clip) == 119_826_432
