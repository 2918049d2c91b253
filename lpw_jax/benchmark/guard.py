"""Runs a command that ends with whoever started it: `python guard.py COMMAND ARGUMENTS...`.

To be started as the leader of a process group, with a pipe as standard input that nobody writes to:
when that closes, because its other end has died by whatever cause, the whole group is killed.
"""

import os
import signal
import subprocess
import sys
import threading


def _watch() -> None:
    sys.stdin.buffer.read()
    os.killpg(0, signal.SIGKILL)


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: None)  # the command's to obey; ignored, it would be so
    threading.Thread(target=_watch, daemon=True).start()
    code = subprocess.call(sys.argv[1:], stdin=subprocess.DEVNULL)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    code = main()
    os._exit(code)  # whatever the watching thread does
