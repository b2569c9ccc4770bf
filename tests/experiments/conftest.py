from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _quick(decode_in_this_process):
    """Jobs of most tests decode in this process; those in processes of their own start decoding processes, too."""
