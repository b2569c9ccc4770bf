"""Links to single videos that work without the token, for a limited time: for players, which cannot sign in."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Callable, Mapping

LINK_SECONDS = 12 * 3600  # a player asks again for every jump, also after a long pause
EXPIRES, SIGNATURE = "expires", "signature"
_PURPOSE = b"vop: links to videos"  # so that no other use of the token as a key gives the same signatures


class SignedLinks:
    """Signs paths of the server and recognizes them. Links end with the token: another token makes other signatures.

    Args:
        now: returns the time in seconds since 1970.
    """

    def __init__(self, token: str, *, now: Callable[[], float] = time.time) -> None:
        self._key = hmac.digest(token.encode(), _PURPOSE, "sha256")
        self._now = now

    def query(self, path: str) -> dict[str, str]:
        """Return the parameters that open a path for `LINK_SECONDS`."""
        expires = str(int(self._now()) + LINK_SECONDS)
        return {EXPIRES: expires, SIGNATURE: self._signature(path, expires)}

    def is_right(self, path: str, query: Mapping[str, str]) -> bool:
        """Return whether the parameters open the path now."""
        expires, given = query.get(EXPIRES, ""), query.get(SIGNATURE, "")
        if not hmac.compare_digest(given.encode(), self._signature(path, expires).encode()):
            return False
        return self._now() < int(expires)  # it was signed, so it is a number

    def _signature(self, path: str, expires: str) -> str:
        return hmac.new(self._key, f"{expires}\n{path}".encode(), hashlib.sha256).hexdigest()
