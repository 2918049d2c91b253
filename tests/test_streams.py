"""Output that is full, closed or of a narrow encoding ends nothing and is told of once."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lpw_jax import errors, streams
from lpw_jax.display import console

ROOT = Path(__file__).parents[1]


def full():
    return open("/dev/full", "w", encoding="utf-8")


def broken_pipe():
    read, write = os.pipe()
    os.close(read)
    return open(write, "w", encoding="utf-8")


def closed_before_python():
    return None


def deaf():
    class Deaf(io.StringIO):
        def write(self, text):
            raise ValueError("no such stream")

    return Deaf()


def narrow():
    return io.TextIOWrapper(io.BytesIO(), encoding="ascii")


BROKEN = (full, broken_pipe, closed_before_python, deaf, narrow)


@pytest.mark.parametrize("name", ["stdout", "stderr"])
@pytest.mark.parametrize("broken", BROKEN)
def test_a_program_works_to_its_end_whatever_becomes_of_what_it_prints(broken, name, monkeypatch):
    done, other = [], io.StringIO()
    stream = broken()
    monkeypatch.setattr(sys, "stderr" if name == "stdout" else "stdout", other)
    monkeypatch.setattr(sys, name, stream)

    def work():
        for number in range(3):
            console.say("Zürich ± 1, [bold]")
            console.warn(f"é {number}")
            print("\udcff", flush=True)
            print("\udcff", file=sys.stderr, flush=True)
            done.append(number)

    assert errors.exit_code("program", work) == 0
    assert done == [0, 1, 2] and getattr(sys, name) is stream
    is_lost = broken not in (closed_before_python, narrow)
    assert other.getvalue().count("is lost") == is_lost
    if broken is narrow:
        stream.flush()
        shown = stream.buffer.getvalue().decode("ascii")
        assert ("\\xb1" if name == "stdout" else "\\xe9") in shown and "\\udcff" in shown
    if is_lost:
        stream.close()


PROGRAM = """
import os, sys
from lpw_jax import errors
errors.begin()
path = sys.argv[1]
file = os.open(path, os.O_WRONLY | os.O_CREAT)  # gets no number of a standard stream
for number in (1, 2):
    try: os.write(number, b"printed by C++")
    except OSError: pass
print("printed by Python", flush=True); print("and again", file=sys.stderr, flush=True)
os.write(file, b"its own")
errors.leave(errors.exit_code("program", lambda: print("x" * 100_000)))
"""


@pytest.mark.parametrize("redirected", [">/dev/full", ">/dev/full 2>&1", ">&- 2>&-", "| head -c 1"])
def test_a_process_ends_with_the_code_of_its_work_and_prints_into_no_file(redirected, tmp_path):
    command = f'("$0" -c "$1" "$2"; echo $? > "$2.code") <&- {redirected}'
    file = tmp_path / "file"
    done = subprocess.run(
        ["sh", "-c", command, sys.executable, PROGRAM, str(file)],
        cwd=ROOT, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (tmp_path / "file.code").read_text() == "0\n"
    assert file.read_text() == "its own"
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr


@pytest.mark.parametrize("columns", ["0", "1", "99999999", "-3", "x", ""])
def test_a_terminal_has_a_width_that_can_be(columns, monkeypatch):
    for name, value in (("COLUMNS", columns), ("LINES", columns), ("TERM", "weird")):
        monkeypatch.setenv(name, value)
    paper = console.Terminal(file=io.StringIO(), force_terminal=True)
    assert 20 <= paper.width <= 1000 and 4 <= paper.height <= 1000
    console.print_config({"seed": 3, "data": {"name": "digits"}}, console=paper)
    assert "name=digits" in paper.file.getvalue()


def test_begin_is_idempotent(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    with streams.guarded():
        first = sys.stdout
        streams.guard()
        assert sys.stdout is first
