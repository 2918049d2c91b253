"""A real training on a real terminal: it tells what is compiled, and leaves the terminal whole."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import time

import pytest
import shared
import survival

# Compiled anew, and told at once: a tiny network takes less than a second.
PROGRAM = f"""
import fcntl, runpy, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # so that Ctrl-C reaches it
sys.path.insert(0, {os.path.dirname(survival.TINY_PROGRAM)!r})
from lpw_jax.devices import compiling
compiling._LEAST = 0.0
runpy.run_path({survival.TINY_PROGRAM!r}, run_name="__main__")
"""
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def on_a_terminal(workdir, *, columns, until=None, **environment):
    """Exit code and all that a terminal got; with `until`, Ctrl-C is typed once it is there."""
    main, end = pty.openpty()
    fcntl.ioctl(main, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    flag = "--xla_force_host_platform_device_count=1"
    kept = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "NO_COLOR")}
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "--config", "digits_bn", "--workdir", str(workdir),
         *survival.TINY_FLAGS],
        cwd=survival.ROOT, stdin=end, stdout=end, stderr=end, start_new_session=True,
        env=kept | {"TERM": "xterm-256color", "XLA_FLAGS": f"{flag} {shared.QUICK_COMPILER}",
                    "JAX_ENABLE_COMPILATION_CACHE": "false", **environment},
    )  # fmt: skip
    os.close(end)
    seen, is_typed, deadline = b"", False, time.monotonic() + survival.PATIENCE
    while time.monotonic() < deadline:
        try:
            part = os.read(main, 1 << 16)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        seen += part
        if until and not is_typed and until in seen:
            os.write(main, b"\x03")
            is_typed = True
    os.close(main)
    return process.wait(timeout=60), seen.decode()


@pytest.mark.slow
def test_a_training_on_a_terminal_tells_what_it_compiles_and_leaves_it_whole(tmp_path):
    code, seen = on_a_terminal(tmp_path / "run", columns=80)
    told = CONTROL.sub("", seen)
    assert code == 0 and "Traceback" not in told, told
    named = set(re.findall(r"compiling ([a-z' ]+), \d+ s", told))
    assert {"training step", "members' step"} <= named, named  # others may be too soon done
    assert "epoch 1/5 tied" in told and "epoch 5/5" in told and "\x1b[3" in seen
    assert seen.rindex("\x1b[?25h") > seen.rindex("\x1b[?25l")  # the cursor is shown again
    table = told[told.rindex("view") :]
    assert "collapsed" in table and "compiling" not in table.splitlines()[-1]
    assert max(len(line) for line in table.splitlines()) <= 80


@pytest.mark.slow
def test_ctrl_c_amid_a_compilation_saves_and_gives_the_terminal_back_and_no_color_is_kept(tmp_path):
    code, seen = on_a_terminal(tmp_path / "run", columns=120, until=b"epoch 1/5", NO_COLOR="1")
    told = CONTROL.sub("", seen)
    assert code == 130 and "Traceback" not in told, told
    assert "interrupted and saved; the same command continues" in told
    assert seen.rindex("\x1b[?25h") > seen.rindex("\x1b[?25l")
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", seen)
    assert list((tmp_path / "run" / "checkpoints").iterdir())
