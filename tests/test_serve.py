"""`lpw_jax.report --serve`: over real sockets, on folders that the program's own writers made."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest
from page_reader import Page
from run_folders import record, served, write
from test_start import HEAVY

from lpw_jax import config as config_lib
from lpw_jax.files import lock
from lpw_jax.report import __main__ as program
from lpw_jax.report import found_runs, serve


@pytest.fixture
def root(tmp_path):
    (tmp_path / "runs").mkdir()
    return tmp_path / "runs"


def states(root):
    return {run.place: run.words for run in found_runs.Folder(root).look()[0]}


def test_every_run_is_listed_with_its_state_settings_figures_and_curve(root):
    write(root / "sweep" / "a", "train.learning_rate=0.2", losses=[2.0, 1.0], finished=97.0)
    write(root / "sweep" / "b", "seed=1", losses=[2.0, None])
    write(root / "c", losses=[2.0])
    with lock.held(root / "c"), served(root) as ask:
        status, headers, text = ask()
    page = Page(text)
    epochs = config_lib.load_config("digits_bn").train.epochs
    assert status == 200 and headers["Refresh"] == "5"
    assert page.tables[0][0] == ["run", "state", "seed", "train.learning_rate", "collapsed",
                                 "ensemble", "members, mean", "training"]  # fmt: skip
    rows = page.rows()
    assert rows["c"][0].startswith(f"training, epoch 2 of {epochs}, last line 0 s ago")
    assert rows["c"][1:-1] == ["0", "0.1", "-", "-", "-"]
    assert rows["sweep/a"][:-1] == ["done", "0", "0.2", *("97.00\xa0%", "97.05\xa0%", "96.90\xa0%")]
    stopped = f"stopped, the loss was not finite, 2 of {epochs} epochs done"
    assert rows["sweep/b"][0].startswith(stopped) and rows["sweep/b"][1] == "1"
    assert text.count("<polyline") == 1 and "training loss over 2 epochs: 2 to 1" in text
    assert "sweep/a/report.html" in page.references
    assert "3 runs, 1 in training" in page.sections["Runs"]


def test_the_page_stays_as_it_is_when_nothing_trains(root):
    with served(root) as ask:
        _, headers, text = ask()
        assert "Refresh" not in headers and "There is no run here yet" in text
    write(root / "a", finished=90.0)
    with served(root) as ask:
        assert "Refresh" not in ask()[1]


def test_states_tell_killed_runs_from_stopped_silent_and_damaged_ones(root):
    for name in ("stopped", "killed", "elsewhere", "silent", "changed"):
        write(root / name, losses=[2.0])
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    holder = lock._holder()
    (root / "killed" / lock.NAME).write_text(holder.replace(str(os.getpid()), str(gone.pid)))
    for name in ("elsewhere", "silent"):
        (root / name / lock.NAME).write_text("process 1 on another machine")
    long_ago = time.time() - 7200
    os.utime(root / "silent" / "metrics.jsonl", (long_ago, long_ago))
    (root / "changed" / "metrics.jsonl").write_text("{}\n")
    write(root / "foreign" / "inside", losses=[2.0])
    for name in ("config.json", "results.json"):
        (root / "foreign" / name).write_text('{"model": "of another program"}')
        found = states(root)
        assert "foreign" not in found and "foreign/inside" in found
        (root / "foreign" / name).unlink()
    assert found["stopped"].startswith("stopped, 1 of ")
    assert found["killed"].startswith("killed, 1 of ")
    assert found["elsewhere"].startswith("training, epoch 2 of ")
    assert found["silent"].startswith("no sign of life, 1 of ")
    assert found["silent"].endswith("last line 2 h ago")
    assert "metrics.jsonl: must be JSON as a run writes it; line 1" in found["changed"]


def test_what_has_changed_is_read_again_and_the_rest_is_not(root, monkeypatch):
    run = write(root / "a", losses=[2.0])
    write(root / "b", losses=[2.0], finished=90.0)
    folder, read = found_runs.Folder(root), []
    original = found_runs.RunFiles.read
    monkeypatch.setattr(
        found_runs.RunFiles, "read", lambda self, name: read.append(name) or original(self, name)
    )
    assert [len(run.records) for run in folder.look()[0]] == [1, 1]
    read.clear()
    run.write_metrics([record(1, 2.0), record(2, 1.0)])
    assert [len(run.records) for run in folder.look()[0]] == [2, 1]
    assert read == ["metrics.jsonl"]


def test_only_reports_and_comparisons_inside_of_the_folder_are_given(root):
    write(root / "a b" / "seed0", finished=97.0)
    (root / "comparison.html").write_text("compared")
    outside = root.parent / "outside"
    outside.mkdir()
    (outside / "report.html").write_text("secret")
    (root / "link").symlink_to(outside)
    (root / "to_file").mkdir()
    (root / "to_file" / "report.html").symlink_to(outside / "report.html")
    (root / ".hidden").mkdir()
    (root / ".hidden" / "report.html").write_text("secret")
    (root / "pipe").mkdir()
    os.mkfifo(root / "pipe" / "report.html")
    with served(root) as ask:
        page = Page(ask()[2])
        assert {"a%20b/seed0/report.html", "comparison.html"} <= set(page.references)
        assert "secret" not in str(page.references) and "link" not in str(page.references)
        for path, text in (("/a%20b/seed0/report.html", "the report"), ("/comparison.html?x", "c")):
            status, headers, found = ask(path)
            assert status == 200 and text in found
            assert "default-src 'none'" in headers["Content-Security-Policy"]
            assert ask(path, "HEAD")[0] == 200 and ask(path, "HEAD")[2] == ""
        for path in (
            "/../outside/report.html", "/%2e%2e/outside/report.html",
            "/a%20b/../../outside/report.html",
            f"/{outside}/report.html", f"{outside}/report.html", "/link/report.html",
            "/to_file/report.html", "/.hidden/report.html", "/pipe/report.html", "/report.html",
            "/a%20b/seed0/config.json", "/a%20b/seed0", "/a%20b/seed0/report.html/", "/%00", "/%ff",
            "/a%20b//seed0/report.html", "/a%20b/./seed0/report.html", "*", "",
        ):  # fmt: skip
            status, _, found = ask(path) if path else (404, {}, "")
            assert (status, found) == (404, "404 there is no such page\n"[: len(found)]), path


def test_other_methods_and_hosts_are_refused(root):
    write(root / "a", finished=97.0)
    with served(root) as ask:
        for method in ("POST", "PUT", "DELETE", "OPTIONS", "TRACE"):
            assert ask("/", method)[0] == 405
        assert ask("/", "BREW")[0] == 501
        assert ask("/", Host=f"localhost:{ask.port}")[0] == 200
        for host in (
            "example.org",
            f"example.org:{ask.port}",
            "localhost",
            f"127.0.0.1:{ask.port}.x",
        ):
            for path in ("/", "/a/report.html"):
                status, _, text = ask(path, Host=host)
                assert status == 421 and "the host must be" in text
        with socket.create_connection(("127.0.0.1", ask.port)) as bare:
            bare.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert b" 421 " in bare.makefile("rb").readline()


def test_nothing_is_written(root):
    write(root / "a", losses=[2.0])
    write(root / "b", finished=97.0)

    def contents():
        return {path: path.stat().st_mtime_ns for path in root.rglob("*")}

    before = contents()
    with served(root) as ask:
        ask(), ask("/b/report.html")
    assert contents() == before


def test_a_fault_in_a_list_is_an_answer_and_the_next_one_may_go_well(root, monkeypatch):
    def fail(self):
        raise RuntimeError("größte 木")

    with served(root) as ask:
        with monkeypatch.context() as patch:
            patch.setattr(found_runs.Folder, "look", fail)
            assert ask()[0::2] == (500, "500 RuntimeError: größte 木\n")
        assert ask()[0] == 200


@pytest.mark.parametrize("port", ["0", "65536", "-1", "http", "", "8017.0", "9" * 5000])
def test_a_port_is_a_number_that_ports_have(port, root, capsys):
    assert program.main(["--serve", str(root), f"--port={port}"]) == 2
    assert f"--port = {port!r}: must be a whole number from 1 to 65535" in capsys.readouterr().err


def test_what_cannot_be_served_is_named(root, capsys):
    for folder, reason in (
        (str(root / "none"), "must be a folder, but there is none"),
        ("", "must be a folder, but there is none"),
        ("gs://bucket/runs", "must be a folder of this machine"),
    ):
        assert program.main(["--serve", folder]) == 2
        assert f"--serve = {folder!r}: {reason}" in capsys.readouterr().err
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert program.main(["--serve", str(root), "--port", port]) == 2
    assert (
        f"--port = {port}: cannot be served at, Address already in use" in capsys.readouterr().err
    )
    with pytest.raises(SystemExit):
        program.main(["--workdir", str(root), "--port", "8017"])
    assert "--port goes with --serve" in capsys.readouterr().err


@pytest.mark.slow
def test_a_process_serves_without_jax_and_ends_quietly_by_ctrl_c(root):
    write(root / "a", losses=[2.0, 1.0], finished=97.0)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    watch = f"""
