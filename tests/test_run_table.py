"""scripts/run_table.py: every command it prints is a run, and it runs them as a table."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import survival
import table_program
from table_program import SCRIPT, parsed

ROOT = Path(__file__).parents[1]
TINY = [
    "--config.train.epochs=1",
    "--config.train.anneal_start=0",
    "--config.train.anneal_end=1",
    "--config.late_phase.release_epoch=0",
    "--config.swa.start_epoch=1",
    "--config.data.validation_examples=1300",
]
DIGITS = f"--base={ROOT}/configs/digits_bn.py"
METHODS = ["base", "base, SWA", "late", "late, SWA", "from start", "late, all"]


program, printed = table_program.program, table_program.printed


def method(config):
    released = config.late_phase.release_epoch
    name = "base" if released < 0 else "late" if released else "from start"
    every = ", all" if config.late_phase.patterns == (".*",) else ""
    return name + every + (", SWA" if config.swa.start_epoch else "")


@pytest.mark.parametrize("table", ["cifar10", "cifar100", "cifar10_small", "digits"])
def test_main_accepts_every_training_and_each_seed_has_every_method(table, printed):
    commands = printed(table, "--seeds=2-3", "--runs=x/y", "--config.data.dir=/a b")
    runs = [parsed(command) for command in commands[:-2]]
    assert [method(config) for _, config in runs] == 2 * METHODS
    assert [config.seed for _, config in runs] == [2] * 6 + [3] * 6
    assert {config.data.dir for _, config in runs} == {"/a b"}
    assert len({config.train.epochs for _, config in runs}) == 1  # the same budget
    assert len({config.train.batch_size for _, config in runs}) == 1
    workdirs = [workdir for workdir, _ in runs]
    assert len(set(workdirs)) == 12 and all(w.startswith("x/y/") for w in workdirs)
    ensemble, comparison = commands[-2:]
    output = f"x/y/{table}_sgd_deep_ensemble/seeds2-3"
    members = [w for w in workdirs if w.startswith(f"x/y/{table}_sgd/")]
    assert ensemble[2:] == ["lpw_jax.evaluate", "--ensemble", *members, "--output", output]
    compared = comparison[3 : 3 + 13]
    assert comparison[2] == "lpw_jax.compare" and sorted(compared) == sorted([*workdirs, output])
    against = ["--against", "published"] if "small" not in table and table != "digits" else []
    assert comparison[16:] == [*against, "--out", f"x/y/{table}_comparison"]


def test_flags_reach_every_run_but_make_no_method_of_another(printed):
    commands = printed("digits", "--seeds=1", *TINY, "--config.late_phase.patterns=head/.*")
    configs = [parsed(command)[1] for command in commands[:-1]]
    assert [config.train.epochs for config in configs] == [1] * 6
    assert [config.late_phase.release_epoch for config in configs] == [-1, -1, 0, 0, 0, 0]
    assert [config.swa.start_epoch for config in configs] == [0, 1, 0, 1, 0, 0]
    patterns = [config.late_phase.patterns for config in configs]
    assert patterns == [("head/.*",)] * 5 + [(".*",)]
    assert commands[-1][2] == "lpw_jax.compare"  # one seed makes no ensemble


def test_index_and_count_are_for_arrays(printed):
    everything = printed("digits", "--seeds=2")
    assert printed("digits", "--seeds=2", "--count") == [["12"]]
    each = [printed("digits", "--seeds=2", f"--index={i}") for i in range(12)]
    assert [command for (command,) in each] == everything[:-2]


def test_pod_commands_are_those_of_the_pod_script(printed):
    commands = printed(
        "cifar10", "--seeds=2", "--pod", "--runs=gs://b/runs", "--config.train.cutout=4"
    )
    first = ["env", "WORKDIR=gs://b/runs/cifar10_sgd/seed0", "scripts/tpu_pod.sh", "resume-loop"]
    flags = ["--config=configs/cifar10_sgd.py", "--config.train.cutout=4", "--config.seed=0"]
    assert commands[0] == first + flags
    settings = [f"{name}=x" for name in ("NAME", "PROJECT", "ZONE", "BUCKET", "TYPE")]
    words = [*commands[0][:2], *settings, commands[0][2], "--print", *commands[0][3:]]
    shown = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "--workdir gs://b/runs/cifar10_sgd/seed0 --config.data.dir=gs://x/tfds" in shown
    copied = commands[13]
    assert copied[:4] == ["gcloud", "storage", "rsync", "--recursive"] and copied[-1] == "runs"
    assert commands[14][4] == "runs/cifar10_sgd/seed0"


def test_the_documented_slurm_line_runs_a_training_a_task(program, tmp_path):
    """With stand-ins for Slurm, and for the Python that would train."""
    lines = program.__doc__.partition('TABLE="')[2].partition("\n\n")[0]
    stand_ins = {
        "sbatch": 'echo "$@"\nexport SLURM_ARRAY_TASK_ID=29\nbash -c "${@: -1}"',
        "srun": '"$@"',
        "python": f'[[ $* == *--run\\ * ]] && echo "$@" && exit\n{sys.executable} "$@"',
    }
    for name, text in stand_ins.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    env = {"PATH": f"{tmp_path}:/bin:/usr/bin", "PYTHONPATH": str(ROOT)}
    line = ["bash", "-c", f'TABLE="{lines}']
    done = subprocess.run(line, cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    array, task = done.stdout.splitlines()
    assert array.startswith("--array=0-29 --gpus=1 --signal=TERM@300")
    words = "scripts/run_table.py cifar10 --seeds 5 --runs /network/runs --config.data.dir"
    assert task == f"{words}=/network/tfds --run --index 29"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["cifar11"], "invalid choice"),
        (["digits", "--seeds=0"], "must be a number of seeds, or FIRST-LAST"),
        (["digits", "--seeds=3-2"], "must be a number of seeds, or FIRST-LAST"),
        (["digits", "--seeds=1-2-3"], "must be a number of seeds, or FIRST-LAST"),
        (["digits", "--config.seed=1"], "--seeds says which"),
        (["digits", "--config.train.epochs=3"], "digits_swa: swa.start_epoch = 10"),
        (["digits", "--config.train.epoch=3"], "train.epoch: unknown field"),
        (["digits", "--seeds=1", "--index=6"], "--index = 6: must be 0 to 5"),
        (["digits", "--pod"], "must be gs://BUCKET/FOLDER with --pod"),
        (["digits", "--seed=3"], "unrecognized arguments: --seed=3"),
        (["digits", "--base=x.py"], "--base is what ablations need"),
        (["ablations"], "--base is what ablations need"),
        (["ablations", "--base=x.py", "--only=T0"], "'T0': must be one or more of num_members"),
        (["ablations", "--base=x.py"], "x.py: "),
        (["ablations", DIGITS, "--config.train.epochs=3"], "late_phase.release_epoch = 8"),
        (["ablations", DIGITS, "--config.late_phase.release_epoch=-1"], "must be >= 0 in"),
    ],
)
def test_mistakes_are_named_before_anything_runs(program, arguments, words, capsys):
    with pytest.raises(SystemExit) as end:
        program.main([*arguments, "--run"])
    assert end.value.code == 2 and words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("size", "groups"),
    [(None, ["0-6"]), (3, ["0-2", "3-5"]), (7, ["0-6"]), (8, [])],
)
def test_deep_ensembles_are_disjoint_groups_of_seeds(program, size, groups):
    digits = program.TABLES["digits"].rows[:2]
    names = tuple(row.name for row in digits)
    table = program.Table(digits, ensemble_of=names, ensemble_size=size)
    *ensembles, comparison = program.evaluations("digits", table, range(7), runs="r")
    outputs = [f"r/{name}_deep_ensemble/seeds{group}" for name in names for group in groups]
    assert [command[-1] for command in ensembles] == outputs
    assert [word for word in comparison if "deep_ensemble" in word] == outputs
    for command in ensembles:
        first, last = map(int, command[-1].rpartition("seeds")[2].split("-"))
        seeds = [int(word.rpartition("seed")[2]) for word in command[4:-2]]
        assert seeds == list(range(first, last + 1))


def shell(line):
    return ("bash", "-c", line)


@pytest.mark.parametrize(
    ("codes", "keep_going", "done", "code"),
    [
        ([0, 0, 0], False, 3, 0),
        ([0, 2, 0], False, 2, 2),
        ([2, 0, 1], True, 3, 2),
        ([0, 75, 0], True, 2, 75),
        ([1, 130, 0], True, 2, 130),
    ],
)
def test_a_failure_ends_the_table_or_is_remembered(
    program, codes, keep_going, done, code, tmp_path
):
    log = shlex.quote(str(tmp_path / "log"))
    commands = [shell(f"echo x >> {log}; exit {each}") for each in codes]
    assert program.run(commands, keep_going=keep_going) == code
    assert len((tmp_path / "log").read_text().splitlines()) == done


def test_sigterm_is_passed_on_and_nothing_more_is_started(tmp_path):
    log = tmp_path / "log"
    commands = [
        shell(f"trap 'echo asked >> {log}; exit 75' TERM; echo up; while :; do sleep 0.05; done"),
        shell(f"echo second >> {log}"),
    ]
    code = f"import sys, run_table; sys.exit(run_table.run({commands!r}, keep_going=True))"
    table = subprocess.Popen(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": f"{SCRIPT.parent}:{ROOT}", "PATH": "/bin:/usr/bin"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with table:
        assert any(line == "up\n" for line in table.stdout)
        table.terminate()
        assert table.wait(30) == 75
    assert log.read_text() == "asked\n"


@pytest.mark.slow
def test_a_small_table_is_run_and_run_again_only_shown(program, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("XLA_FLAGS", survival.QUICK_COMPILER)  # and one device
    one = program.Table(program.TABLES["digits"].rows[:1], ensemble_of=("digits_sgd",))
    runs = str(tmp_path / "runs")
    commands = program.trainings(one, range(2), runs=runs, flags=TINY)
    commands += program.evaluations("digits", one, range(2), runs=runs)[:1]
    assert program.run(commands) == 0
    found = json.loads(
        (tmp_path / "runs/digits_sgd_deep_ensemble/seeds0-1/results.json").read_text()
    )
    assert found["ensemble_of"]["seeds"] == [0, 1] and len(found["views"]["members"]) == 2
    capfd.readouterr()
    arguments = ["digits", "--seeds=2", "--runs", runs, "--run", "--index=0", *TINY]
    assert program.main(arguments) == 0
    assert "holds this run, finished" in capfd.readouterr().out
