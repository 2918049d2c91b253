"""Folders of runs as the program's own writers make them, without a training; and their server."""

import contextlib
import http.client
import threading

import comparison_files

from lpw_jax import config as config_lib
from lpw_jax.files import described
from lpw_jax.files.results import Results
from lpw_jax.files.workdir import Workdir
from lpw_jax.report import serve


def record(epoch, loss, **more):
    rates = {"learning_rate": 0.1, "late_phase_learning_rate": 0.1}
    counts = {"step": 10 * epoch, "images": 640, "seconds": 1.5, "images_per_second": 427.0}
    members = {"member_loss": [loss], "member_accuracy": [0.5]}
    return {"epoch": epoch, "phase": "tied", "loss": loss, "accuracy": 0.5,
            **rates, **counts, **members, **more}  # fmt: skip


def write(place, *flags, losses=(), finished=None):
    """A run of configs/digits_bn.py in a folder; `finished` is its accuracy."""
    folder = Workdir(place)
    place.mkdir(parents=True)
    overrides = tuple(f"--config.{flag}" for flag in flags)
    config = config_lib.load_config("digits_bn", overrides)
    folder.identify(config)
    folder.write_metrics([record(i, loss) for i, loss in enumerate(losses, 1)])
    if finished:
        found = comparison_files.results(
            "digits_bn", seed=config.seed, accuracy=finished, overrides=overrides
        )
        folder.write_results(described.read(Results, found))
        folder.write_file("report.html", b"<title>the report</title>")
    return folder


@contextlib.contextmanager
def served(root):
    """`ask(path, method, **headers)` -> (status, headers, text) of a server of the folder."""
    with serve.Server(root, 0) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        port = server.server_address[1]

        def ask(path="/", method="GET", **headers):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            with contextlib.closing(connection):
                connection.request(method, path, headers=headers)
                answer = connection.getresponse()
                return answer.status, answer.headers, answer.read().decode()

        ask.port = port
        try:
            yield ask
        finally:
            server.shutdown()
