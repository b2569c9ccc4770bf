"""`vop serve`: the search page and its API."""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from vop.cli.common import add_threads_option, say, warn
from vop.errors import UsageError
from vop.utils.text import count
from vop.utils.threads import use_threads

if TYPE_CHECKING:
    from vop.server.views import Views

_TRIED = 100  # ports above one that is taken


def add_parser(subparsers) -> None:
    parser = subparsers.add_parser("serve", help="a page to search libraries, and its JSON API, on 127.0.0.1")
    parser.add_argument("libraries", metavar="LIBRARY", nargs="+", type=Path, help="folders that `vop index` has made")
    parser.add_argument(
        "--host", metavar="ADDRESS", default="127.0.0.1", help="address to listen on (default 127.0.0.1)"
    )
    parser.add_argument("--port", type=int, default=8000, help="0 for any that is free (default 8000)")
    access = parser.add_mutually_exclusive_group()
    access.add_argument("--token", help="access token that clients must send; auto makes one up")
    access.add_argument(
        "--token-file", metavar="FILE", type=Path, help="read the token from a file; by default from VOP_TOKEN, if set"
    )
    access.add_argument("--no-token", action="store_true", help="let whoever reaches the address search and watch")
    parser.add_argument(
        "--max-upload-mb", metavar="MB", type=int, default=512, help="of a file to search by (default 512)"
    )
    parser.add_argument(
        "--queue", metavar="N", type=int, help="requests in work before others are told to wait (default 256)"
    )
    parser.add_argument(
        "--root-path", metavar="PATH", default="", help="path below which a proxy serves the page, such as /videos"
    )
    parser.add_argument("--precision", default="auto", help="auto, bf16 or fp32")
    add_threads_option(parser)
    parser.add_argument("--open", action="store_true", help="open the page in a browser")
    parser.set_defaults(run=run, own_signals=True, uses_database=True)


def run(arguments: argparse.Namespace) -> None:
    from vop.server.security import check_root_path, choose_token

    _check(arguments)
    arguments.root_path = check_root_path(arguments.root_path)
    given = {"token": arguments.token, "token_file": arguments.token_file, "no_token": arguments.no_token}
    token = choose_token(arguments.host, **given)
    with _listen(arguments.host, arguments.port) as listener:
        _serve(arguments, listener, token)
    sys.stdout.flush()
    # Nobody waits any more for what a thread still computes, but Python would, before it ends.
    os._exit(0)


def _check(arguments: argparse.Namespace) -> None:
    if not 0 <= arguments.port < 2**16:
        raise UsageError(f"--port {arguments.port}: a port is a number from 0 to {2**16 - 1}")
    if not arguments.host:
        raise UsageError("--host '': say an address; 127.0.0.1 is this machine alone, 0.0.0.0 all of its addresses")
    if arguments.max_upload_mb < 1:
        raise UsageError(f"--max-upload-mb {arguments.max_upload_mb}: 1 or more")
    if arguments.queue is not None and arguments.queue < 1:
        raise UsageError(f"--queue {arguments.queue}: 1 or more")


def _serve(arguments: argparse.Namespace, listener: socket.socket, token: str | None) -> None:
    use_threads(arguments.threads)
    from vop.server.app import create_app
    from vop.server.connections import Server, connections_that_fit
    from vop.server.desk import QUEUE, UPLOADS
    from vop.server.security import Hosts

    most = connections_that_fit()
    app = create_app(
        arguments.libraries,
        token=token,
        hosts=Hosts(arguments.host),
        max_upload_bytes=arguments.max_upload_mb * 2**20,
        queue=arguments.queue or QUEUE,
        uploads=min(UPLOADS, most // 2),
        root_path=arguments.root_path,
        precision=arguments.precision,
    )
    shown = token if arguments.token == "auto" else None
    addresses = _addresses(arguments.host, listener.getsockname()[1], shown, root_path=arguments.root_path)

    class AnnouncedServer(Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:  # nohup has it ignored
                signal.signal(signal.SIGHUP, self.handle_exit)
            _announce(app.state.desk.views, addresses, in_browser=arguments.open)

    try:
        AnnouncedServer(app, listener, most=most).run()
    except KeyboardInterrupt:  # raised again once all is closed
        warn("stopped")


def _listen(host: str, port: int) -> socket.socket:
    """A socket bound to the address, so that nobody else takes it while the models are opened.

    Raises:
        UsageError: it cannot be had.
    """
    try:
        return _bound(host, port)
    except socket.gaierror as error:
        raise UsageError(f"--host {host}: not an address of this machine ({error.strerror})") from None
    except PermissionError:
        raise UsageError(f"--port {port}: ports below 1024 are the system's; take a higher one") from None
    except OSError as error:
        free = _free_after(host, port)
        if free is None:
            raise UsageError(f"--host {host} --port {port}: cannot be listened on ({error.strerror})") from None
        raise UsageError(f"--port {port} is taken by another program; --port {free} is free") from None


def _bound(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port of a server that has just ended is free
        bound.bind(address)
        bound.listen()  # two may be bound to one port as long as neither listens
    except OSError:
        bound.close()
        raise
    return bound


def _free_after(host: str, port: int) -> int | None:
    for other in range(port + 1, min(port + 1 + _TRIED, 2**16)):
        try:
            _bound(host, other).close()
        except OSError:
            continue
        return other
    return None


def _addresses(host: str, port: int, token: str | None, *, root_path: str) -> tuple[str, str]:
    """Where the page is, for others and for a browser on this machine."""
    from vop.server.security import is_every_address

    named = f"[{host}]" if ":" in host else host
    path = f"{root_path}/" if root_path or token else ""
    ending = f":{port}{path}?token={token}" if token else f":{port}{path}"
    if is_every_address(host):
        return f"http://{socket.gethostname()}{ending}", f"http://localhost{ending}"
    return f"http://{named}{ending}", f"http://{named}{ending}"


def _announce(views: Views, addresses: tuple[str, str], *, in_browser: bool) -> None:
    shown, here = addresses
    say(shown)
    for view in views.all():
        status = view.served.status()
        counted = f"{count('segment', status['segments'])} of {count('video', status['videos'])}"
        what = counted if status["segments"] else "empty so far"
        say(f"  {view.id}: {what}, {view.model.method} ({view.model.name}), in {view.library.path}")
    say("Ctrl-C ends it")
    if in_browser:
        import threading
        import webbrowser

        threading.Thread(target=webbrowser.open, args=[here], daemon=True).start()  # some browsers keep the caller
