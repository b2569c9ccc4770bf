"""Settings of the server's access: the token, the allowed host names and the root path."""

from __future__ import annotations

import ipaddress
import os
import re
import secrets
import socket
from collections.abc import Mapping
from pathlib import Path

from vop.errors import UsageError

AUTO, VARIABLE = "auto", "VOP_TOKEN"
MAX_TOKEN_BYTES = 4096  # read from a file or a form with a token
RESERVED_PATHS = ("api", "page", "healthz", "metrics")
_TOKEN = re.compile(r"[A-Za-z0-9._~-]{16,}")
_HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[^\s\[\]:/?#@]+)(:\d{1,5})?")
_LOCAL = frozenset({"localhost", "127.0.0.1", "[::1]"})
_ROOT_PATH = re.compile(r"(/(?!\.{1,2}(/|$))[A-Za-z0-9._~-]+)+")


def choose_token(
    host: str,
    *,
    token: str | None = None,
    token_file: Path | None = None,
    no_token: bool = False,
    environment: Mapping[str, str] = os.environ,
) -> str | None:
    """Return the access token that clients must send, or None if they need none.

    Args:
        host: the address to listen on. If other machines can reach it, a token or `no_token` is required.
        token: the token itself, or "auto" for a new one.
        token_file: a file with the token on one line. If neither is given, `VOP_TOKEN` in the environment is read.
        no_token: whether other machines need no token.

    Raises:
        UsageError: other machines could reach the server without a token, or the token is too short.
    """
    if no_token:
        return None
    if token == AUTO:
        return secrets.token_hex(32)  # hexadecimal digits, so that it never looks like an option
    if token is not None:
        return _checked(token, f"--token {token!r}")
    if token_file is not None:
        return _checked(_read_token(token_file), f"--token-file {token_file}")
    if VARIABLE in environment:
        return _checked(environment[VARIABLE].strip(), VARIABLE)
    if is_loopback(host):
        return None
    raise UsageError(
        f"other machines can reach --host {host}: give --token auto (or your own token, in --token-file FILE or "
        f"{VARIABLE}), so that only people who have the token can search and watch the videos, or --no-token to let "
        "everyone in"
    )


def _read_token(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            return opened.read(MAX_TOKEN_BYTES).decode(errors="replace").strip()
    except OSError as error:
        raise UsageError(f"--token-file {file}: cannot be read ({error.strerror}); name a file with a token") from None


def _checked(token: str, source: str) -> str:
    if not token:
        raise UsageError(f"{source}: the token is empty; use 16 or more characters, or --token auto for a new one")
    if not _TOKEN.fullmatch(token):
        raise UsageError(
            f"{source}: a token has 16 or more characters: letters, digits and - . _ ~; --token auto makes a new one"
        )
    return token


def may_index(host: str, *, token: str | None, chosen: bool | None = None) -> bool:
    """Return whether clients may start and stop indexings: as chosen, or else unless strangers could."""
    return chosen if chosen is not None else token is not None or is_loopback(host)


def check_root_path(path: str) -> str:
    """Return the path at which a proxy serves the page, without a slash at its end; "" for none.

    Raises:
        UsageError: it is not a path, or the server uses it itself.
    """
    path = path.rstrip("/")
    if path and not _ROOT_PATH.fullmatch(path):
        raise UsageError(f"--root-path {path!r}: write a path as in a URL, such as /videos or /tools/videos")
    if path.split("/")[1:2] in [[name] for name in RESERVED_PATHS]:
        raise UsageError(f"--root-path {path}: the server uses this path itself; choose another one, such as /videos")
    return path


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach an address."""
    return host == "localhost" or (is_ip_address(host) and ipaddress.ip_address(host).is_loopback)


def is_wildcard(host: str) -> bool:
    """Return whether an address stands for all addresses of the machine."""
    return is_ip_address(host) and ipaddress.ip_address(host).is_unspecified


def is_ip_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class AllowedHosts:
    """The host names that a server without a token answers to.

    The owner of another site can point its name to this machine (DNS rebinding), so that browsers treat the server as
    a part of that site. Only the `Host` header of the request shows the difference.

    Args:
        host: the address that the server listens on. If it stands for all addresses of the machine, any IP address is
            allowed, and so is the machine's own name; an attacker controls neither.
    """

    def __init__(self, host: str = "127.0.0.1") -> None:
        name = f"[{host}]" if ":" in host else host
        self._names = _LOCAL | {name.lower()}
        self._any_address = is_wildcard(host)
        if self._any_address:
            self._names |= {socket.gethostname().lower(), socket.getfqdn().lower()}

    def __contains__(self, header: str) -> bool:
        found = _HOST.fullmatch(header.lower())
        if found is None:
            return False
        return found["name"] in self._names or (self._any_address and is_ip_address(found["name"].strip("[]")))