import sys
from lpw_jax.report import __main__ as program
code = program.main(["--serve", {str(root)!r}, "--port", {port!r}])
print(code, [name for name in {HEAVY} if name in sys.modules])
"""
    server = subprocess.Popen(
        [sys.executable, "-c", watch], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout.readline().startswith(f"http://127.0.0.1:{port}/ shows the runs in")
        server.send_signal(signal.SIGINT)
        out, errors = server.communicate(timeout=30)
    finally:
        server.kill()
    assert out.splitlines()[-1] == "0 []" and errors == ""


@pytest.fixture
def chromium(tmp_path):
    """The command of a browser without a window."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        pytest.skip("no chromium on the PATH")
    return [found, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/b"]


@pytest.mark.slow
def test_a_browser_shows_the_list_and_the_report_behind_a_link(root, chromium):
    write(root / "a", losses=[2.0, 1.0], finished=97.0)

    def seen(url):
        """The page as the browser has it."""
        shown = subprocess.run([*chromium, "--dump-dom", url], capture_output=True, timeout=120)
        return shown.stdout.decode()

    with served(root) as ask:
        home = f"http://localhost:{ask.port}"
        page = Page(seen(f"{home}/").removeprefix("<!DOCTYPE html>"))
        assert page.rows()["a"][0] == "done"
        (report,) = (ref for ref in page.references if ref.endswith("report.html"))
        assert "the report" in seen(f"{home}/{report}")


@pytest.mark.slow
def test_a_browser_asks_again_for_as_long_as_a_run_trains(root, chromium, monkeypatch):
    asked, original = [], serve.Server.list
    monkeypatch.setattr(serve, "_REFRESH", 1)
    monkeypatch.setattr(serve.Server, "list", lambda self: asked.append(1) or original(self))
    write(root / "a", losses=[2.0])
    with served(root) as ask:
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        url = f"http://localhost:{ask.port}/"
        browser = subprocess.Popen([*chromium, "--remote-debugging-port=0", url], **quiet)
        try:
            with lock.held(root / "a"):
                deadline = time.monotonic() + 60
                while len(asked) < 3 and time.monotonic() < deadline:
                    time.sleep(0.1)
            time.sleep(2.5)  # it sees the end once
            done = len(asked)
            time.sleep(2.5)
        finally:
            browser.terminate()
            browser.wait(60)
    assert done >= 4 and len(asked) == done
