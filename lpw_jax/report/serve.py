"""Serves the list of runs under a folder, with their reports, to browsers of this machine.

It writes nothing, and serves nothing but its own list and files named as `found_runs.PAGES`.
"""

import contextlib
import http.server
import math
import os
import shutil
import signal
import socketserver
import stat
import sys
import threading
import time
import urllib.parse
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import BinaryIO

from lpw_jax import signals
from lpw_jax.display import console
from lpw_jax.errors import UserError
from lpw_jax.files import storage
from lpw_jax.plain_text import visible
from lpw_jax.report import found_runs, runs_page

ADDRESS, PORT = "127.0.0.1", 8017
_REFRESH = 5  # seconds, and of the time at most one in _SHARE
_SHARE = 20
_FRESH = 1.0  # seconds for which a page is not made again, however many ask
_SECONDS = 10  # that a browser may take to say what it wants
_HEADERS = {
    "Cache-Control": "no-store",
    # A report is a file that anybody may have made: it shows itself and reaches nothing.
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def serve(folder: str, port: str | None = None) -> None:
    """Serves until Ctrl-C or another request to end.

    Raises:
      UserError: there is no such folder, or the port is none or cannot be had.
    """
    root, number = _folder(folder), _port(port)
    ends = dict.fromkeys((*signals.ENDING, signal.SIGINT), signal.default_int_handler)
    with (
        _server(root, number) as server,
        contextlib.suppress(KeyboardInterrupt),
        signals.handled(ends),
    ):
        console.say(f"http://{ADDRESS}:{number}/ shows the runs in {root}; Ctrl-C ends this")
        server.serve_forever()


class Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """Answers on this machine's own address alone.

    Args:
      root: the folder, without links in it.
      port: 0 for any that is free.

    Raises:
      OSError: the port cannot be had.
    """

    allow_reuse_address = os.name != "nt"  # there it would share the port with another program
    daemon_threads = True

    def __init__(self, root: Path, port: int):
        self.root, self._runs = root, found_runs.Folder(root)
        self._lock, self._made, self._until = threading.Lock(), (b"", 0), 0.0
        super().__init__((ADDRESS, port), _Handler)
        names = (ADDRESS, "localhost")
        self.hosts = {f"{name}:{self.server_address[1]}" for name in names}
        if self.server_address[1] == 80:
            self.hosts.update(names)

    def list(self) -> tuple[bytes, int]:
        """The page of all runs, and in how many seconds to ask for it again; 0 for never."""
        with self._lock:
            start = time.monotonic()
            if start >= self._until:
                runs, pages, is_whole = self._runs.look()
                text = runs_page.build(f"Runs in {self.root}", runs, pages, is_whole=is_whole)
                took = time.monotonic() - start
                again = max(_REFRESH, math.ceil(_SHARE * took))
                alive = any(run.is_alive for run in runs)
                self._made = storage.utf8(text), again if alive else 0
                self._until = time.monotonic() + _FRESH
            return self._made

    def handle_error(self, request, client_address):
        """A browser that has gone is no event."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Server
    timeout = _SECONDS
    error_content_type, error_message_format = "text/plain; charset=utf-8", "%(code)d %(explain)s\n"

    def do_GET(self):
        self._answer(with_body=True)

    def do_HEAD(self):
        self._answer(with_body=False)

    def _refuse(self):
        self._deny(HTTPStatus.METHOD_NOT_ALLOWED, "only GET and HEAD are answered")

    do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_TRACE = do_CONNECT = _refuse

    def _answer(self, *, with_body: bool) -> None:
        # Another name means that a page of elsewhere had its own name lead here (DNS rebinding).
        if self.headers.get_all("Host") not in [[host] for host in self.server.hosts]:
            allowed = " or ".join(sorted(self.server.hosts))
            self._deny(HTTPStatus.MISDIRECTED_REQUEST, f"the host must be {allowed}")
            return
        path = self.path.partition("?")[0]
        if path == "/":
            try:
                text, again = self.server.list()
            except Exception as error:
                reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
                self._deny(HTTPStatus.INTERNAL_SERVER_ERROR, visible(reason))
                return
            self._begin(len(text), {"Refresh": str(again)} if again else {})
            if with_body:
                self.wfile.write(text)
            return
        with _opened(self.server.root, path) as file:
            if file is None:
                self._deny(HTTPStatus.NOT_FOUND, "there is no such page")
                return
            self._begin(os.fstat(file.fileno()).st_size, {})
            if with_body:
                shutil.copyfileobj(file, self.wfile)

    def _deny(self, status: HTTPStatus, reason: str) -> None:
        self.send_error(status, explain=reason)  # in the body: a first line has no other alphabets

    def _begin(self, length: int, more: dict[str, str]) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(length))
        for name, value in more.items():
            self.send_header(name, value)
        self.end_headers()

    def end_headers(self):
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def version_string(self) -> str:
        return "lpw_jax"

    def log_message(self, *_):
        """Nothing: the terminal is the user's."""


@contextlib.contextmanager
def _opened(root: Path, path: str) -> Iterator[BinaryIO | None]:
    """The page at a path of an address; None where there is none that may be shown.

    Such is a plain file named as one of PAGES, to which no link and no hidden folder leads.
    """
    try:
        parts = os.fsdecode(urllib.parse.unquote_to_bytes(path)).split("/")[1:]
        place = root.joinpath(*parts)
        is_page = all(parts) and parts[-1:] in [[name] for name in found_runs.PAGES]
        is_page = is_page and not any(part.startswith(".") for part in parts)
        if not is_page or not place.is_relative_to(root) or os.path.realpath(place) != str(place):
            raise FileNotFoundError
        file = open(place, "rb", opener=_at_once)  # noqa: SIM115  (the caller's until its end)
    except (OSError, ValueError):
        yield None
        return
    with file:
        yield file if stat.S_ISREG(os.fstat(file.fileno()).st_mode) else None


def _at_once(name: str, flags: int) -> int:
    """Opens a file; a pipe would be waited for."""
    return os.open(name, flags | getattr(os, "O_NONBLOCK", 0))


def _folder(text: str) -> Path:
    place = storage.path(text)
    if storage.is_remote(place):
        raise UserError(f"--serve = {text!r}: must be a folder of this machine, not of a bucket")
    root = Path(os.path.realpath(place))
    if not text.strip() or not root.is_dir():
        raise UserError(f"--serve = {text!r}: must be a folder, but there is none")
    return root


def _port(text: str | None) -> int:
    if text is None:
        return PORT
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:6]) <= 65535):
        raise UserError(f"--port = {text!r}: must be a whole number from 1 to 65535")
    return int(text)


def _server(root: Path, port: int) -> Server:
    try:
        return Server(root, port)
    except OSError as error:
        raise UserError(
            f"--port = {port}: cannot be served at, {error.strerror or error}; is it in use? "
            "--port chooses another"
        ) from error
