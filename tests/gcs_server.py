"""A Google Cloud Storage in memory, on 127.0.0.1: what gcsfs and tensorstore ask of its JSON API.

Objects have generations, and conditions on them hold: of two writers one wins, as in the real one.
"""

import http.server
import json
import re
import sys
import threading
import urllib.parse
from pathlib import Path
from typing import Any, NamedTuple, Self

Reply = tuple[int, Any, dict[str, str]]  # status; bytes or what becomes JSON; headers


class Stored(NamedTuple):
    """An object's content; each write gives it a higher generation."""

    data: bytes
    generation: int


class Storage(http.server.ThreadingHTTPServer):
    """Serves `objects`, {"bucket/key": Stored}, at `url` while it is entered. Any bucket exists."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Request)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.objects: dict[str, Stored] = {}
        self.uploads: list[str] = []  # names of what is being uploaded in two requests
        self.lock = threading.Lock()
        self._generation = 10**15
        self._thread = threading.Thread(target=self.serve_forever)

    @property
    def environment(self) -> dict[str, str]:
        """With it, a process finds its gs:// here, and asks Google nothing."""
        return {
            "EPATH_USE_TF": "false",  # TensorFlow's client knows the real address only
            "STORAGE_EMULATOR_HOST": self.url,
            "FSSPEC_GCS": '{"token": "anon"}',
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",  # looks the kind of bucket up
            "TENSORSTORE_GCS_HTTP_URL": self.url,
            "NO_GCE_CHECK": "true",
        }

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()

    def handle_error(self, *_) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # clients may be killed
            super().handle_error(*_)

    def put(self, name: str, data: bytes) -> None:
        """Writes one object."""
        self._generation += 1
        self.objects[name] = Stored(data, self._generation)

    def get(self, name: str) -> bytes:
        """Content of one object, empty if there is none."""
        with self.lock:
            return self.objects[name].data if name in self.objects else b""

    def put_folder(self, folder: Path, name: str) -> None:
        """Writes the files under a local folder as objects `name`/..."""
        for file in folder.rglob("*"):
            if file.is_file():
                self.put(f"{name}/{file.relative_to(folder).as_posix()}", file.read_bytes())

    def get_folder(self, name: str, folder: Path) -> None:
        """Writes the objects `name`/... as files under a local folder."""
        for key, stored in self.objects.items():
            if key.startswith(name + "/"):
                file = folder / key.removeprefix(name + "/")
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(stored.data)


class _Request(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # connections stay open
    wbufsize = -1  # a reply is one packet

    def log_message(self, *_) -> None:
        pass

    def _reply(self) -> None:
        url = urllib.parse.urlsplit(self.path)
        self.query = dict(urllib.parse.parse_qsl(url.query))
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        with self.server.lock:
            status, content, headers = self._answer(url.path)
        if not isinstance(content, bytes):
            content = json.dumps(content).encode()
            headers = headers | {"Content-Type": "application/json"}
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(content))}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_DELETE = _reply

    def _answer(self, path: str) -> Reply:
        for method, pattern, action in _ROUTES:
            found = re.fullmatch(pattern, path)
            if found and method == self.command:
                return action(self, *map(urllib.parse.unquote, found.groups()))
        return _error(400, f"this storage knows no {self.command} {path}")

    def _bucket(self, bucket: str) -> Reply:
        return 200, {"kind": "storage#bucket", "name": bucket}, {}

    def _list(self, bucket: str) -> Reply:
        prefix, delimiter = self.query.get("prefix", ""), self.query.get("delimiter")
        items, folders = [], set()
        for name in sorted(self.server.objects):
            if name.startswith(f"{bucket}/{prefix}"):
                head, found, _ = name.removeprefix(f"{bucket}/{prefix}").partition(
                    delimiter or "\0"
                )
                if found:
                    folders.add(prefix + head + delimiter)
                else:
                    items.append(self._resource(name))
        return 200, {"items": items, "prefixes": sorted(folders)}, {}

    def _get(self, bucket: str, key: str) -> Reply:
        name = f"{bucket}/{key}"
        if refused := self._refused(name, must_exist=True):
            return refused
        if self.query.get("alt") != "media":
            return 200, self._resource(name), {}
        data, generation = self.server.objects[name]
        headers = {"x-goog-generation": str(generation)}
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not span:
            return 200, data, headers
        start, stop = int(span[1]), min(int(span[2] or len(data)) + 1, len(data))
        if start >= len(data):
            return _error(416, "there are no such bytes")
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
        return 206, data[start:stop], headers

    def _delete(self, bucket: str, key: str) -> Reply:
        name = f"{bucket}/{key}"
        if refused := self._refused(name, must_exist=True):
            return refused
        del self.server.objects[name]
        return 204, b"", {}

    def _move(self, bucket: str, key: str, to: str) -> Reply:
        name = f"{bucket}/{key}"
        if refused := self._refused(name, must_exist=True):
            return refused
        return self._write(f"{bucket}/{to}", self.server.objects.pop(name).data)

    def _upload(self, bucket: str) -> Reply:
        if "upload_id" in self.query:
            if self.headers.get("Content-Range", "").endswith("/*"):
                return _error(400, "this storage takes no upload in several parts")
            return self._write(self.server.uploads[int(self.query["upload_id"])], self.body)
        name = f"{bucket}/{self.query['name']}"
        if self.query["uploadType"] == "media":
            return self._refused(name) or self._write(name, self.body)
        self.server.uploads.append(name)  # the content comes with the next request
        number = len(self.server.uploads) - 1
        return 200, b"", {"Location": f"{self.server.url}{self.path}&upload_id={number}"}

    def _write(self, name: str, data: bytes) -> Reply:
        self.server.put(name, data)
        return 200, self._resource(name), {}

    def _refused(self, name: str, *, must_exist: bool = False) -> Reply | None:
        """The error, unless the request's conditions on an object hold."""
        generation = self.server.objects[name].generation if name in self.server.objects else 0
        if generation == int(self.query.get("ifGenerationNotMatch", -1)):
            return 304, b"", {}
        if generation != int(self.query.get("ifGenerationMatch", generation)):
            return _error(412, f"{name} has generation {generation}")
        return _error(404, f"No such object: {name}") if must_exist and not generation else None

    def _resource(self, name: str) -> dict[str, str]:
        data, generation = self.server.objects[name]
        bucket, _, key = name.partition("/")
        moment = "2026-01-01T00:00:00.000Z"
        return {
            "kind": "storage#object",
            "bucket": bucket,
            "name": key,
            "generation": str(generation),
            "size": str(len(data)),
            "timeCreated": moment,
            "updated": moment,
        }


def _error(status: int, message: str) -> Reply:
    return status, {"error": {"code": status, "message": message}}, {}


_OBJECT = "/storage/v1/b/([^/]+)/o/([^/]+)"
_ROUTES = (
    ("GET", "/storage/v1/b/([^/]+)", _Request._bucket),
    ("GET", "/storage/v1/b/([^/]+)/o", _Request._list),
    ("GET", f"(?:/download)?{_OBJECT}", _Request._get),
    ("DELETE", _OBJECT, _Request._delete),
    ("POST", f"{_OBJECT}/moveTo/o/([^/]+)", _Request._move),
    ("POST", "/upload/storage/v1/b/([^/]+)/o", _Request._upload),
)
