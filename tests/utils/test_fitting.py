"""Batches are halved until they fit into the device's memory."""

from __future__ import annotations

import logging

import pytest
import torch

from vop.models.pretrained import create
from vop.utils.fitting import FittingBatches

ROWS = torch.arange(22.0).view(11, 2)


class Device:
    """Doubles rows; its memory holds at most `most` of them."""

    def __init__(self, most: int, error: type[Exception] = torch.OutOfMemoryError, message: str = "CUDA out of memory"):
        self.most, self.error, self.message = most, error, message
        self.sizes: list[int] = []

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        self.sizes.append(len(rows))
        if len(rows) > self.most:
            raise self.error(self.message)
        return 2 * rows


def test_a_batch_that_fits_stays_whole(caplog):
    device = Device(11)
    assert torch.equal(FittingBatches("video")(device, ROWS), 2 * ROWS)
    assert device.sizes == [11]
    assert not caplog.records


@pytest.mark.parametrize("most", range(1, 11))
def test_a_batch_is_halved_until_it_fits(most):
    assert torch.equal(FittingBatches("video")(Device(most), ROWS), 2 * ROWS)


def test_the_fitting_size_is_kept_and_logged_once(caplog):
    device, fitting = Device(3), FittingBatches("video")
    with caplog.at_level(logging.WARNING, logger="vop"):
        fitting(device, ROWS)
        assert device.sizes == [11, 5, 2, 2, 2, 2, 2, 1]
        fitting(device, ROWS)
    assert device.sizes[8:] == [2, 2, 2, 2, 2, 1]
    (record,) = caplog.records
    assert "2 videos" in record.getMessage()


def test_out_of_memory_on_mps_is_recognised():
    device = Device(4, RuntimeError, "MPS backend out of memory (MPS allocated: 9.05 GB)")
    assert torch.equal(FittingBatches("video")(device, ROWS), 2 * ROWS)


def test_a_single_row_that_does_not_fit_is_an_error():
    device = Device(0)
    with pytest.raises(torch.OutOfMemoryError):
        FittingBatches("video")(device, ROWS)
    assert device.sizes == [11, 5, 2, 1]


def test_other_errors_are_raised_at_once():
    device = Device(0, RuntimeError, "mat1 and mat2 shapes cannot be multiplied")
    with pytest.raises(RuntimeError, match="mat1"):
        FittingBatches("video")(device, ROWS)
    assert device.sizes == [11]


def test_an_empty_batch_gives_no_rows():
    assert FittingBatches("video")(Device(3), ROWS[:0]).shape == (0, 2)


class TestModels:
    @pytest.fixture
    def model(self, tiny_folder):
        return create("zero-shot", str(tiny_folder), num_frames=2)

    @staticmethod
    def limit(model, monkeypatch, name: str, most: int) -> list[int]:
        embed, sizes = getattr(model, name), []

        def limited(rows):
            sizes.append(len(rows))
            if len(rows) > most:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return embed(rows)

        monkeypatch.setattr(model, name, limited)
        return sizes

    def test_batches_of_frames_are_halved(self, model, monkeypatch):
        frames = torch.randint(256, (5, 2, 3, model.image_size, model.image_size), dtype=torch.uint8)
        whole = model.encode_frames(frames)
        sizes = self.limit(model, monkeypatch, "embed_frames", 2)
        torch.testing.assert_close(model.encode_frames(frames), whole)
        assert sizes == [5, 2, 2, 1]

    def test_batches_of_texts_are_halved(self, model, monkeypatch):
        from vop.evaluation.embedding import embed_texts

        texts = [f"a dog runs {number} times" for number in range(6)]
        whole = embed_texts(model, texts)
        sizes = self.limit(model, monkeypatch, "embed_tokens", 3)
        torch.testing.assert_close(embed_texts(model, texts), whole)
        assert sizes == [6, 3, 3]
