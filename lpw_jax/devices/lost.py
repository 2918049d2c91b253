"""Notices at once when another process of the run is lost.

JAX's own watch takes a minute, and ends the process with a stack trace of C++. Every process keeps
a connection to process 0 open, which the system closes when either of them ends; who ends as it
should says so before. Where no connection can be made, JAX's watch is left.
"""

import contextlib
import os
import platform
import secrets
import selectors
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax

_BYE = b"bye\n"
_HERE = b"here\n"
_LONGEST = 200  # bytes of a line
_PATIENCE = 10.0  # seconds, to connect
_SETTLED = 5.0  # seconds in which a loss is noticed, or did not happen
_KEEP_ALIVE = {"TCP_KEEPIDLE": 20, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}  # for lost machines


class Watch:
    """What one process of several knows of the others.

    Args:
      exchange: gives a value of JSON's types to all processes, and has those of all.
      host: of process 0.
    """

    def __init__(self, exchange: Callable[[Any], list[Any]], host: str | None):
        self._number, self._ended = jax.process_index(), False
        self._connections: dict[socket.socket, int] = {}
        self._lock = threading.Lock()
        server = None
        if self._number == 0:
            with contextlib.suppress(OSError):
                server = socket.create_server(("", 0), backlog=jax.process_count())
        mine = {
            "name": _name(),
            "host": host or socket.getfqdn(),
            "port": server and server.getsockname()[1],
            "token": secrets.token_hex(16),
        }
        everyone = exchange(mine)
        self._names = [each["name"] for each in everyone]
        first = everyone[0]
        if first["port"] is None:
            return
        if server:
            self._accept(server, first["token"], len(everyone) - 1)
        else:
            self._connect(host or first["host"], first["port"], first["token"])
        threading.Thread(target=self._listen, daemon=True).start()

    def end(self) -> None:
        """To be called before this process ends as it should."""
        with self._lock:
            self._ended = True
            for connection in self._connections:
                with contextlib.suppress(OSError):
                    connection.sendall(_BYE)

    def _accept(self, server: socket.socket, token: str, number: int) -> None:
        end = time.monotonic() + _PATIENCE
        with server:
            while len(self._connections) < number and (left := end - time.monotonic()) > 0:
                server.settimeout(left)
                with contextlib.suppress(OSError, ValueError):  # of strangers, too
                    connection, _ = server.accept()
                    told, _, who = _line(connection, seconds=1.0).partition(" ")
                    if secrets.compare_digest(told.encode(), token.encode()):
                        connection.sendall(_HERE)
                        self._keep(connection, int(who))

    def _connect(self, host: str, port: int, token: str) -> None:
        with contextlib.suppress(OSError):
            connection = socket.create_connection((host, port), timeout=_PATIENCE)
            connection.sendall(f"{token} {self._number}\n".encode())
            if _line(connection, seconds=_PATIENCE):
                self._keep(connection, 0)

    def _keep(self, connection: socket.socket, who: int) -> None:
        connection.settimeout(None)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEP_ALIVE.items():
            if hasattr(socket, name):
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        self._connections[connection] = who

    def _listen(self) -> None:
        with selectors.DefaultSelector() as selector:
            for connection, who in self._connections.items():
                selector.register(connection, selectors.EVENT_READ, who)
            while selector.get_map():
                for key, _ in selector.select():
                    try:
                        told = _line(key.fileobj)
                    except OSError:
                        told = ""
                    if told.startswith("lost "):
                        self._lost(int(told.split()[1]))
                    elif not told:
                        self._lost(key.data)
                    selector.unregister(key.fileobj)

    def _lost(self, who: int) -> None:
        with self._lock:
            if self._ended:
                return
            for connection, other in self._connections.items():
                if other not in (0, who):
                    with contextlib.suppress(OSError):
                        connection.sendall(f"lost {who}\n".encode())
            print(
                f"process {who} of the run was lost, what it printed says why ({self._names[who]});"
                " the same command on all continues at the newest checkpoint",
                file=sys.stderr,
                flush=True,
            )
            os._exit(1)  # the main thread waits in C++ for what never comes


@contextlib.contextmanager
def watched(exchange: Callable[[Any], list[Any]], host: str | None) -> Iterator[Watch]:
    """Watches the other processes, if there are any, until this one ends as it should or fails."""
    if jax.process_count() == 1:
        yield None
        return
    watch = Watch(exchange, host)
    try:
        yield watch
    except RuntimeError:  # so JAX says that a process no longer answers
        time.sleep(_SETTLED)  # until a loss is noticed, which ends this process
        raise


def _name() -> str:
    """This process in words: its machine, its number there and where it prints to."""
    log = ""
    with contextlib.suppress(OSError):
        path = os.readlink("/proc/self/fd/2")
        log = f", log {path}" if os.path.isfile(path) else ""
    return f"process {os.getpid()} on {platform.node()}{log}"


def _line(connection: socket.socket, *, seconds: float | None = None) -> str:
    """The next line, without its end; what there is of it if the connection is closed.

    Raises OSError: there is none after `seconds`, or it is longer than those of this module.
    """
    text, end = b"", seconds and time.monotonic() + seconds
    while not text.endswith(b"\n"):
        if end:
            connection.settimeout(max(end - time.monotonic(), 0.001))
        if len(text) > _LONGEST:
            raise OSError("no line of a run's")
        if not (more := connection.recv(1)):
            break
        text += more
    return text.decode(errors="replace").rstrip("\n")
