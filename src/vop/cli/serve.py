"""`vop serve`: serves the search page and its API."""

from __future__ import annotations

import argparse
import logging
import math
import os
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vop.cli.common import add_device_options, place, say, use_device_options, warn
from vop.cli.page_urls import PageURLs, qr_code
from vop.errors import UsageError
from vop.utils.text import count, visible

if TYPE_CHECKING:
    from vop.server.libraries import Libraries

_PORTS_TRIED = 100  # after a port that is in use
_LOG_LEVELS = ("debug", "info", "warning", "error", "critical")


def add_parser(subparsers: argparse._SubParsersAction[Any]) -> None:
    parser = subparsers.add_parser(
        "serve",
        help="Serve a page to search libraries, and its JSON API.",
        description="Serves a page that searches one or more libraries and plays the moments found, and its JSON API. "
        "Only this machine can reach it, unless you give --host and a token.",
    )
    parser.add_argument(
        "libraries",
        metavar="LIBRARY",
        nargs="+",
        type=place,
        help="Libraries that `vop index` made: folders, or addresses such as s3://bucket/library, which are read "
        "through a cache on the disk (VOP_CACHE names its folder, VOP_CACHE_SIZE its size; default 2GB, 0 for none).",
    )
    _add_access(parser.add_argument_group("access"))
    _add_limits(parser.add_argument_group("limits"))
    _add_logging(parser.add_argument_group("logging"))
    group = parser.add_argument_group("models")
    group.add_argument("--precision", default="auto", help="Precision of the models: auto (default), bf16 or fp32.")
    add_device_options(group)
    parser.add_argument("--open", action="store_true", help="Open the page in a browser.")
    parser.set_defaults(run=run, own_signals=True, uses_database=True)


def _add_access(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--host", metavar="ADDRESS", default="127.0.0.1", help="Address to listen on (default 127.0.0.1)."
    )
    group.add_argument("--port", type=int, default=8000, help="Port to listen on (default 8000). 0 chooses a free one.")
    token = group.add_mutually_exclusive_group()
    token.add_argument("--token", help="Access token that clients must send. auto makes a new one.")
    token.add_argument(
        "--token-file",
        metavar="FILE",
        type=Path,
        help="File with the access token (default: the environment variable VOP_TOKEN, if it is set).",
    )
    token.add_argument(
        "--no-token",
        action="store_true",
        help="Let everyone who can reach the address search and watch the videos.",
    )
    group.add_argument(
        "--root-path", metavar="PATH", default="", help="Path at which a proxy serves the page, such as /videos."
    )
    group.add_argument(
        "--read-only", action="store_true", help="Refuse to change tags and favourites from the page and the API."
    )
    group.add_argument(
        "--indexing",
        action=argparse.BooleanOptionalAction,
        help="Let clients start and stop an indexing of the libraries' folders (default: if the server has a token or "
        "only this machine can reach it).",
    )


def _add_limits(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--max-upload-mb",
        metavar="MB",
        type=int,
        default=512,
        help="Maximum size of an uploaded file to search by (default 512).",
    )
    group.add_argument(
        "--queue",
        metavar="N",
        type=int,
        help="Maximum number of requests in progress (default 256). Further requests get status 503.",
    )
    group.add_argument(
        "--memory",
        metavar="GB",
        type=float,
        help="Memory to keep libraries of more than 50,000 segments in, all together (default: a quarter of the "
        "machine's). 0 searches them on the disk.",
    )


def _add_logging(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--metrics",
        action="store_true",
        help="Serve Prometheus metrics at /metrics. If the server has a token, they need it too.",
    )
    group.add_argument(
        "--access-log",
        metavar="FILE",
        help="File to log requests to, one per line. - is standard error.",
    )
    group.add_argument(
        "--log-level",
        metavar="LEVEL",
        help=f"Lowest level of messages to log: {', '.join(_LOG_LEVELS)} (default warning, or debug with --debug).",
    )


def run(arguments: argparse.Namespace) -> None:
    from vop.server.access import check_root_path, choose_token

    _check(arguments)
    root_path = check_root_path(arguments.root_path)
    token = choose_token(
        arguments.host, token=arguments.token, token_file=arguments.token_file, no_token=arguments.no_token
    )
    _configure_logging(arguments.log_level, arguments.access_log)
    with _listen(arguments.host, arguments.port) as listener:
        _serve(arguments, listener, token=token, root_path=root_path)
    sys.stdout.flush()
    # Python would wait for computations that are still running in threads, although nobody waits for their results.
    os._exit(0)


def _check(arguments: argparse.Namespace) -> None:
    if not 0 <= arguments.port < 2**16:
        raise UsageError(f"--port {arguments.port}: a port is a number from 0 to {2**16 - 1}")
    if not arguments.host:
        raise UsageError("--host '': give an address: 127.0.0.1 for this machine only, 0.0.0.0 for other machines too")
    if arguments.max_upload_mb < 1:
        raise UsageError(f"--max-upload-mb {arguments.max_upload_mb}: give 1 or more")
    if arguments.queue is not None and arguments.queue < 1:
        raise UsageError(f"--queue {arguments.queue}: give 1 or more")
    if arguments.memory is not None and not 0 <= arguments.memory < math.inf:
        raise UsageError(f"--memory {arguments.memory}: give gigabytes, 0 or more")
    if arguments.log_level not in (None, *_LOG_LEVELS):
        raise UsageError(f"--log-level {arguments.log_level}: give one of {', '.join(_LOG_LEVELS)}")


