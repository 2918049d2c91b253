"""A suite keeps its deadline, loses nothing when it is killed, and names mistakes."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
import survival
from test_benchmark import RESULTS

import lpw_jax.main
from lpw_jax import config as config_lib
from lpw_jax import experiment, signals
from lpw_jax.benchmark import __main__ as benchmark
from lpw_jax.benchmark import check, history, step_process, suite, summary
from lpw_jax.benchmark.__main__ import main
from lpw_jax.benchmark.steps import ACCELERATOR

SUITE = ["--suite=accelerator", "--size=small"]
NAMES = [step.name for step in ACCELERATOR]
SOME = ["wrn28_10_float32", "imagenet_input", "train_cifar10_sgd"]


def records(folder):
    """What there is of the steps, by name, whatever was killed: every file is whole."""
    files = (folder / f"{name}.json" for name in NAMES)
    return {file.stem: json.loads(file.read_text()) for file in files if file.exists()}


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--suite=cpu", "--suite = 'cpu': must be one of accelerator"),
        ("--size=tiny", "--size = 'tiny': must be one of full, small"),
        ("--minutes=0", "--minutes = 0.0: must be a number > 0"),
        ("--minutes=inf", "--minutes = inf: must be a number > 0"),
        ("--steps=check,speed", "--steps = 'check,speed': 'speed' is none of check, wrn28_10_"),
        ("--output=/dev/null/x", "--output = '/dev/null/x': must be a folder"),
        ("--output=gs://bucket/x", "--output = 'gs://bucket/x': must be a local folder"),
        ("--pytorch_code=nowhere", "--pytorch_code = 'nowhere': must be a folder"),
        ("--config.train.momentum=2", "train.momentum = 2.0: must be"),
        ("--config.train.speed=2", "train.speed"),
    ],
)
def test_mistakes_are_named_before_anything_runs(flag, message, tmp_path, capsys):
    output = tmp_path / "suite"
    assert main([*SUITE, f"--output={output}", flag]) == 2
    assert message in capsys.readouterr().err
    assert not output.exists()


@pytest.mark.parametrize("size", ["full", "small"])
def test_every_step_is_a_command_that_its_program_understands(size, tmp_path):
    flags = ["--suite=accelerator", f"--size={size}", f"--output={tmp_path}"]
    args = suite.parser().parse_args([*flags, "--pytorch_code=published"])
    assert len(set(NAMES)) == len(NAMES)
    for step in suite.steps_of(args):
        program, *command = suite.Suite(tmp_path, args, [], 0.0).command(step)[2:]
        of_program = {"lpw_jax.benchmark": benchmark, "lpw_jax.main": lpw_jax.main}[program]
        found, config = config_lib.parse(of_program.parser(), command)
        assert (program == "lpw_jax.main") == (step.parts == "")
        if step.parts:
            assert set(found.parts.split(",")) <= set(benchmark.ALL_PARTS)
            assert step.needs_pytorch == (found.pytorch_code == "published")
        else:
            assert config.train.compute_dtype == "bfloat16"


def test_without_time_nothing_is_begun_and_all_is_said(tmp_path, capsys):
    assert main([*SUITE, f"--output={tmp_path}", "--minutes=0.001"]) == 0
    found = records(tmp_path)
    assert list(found) == NAMES
    assert {record["status"] for record in found.values()} == {"not_run"}
    assert found["check"]["reason"] == "the time was over"
    assert found["pytorch_tf32"]["reason"].startswith("--pytorch_code names no clone")
    page = (tmp_path / "summary.md").read_text()
    assert all(f"| `{name}` |" in page for name in NAMES)
    assert main(["--suite=accelerator", f"--output={tmp_path}"]) == 2
    assert "holds check of --suite accelerator --size small" in capsys.readouterr().err
    (tmp_path / "check.json").write_text("[]")
    assert main([*SUITE, f"--output={tmp_path}"]) == 2
    assert "check.json: is no step of a suite" in capsys.readouterr().err


def is_alive(pid):
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def dies(pid):
    """Whether it ends soon; a signal takes a moment."""
    end = time.monotonic() + 20
    while is_alive(pid) and time.monotonic() < end:
        time.sleep(0.01)
    return not is_alive(pid)


def await_pid(file):
    while not (file.exists() and file.read_text().endswith("\n")):
        time.sleep(0.01)
    return int(file.read_text())


def test_a_step_that_hangs_is_killed_with_all_that_it_started(tmp_path):
    script = f"trap '' TERM; sleep 100 & echo $! > {tmp_path}/pid; echo begun; wait"
    start = time.monotonic()
    code = step_process.run(["bash", "-c", script], log=tmp_path / "log", seconds=1, grace=0.5)
    assert code is None and 1.4 < time.monotonic() - start < 10
    assert dies(await_pid(tmp_path / "pid"))
    assert step_process.last_words(tmp_path / "log") == "begun"


def test_a_step_is_asked_before_it_is_killed_and_its_exit_code_is_told(tmp_path):
    script = f"trap 'echo saved > {tmp_path}/saved; exit 75' TERM; while :; do sleep 0.01; done"
    flags = dict(log=tmp_path / "log", seconds=1)
    assert step_process.run(["bash", "-c", script], grace=20, **flags) is None
    assert (tmp_path / "saved").read_text() == "saved\n"
    assert step_process.run(["bash", "-c", "echo error: no; exit 3"], **flags) == 3
    assert step_process.last_words(tmp_path / "log") == "error: no"
    assert step_process.run(["bash", "-c", "kill -9 $$"], **flags) == 128 + 9


def test_a_step_ends_with_the_suite_that_is_killed(tmp_path):
    script = f"sleep 100 & echo $! > {tmp_path}/pid; wait"
    program = (
        "import pathlib\nfrom lpw_jax.benchmark import step_process\n"
        f"step_process.run(['bash', '-c', {script!r}], log=pathlib.Path({str(tmp_path / 'log')!r}),"
        " seconds=90)"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], cwd=survival.ROOT)
    pid = await_pid(tmp_path / "pid")
    parent.kill()
    parent.wait()
    assert dies(pid)


def suite_process(folder, *flags):
    return subprocess.Popen(
        [sys.executable, "-m", "lpw_jax.benchmark", *SUITE, f"--output={folder}"]
        + [f"--steps={','.join(SOME)}", *flags],
        cwd=survival.ROOT,
        env=os.environ | {"XLA_FLAGS": survival.QUICK_COMPILER},  # and one device
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process):
    """Its exit code."""
    _, told = process.communicate(timeout=survival.PATIENCE)
    assert not told or process.returncode, told
    return process.returncode


def end_when(is_due, process, signal_number):
    """Ends it as soon as `is_due()`; returns its exit code."""
    while not is_due():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal_number)
    return ended(process)


@pytest.mark.slow
def test_a_suite_that_is_ended_again_and_again_measures_all_and_nothing_twice(tmp_path):
    folder = tmp_path / "results" / "benchmarks" / "here"
    folder.parent.mkdir(parents=True)
    log, training = folder / "logs" / f"{SOME[0]}.log", folder / "runs" / SOME[2]

    def measures():
        return log.exists() and "benchmark: step" in log.read_text()

    killed = end_when(measures, suite_process(folder), signal.SIGKILL)
    assert (killed, records(folder)) == (-signal.SIGKILL, {})
    begins = (training / "config.json").exists
    asked = end_when(begins, suite_process(folder), signal.SIGTERM)
    settled = records(folder)
    assert asked == signals.PREEMPTED and list(settled) == SOME[:2]

    # Two seconds beside the time for a last checkpoint, in which no training ends, or even begins.
    assert ended(suite_process(folder, "--minutes=0.21")) == 0
    unfinished = records(folder)[SOME[2]]
    assert unfinished["status"] in ("unfinished", "not_run")
    assert unfinished["reason"] == "the time was over"

    started = time.time()

    def has_saved():
        return survival.has_written(training, "checkpoints/[0-9]*", since=started)

    assert end_when(has_saved, suite_process(folder), signal.SIGKILL) == -signal.SIGKILL
    assert records(folder)[SOME[2]] == unfinished

    assert ended(suite_process(folder)) == 0
    found = records(folder)
    assert {name: found[name] for name in settled} == settled
    assert {name: record["status"] for name, record in found.items()} == {
        "wrn28_10_float32": "done",
        "imagenet_input": "failed",  # digits are not streamed
        "train_cifar10_sgd": "done",
    }
    bare = found["wrn28_10_float32"]["results"]
    assert bare["matmul"]["float32"] > 0
    assert all(step["images_per_second"] > 0 for step in bare["step"]["contenders"])
    assert all(step["peak_memory_bytes"] > 0 for step in bare["step"]["contenders"])
    trained = found["train_cifar10_sgd"]["results"]
    assert trained["epochs"] == 2 and trained["results"]["status"] == "complete"
    page = (folder / "summary.md").read_text()
    assert "most memory so far" in page and "Test accuracy, collapsed" in page
    [line] = (folder.parent / "history.jsonl").read_text().splitlines()
    assert json.loads(line)["file"] == "here/wrn28_10_float32.json"
    # Another command tries again what failed, and that alone.
    assert ended(suite_process(folder, "--config.data.note=once more")) == 0
    after = records(folder)
    assert after["imagenet_input"] != found["imagenet_input"]
    assert {**after, "imagenet_input": 0} == {**found, "imagenet_input": 0}


def test_the_largest_difference_is_a_part_of_the_leafs_largest_change():
    theirs = {"a": np.array([1.0, -100.0]), "b": np.array([[1e-4]]), "c": np.zeros(2)}
    assert check.largest_difference(theirs, theirs) == (0.0, "")
    ours = theirs | {"a": np.array([1.5, -100.0]), "b": np.array([[1.02e-4]])}
    part, where = check.largest_difference(ours, theirs)
    assert part == pytest.approx(0.02) and where == "['b']"
    assert check.largest_difference(theirs | {"c": np.ones(2)}, theirs) == (np.inf, "['c']")
    part, where = check.largest_difference(theirs | {"b": np.array([[np.nan]])}, theirs)
    assert np.isnan(part) and where == "['b']"


CHECKED = ["--config.train.batch_size=8", "--config.late_phase.num_members=2"]


@pytest.mark.slow
def test_a_device_that_rounds_more_does_not_agree_with_the_cpu(tiny_network, monkeypatch):
    config = config_lib.load_config("configs/digits_bn.py", CHECKED)
    found = check.agreement(config, num_classes=10)
    assert found["float32"]["agrees"] and found["float64"]["agrees"]
    assert 0 < found["float64"]["difference"] < found["float32"]["difference"]
    on_cpus = experiment.on_cpus

    def rounded(x, *args, **options):  # to TF32's 10 bits
        x = jax.lax.reduce_precision(x, exponent_bits=8, mantissa_bits=10)
        return on_cpus(np.float64, merged=True)(x, *args, **options)

    def on_device(dtype, *, merged):  # members are merged on the device alone
        return rounded if merged else on_cpus(dtype, merged=False)

    monkeypatch.setattr(experiment, "on_cpus", on_device)
    found = check.agreement(config, num_classes=10)
    assert not found["float64"]["agrees"]


def test_the_page_shows_what_is_there_and_why_the_rest_is_not():
    steps = [
        {"step": "a", "what": "A", "status": "done", "seconds": 1.6, "results": RESULTS},
        {"step": "b", "what": "B", "status": "failed", "reason": "a | b", "seconds": 3}
        | {"results": {}},
        {"step": "c", "what": "C", "status": "unfinished", "seconds": 9, "results": {"epochs": 0}},
    ]
    page = summary.page(steps)
    assert (
        "| `a` | A | done; 3 targets missed | 2 |" in page
        and "| `b` | B | failed: a \\| b | 3 |" in page
    )
    assert page.count("## ") == 1 and "| K = 10, vmap |" in page


def test_a_line_of_history_has_every_figure_by_name(tmp_path):
    folder = tmp_path / "results" / "benchmarks"
    folder.mkdir(parents=True)
    for file in ("h100.json", "suite/x.json", "suite/work/x.json", "../x.json"):
        history.add(folder / file, RESULTS)
    assert not (tmp_path / "history.jsonl").exists()
    first, second = map(json.loads, (folder / "history.jsonl").read_text().splitlines())
    assert (first["file"], second["file"]) == ("h100.json", "suite/x.json")
    assert first["device"] == "1 x H" and first["name"] == "some" and first["commit"] is None
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", first["date"])
    assert first["figures"]["cycle, K = 10, against 10 plain SGD steps"] == 1.01
    assert first["figures"]["images/s against the published PyTorch code, published"] == 2.0
    assert not [name for name in first["figures"] if "tuned" in name or "whole program" in name]


def test_the_history_knows_every_benchmark_that_is_kept():
    folder = survival.ROOT / "results" / "benchmarks"
    lines = [json.loads(line) for line in (folder / history.NAME).read_text().splitlines()]
    kept = {file.name for file in folder.glob("*.json") if "config" in json.loads(file.read_text())}
    assert kept <= {line["file"] for line in lines}
    for line in lines:
        assert {"file", "name", "date", "commit", "device", "figures"} == set(line)
