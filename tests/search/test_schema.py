"""Ids of segments."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vop.search.schema import clip_of, segment_id, video_of
from vop.search.segmentation import in_milliseconds

VIDEO = "0123456789abcdef" * 2
SECONDS = st.floats(0, 1e6)


@given(start=SECONDS, length=st.floats(1e-9, 1e5))
def test_an_id_holds_its_video_and_clip(start, length):
    clip = in_milliseconds((start, start + length))
    segment = segment_id(VIDEO, clip)
    assert (video_of(segment), clip_of(segment)) == (VIDEO, clip)
    assert clip[0] < clip[1]
    assert clip == pytest.approx((start, start + length), abs=0.0016)


def test_clips_are_rounded_to_milliseconds():
    assert in_milliseconds((8.33333, 18.3333333)) == (8.333, 18.333)
    assert in_milliseconds((0.0, 0.0001)) == (0.0, 0.001)
    assert segment_id(VIDEO, (8.333, 18.333)) == f"{VIDEO}-8333-18333"
