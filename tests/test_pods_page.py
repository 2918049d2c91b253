"""The commands of the page on pods and several hosts, together with those of the script."""

import os
import re
import shlex
import subprocess

from page_commands import PAGES, ROOT, blocks
from pod_stand_in import printed


def commands():
    for _, block in blocks(PAGES["docs/pods.md"]):
        yield from filter(None, block.replace("\\\n", " ").splitlines())


def test_the_program_knows_every_flag_that_page_and_script_give_it(monkeypatch):
    from lpw_jax import config
    from lpw_jax.main import parser

    monkeypatch.chdir(ROOT)
    lines = [*commands(), *printed("run", "--config=configs/cifar10_bn.py").splitlines()]
    programs = [line for line in lines if "python -m lpw_jax." in line]
    assert len(programs) >= 4
    for line in programs:
        module, *words = shlex.split(line.partition("python -m ")[2])
        assert module == "lpw_jax.main", f"{module}: teach this test its parser"
        arguments, _ = config.parse(parser(), words)
        assert arguments.workdir.startswith(("gs://", "/"))
        explicit = (arguments.coordinator, arguments.num_processes, arguments.process_id)
        assert arguments.distributed != all(value is not None for value in explicit), line


def test_every_script_command_of_the_page_prints_what_it_would_run():
    text = "\n".join(line for line in commands() if line.startswith(("export ", "scripts/")))
    done = subprocess.run(
        ["bash", "-euc", text],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "DRY_RUN": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    used = set(re.findall(r"^scripts/tpu_pod\.sh ([a-z-]+)", text, re.M))
    assert {"create", "install", "run", "resume-loop", "collect", "delete"} <= used
    assert subprocess.run(["bash", "-n", "-c", done.stdout]).returncode == 0
