"""Files appear whole; what a killed process leaves of one is removed by the next that writes it."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from etils import epath

from lpw_jax import compare, main
from lpw_jax.errors import UserError
from lpw_jax.files import checkpoint, lock, storage
from lpw_jax.files.workdir import Workdir
from lpw_jax.weights import weight_files

ROOT = Path(__file__).parents[1]
KILLED = """
import os, signal, sys
from etils import epath
from lpw_jax.files import storage
for name in sys.argv[1:]:
    with open(name, "a"): pass
    stack = storage.replacing(epath.Path(name))
    stack.__enter__().write_bytes(b"half")
    globals()[name] = stack
os.kill(os.getpid(), signal.SIGKILL)
"""


def text(path):
    storage.write_text(path, "whole")


def result(path):
    Workdir(path.parent).write_json(path.name, {"whole": 1})


def predictions(path):
    Workdir(path.parent.parent).save_predictions(path.stem, {})


def export(path):
    with weight_files.replacing(path) as temporary:
        temporary.write_bytes(b"whole")


WRITERS = {
    "page.html": text,
    "results.json": result,
    "predictions/test.npz": predictions,
    "net.safetensors": export,
}


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("killed")
    (folder / "predictions").mkdir()
    files = [str(folder / name) for name in WRITERS]
    done = subprocess.run([sys.executable, "-c", KILLED, *files], cwd=ROOT, check=False)
    assert done.returncode == -9
    assert len(left(folder)) == len(WRITERS)
    return folder


def left(folder):
    return list(folder.rglob(f"*{storage.PARTIAL}"))


@pytest.mark.parametrize("name", WRITERS)
def test_what_a_killed_process_left_is_removed_by_the_next_write(killed, name):
    path = epath.Path(killed / name)
    before = len(left(killed))
    assert path.read_bytes() == b""  # the old file, not half of the new one
    WRITERS[name](path)
    assert path.read_bytes()
    assert len(left(killed)) == before - 1


def test_what_a_living_process_writes_is_left_alone(tmp_path):
    path = epath.Path(tmp_path / "report.html")
    with storage.replacing(path) as first:
        first.write_bytes(b"first")
        text(path)
        assert first.exists()
    assert path.read_bytes() == b"first" and left(tmp_path) == []


@pytest.mark.parametrize("error", [OSError("full"), KeyboardInterrupt(), ValueError("a fault")])
def test_nothing_is_left_of_a_write_that_fails(error, tmp_path):
    path = epath.Path(tmp_path / "file")
    path.write_text("old")
    with pytest.raises(type(error)), storage.replacing(path) as temporary:
        temporary.write_bytes(b"half")
        raise error
    assert [file.name for file in path.parent.iterdir()] == ["file"]
    assert path.read_text() == "old"


def test_text_is_utf8_whatever_the_locale_and_the_names(tmp_path):
    program = f"""
from etils import epath; from lpw_jax.files import storage
storage.write_text(epath.Path({str(tmp_path / "page")!r}), "\\u00b1 \\udcff")
"""
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=ascii_only, check=True)
    assert (tmp_path / "page").read_bytes() == "± \\udcff".encode()


@pytest.mark.parametrize(
    "name",
    ["nohup.out", "slurm-123.out", "log.txt", "train.log", "job.err", "net.0123abcd.partial"],
)
def test_a_new_folder_may_hold_logs(name, tmp_path):
    (tmp_path / name).write_text("")
    Workdir(tmp_path).known()
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(UserError, match=r"but holds thesis\.tex and no config"):
        Workdir(tmp_path).known()


@pytest.mark.parametrize("number", [1, 2])
def test_a_new_folder_may_hold_what_is_printed_to(number, tmp_path, monkeypatch):
    with (tmp_path / "any name").open("w") as file:
        with pytest.raises(UserError, match="any name"):
            Workdir(tmp_path).known()
        status = os.fstat  # as if the shell had redirected there
        monkeypatch.setattr(os, "fstat", lambda n: status(file.fileno() if n == number else n))
        Workdir(tmp_path).known()


def test_a_finished_run_is_shown_where_nothing_can_be_written(run_copy, monkeypatch, capsys):
    import short_run

    def refuse(*args, **kwargs):
        raise OSError(errno.EROFS, "Read-only file system")

    for where, name in ((lock, "held"), (storage, "replacing"), (main.tempfile, "TemporaryFile")):
        monkeypatch.setattr(where, name, refuse)
    arguments = [*short_run.COMMAND, "--workdir", str(run_copy)]
    assert main.main(arguments) == 0
    assert "holds this run, finished" in " ".join(capsys.readouterr().out.split())
    results = json.loads((run_copy / "results.json").read_text())
    (run_copy / "results.json").write_text(json.dumps(results | {"status": "trained"}))
    assert main.main(arguments) == 2  # it is to be evaluated
    assert "Read-only file system" in capsys.readouterr().err


def test_pages_are_written_before_anything_is_printed(finished_run, tmp_path, monkeypatch):
    def fail(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(compare.console, "say", fail)
    assert compare.main([str(finished_run), "--out", str(tmp_path)]) == 130
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.skipif(os.sep != "/", reason="where a backslash is a character of names")
def test_weights_are_written_and_read_where_the_system_sees_them(tmp_path):
    (tmp_path / "there" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "there" / "deep")
    beyond = epath.Path(tmp_path / "link") / ".." / "weights"
    checkpoint.save_weights(beyond, {"x": np.arange(3)})
    assert (tmp_path / "there" / "weights").is_dir()
    assert checkpoint.load_weights(beyond)["x"].tolist() == [0, 1, 2]
    before = set(tmp_path.rglob("*"))
    for name in ("a\\b", "a\\b/run"):
        with (
            pytest.raises(UserError, match=r"has a backslash; choose another folder"),
            Workdir(tmp_path / name).claimed(),
        ):
            pass
    assert set(tmp_path.rglob("*")) == before
