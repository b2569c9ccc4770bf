"""Where the page of `vop serve` can be opened: on this machine, on others, and by a QR code on a phone."""

from __future__ import annotations

import socket
from dataclasses import dataclass

_ELSEWHERE = ("192.0.2.1", 9)  # an address for documentation (RFC 5737), on no network


@dataclass(frozen=True)
class PageURLs:
    """The URLs of the page.

    Attributes:
        shown: for other machines, if they can reach the server.
        here: for a browser on this machine.
        for_phones: for machines on the network that may not know this machine's name; "" if they cannot reach it.
    """

    shown: str
    here: str
    for_phones: str = ""

    @classmethod
    def of(cls, host: str, port: int, *, token: str | None, root_path: str) -> PageURLs:
        """Return the URLs of a server that listens on an address.

        Args:
            token: the token to put into the URLs.
        """
        from vop.server.access import is_loopback, is_wildcard

        path = f"{root_path}/" if root_path or token else ""
        ending = f":{port}{path}" + (f"?token={token}" if token else "")
        if not is_wildcard(host):
            url = f"http://{f'[{host}]' if ':' in host else host}{ending}"
            return cls(url, url, "" if is_loopback(host) else url)
        address = network_address()
        return cls(
            f"http://{socket.gethostname()}{ending}",
            f"http://localhost{ending}",
            f"http://{address}{ending}" if address else "",
        )


def network_address() -> str:
    """Return this machine's IPv4 address on its network; "" without a network."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:  # connecting a datagram socket sends nothing
        try:
            probe.connect(_ELSEWHERE)
        except OSError:
            return ""
        address: str = probe.getsockname()[0]
    return "" if address.startswith("127.") else address


def qr_code(url: str) -> str:
    """Return a QR code of a URL, as lines of half blocks for a terminal."""
    import io

    import segno

    lines = io.StringIO()
    segno.make(url, error="l").terminal(lines, compact=True)
    return lines.getvalue().rstrip("\n")