class _LogFormatter(logging.Formatter):
    """Escapes control characters, because messages contain the paths of requests and files."""

    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record))


def _configure_logging(level: str | None, access_log: str | None) -> None:
    """Sends log messages to standard error, and a line about each request to the access log, if it is enabled.

    Raises:
        UsageError: the file cannot be written.
    """
    ours = logging.getLogger("vop")
    if level is not None:
        ours.setLevel(level.upper())
    for handler in ours.handlers:
        handler.setFormatter(_LogFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    access = logging.getLogger("vop.server.access")
    access.propagate = False
    access.setLevel(logging.WARNING)
    if access_log is None:
        return
    from logging.handlers import WatchedFileHandler

    try:
        # The handler opens the file again after logrotate has moved it.
        output = logging.StreamHandler() if access_log == "-" else WatchedFileHandler(access_log, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--access-log {access_log}: cannot be written ({error.strerror}); name a file") from None
    output.setFormatter(_LogFormatter("%(asctime)s %(message)s"))
    access.addHandler(output)
    access.setLevel(logging.INFO)


def _serve(arguments: argparse.Namespace, listener: socket.socket, *, token: str | None, root_path: str) -> None:
    use_device_options(arguments)
    from vop.server.access import AllowedHosts, may_index
    from vop.server.app import create_app
    from vop.server.connections import Server, connections_that_fit
    from vop.server.services import MAX_REQUESTS, MAX_UPLOADS

    max_connections = connections_that_fit()
    app = create_app(
        arguments.libraries,
        token=token,
        hosts=AllowedHosts(arguments.host),
        max_upload_bytes=arguments.max_upload_mb * 2**20,
        max_requests=arguments.queue or MAX_REQUESTS,
        max_uploads=min(MAX_UPLOADS, max_connections // 2),
        root_path=root_path,
        precision=arguments.precision,
        metrics=arguments.metrics,
        memory_bytes=None if arguments.memory is None else int(arguments.memory * 2**30),
        read_only=arguments.read_only,
        may_index=may_index(arguments.host, token=token, chosen=arguments.indexing),
    )
    shown_token = token if arguments.token == "auto" else None
    urls = PageURLs.of(arguments.host, listener.getsockname()[1], token=shown_token, root_path=root_path)

    def on_startup() -> None:
        if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:  # unless nohup ignores it
            signal.signal(signal.SIGHUP, server.handle_exit)
        _announce(app.state.services.libraries, urls, in_browser=arguments.open)

    server = Server(app, listener, max_connections=max_connections, on_startup=on_startup)
    try:
        server.run()
    except KeyboardInterrupt:  # raised again after the shutdown
        warn("stopped")


def _listen(host: str, port: int) -> socket.socket:
    """Returns a socket that listens on the address, so that no other program takes it while the models are opened.

    Raises:
        UsageError: the address is not available.
    """
    try:
        return _bound(host, port)
    except socket.gaierror as error:
        raise UsageError(f"--host {host}: not an address of this machine ({error.strerror})") from None
    except PermissionError:
        raise UsageError(f"--port {port}: ports below 1024 are reserved for the system; use a higher one") from None
    except OSError as error:
        free = _free_port_after(host, port)
        if free is None:
            raise UsageError(f"--host {host} --port {port}: cannot listen on it ({error.strerror})") from None
        raise UsageError(f"--port {port} is taken by another program; --port {free} is free") from None


def _bound(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # the port of a server that has just ended is free
        bound.bind(address)
        bound.listen()  # two sockets may be bound to one port as long as neither listens
    except OSError:
        bound.close()
        raise
    return bound


def _free_port_after(host: str, port: int) -> int | None:
    for other in range(port + 1, min(port + 1 + _PORTS_TRIED, 2**16)):
        try:
            _bound(host, other).close()
        except OSError:
            continue
        return other
    return None


def _announce(libraries: Libraries, urls: PageURLs, *, in_browser: bool) -> None:
    for url in dict.fromkeys(filter(None, (urls.shown, urls.for_phones))):
        say(url)
    for view in libraries.views:
        status = view.served.status().library
        counts = f"{count('segment', status.segments)} of {count('video', status.videos)}"
        content = counts if status.segments else "empty"
        say(f"  {view.id}: {content}, {view.model.method} ({view.model.name}), in {view.library.path}")
    if urls.for_phones and sys.stdout.isatty():
        sys.stdout.write(f"{qr_code(urls.for_phones)}\n")  # it has no other text
    say("Ctrl-C stops the server")
    if in_browser:
        import threading
        import webbrowser

        threading.Thread(
            target=webbrowser.open, args=[urls.here], daemon=True
        ).start()  # some browsers block their caller
