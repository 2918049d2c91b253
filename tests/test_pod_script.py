"""scripts/tpu_pod.sh: the commands it prints, and all that it does with a cloud on this machine."""

import os
import re
import shutil
import subprocess
import time

import pod_stand_in
import pytest
from pod_stand_in import SCRIPT, pod, printed

WHERE = "--zone=us-central2-b --project=proj --quiet"
SSH_ALL = f"gcloud compute tpus tpu-vm ssh lpw {WHERE} --worker=all"
RUN = ["run", "--config=configs/digits_bn.py"]
RESUME_LOOP = ["resume-loop", *RUN[1:]]


@pytest.fixture
def cloud(tmp_path):
    """A clone with the script and a commit, and a cloud beside it; returns (run, folder)."""
    if not (shutil.which("flock") and shutil.which("setsid")):
        pytest.skip("the workers are Linux machines: needs flock and setsid")
    folder, clone = tmp_path / "cloud", tmp_path / "clone"
    pod_stand_in.install(folder)
    (clone / "scripts").mkdir(parents=True)
    shutil.copy(SCRIPT, clone / "scripts")
    git = ["git", "-C", clone, "-c", "user.name=x", "-c", "user.email=x@x.x"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "x"]):
        subprocess.run([*git, *command], check=True)
    env = {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "CLOUD": str(folder)}
    env |= {"TMPDIR": str(tmp_path), "POLL": "0.1"}
    ends(folder, "0")

    def run(*words, **settings):
        return pod(*words, env=env, script=clone / "scripts" / "tpu_pod.sh", **settings)

    yield run, folder
    for start in folder.glob("[01]/lpw_jax_run/pid"):
        subprocess.run(["kill", "--", f"-{start.read_text().strip()}"], stderr=subprocess.DEVNULL)


def ends(folder, *codes, worker="01"):
    for each in worker:
        (folder / f"codes.{each}").write_text("\n".join(codes) + "\n")


def calls_of(folder):
    return (folder / "calls").read_text()


def until(happened, seconds=20):
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def test_the_script_is_bash():
    assert subprocess.run(["bash", "-n", SCRIPT]).returncode == 0


@pytest.mark.parametrize(
    "words, settings, expected",
    [
        (
            ["create"],
            {},
            [
                "gcloud storage buckets create gs://bkt --project=proj --location=us-central2 "
                "--uniform-bucket-level-access",
                f"gcloud compute tpus tpu-vm create lpw {WHERE} --accelerator-type=v4-32 "
                "--version=tpu-ubuntu2204-base",
            ],
        ),
        (
            ["create"],
            {"QUEUED": "1", "SPOT": "1", "TYPE": "v6e-16"},
            [
                f"gcloud compute tpus queued-resources create lpw {WHERE} "
                "--accelerator-type=v6e-16 --spot --node-id=lpw --runtime-version=v2-alpha-tpuv6e",
                f"gcloud compute tpus queued-resources list {WHERE}",
            ],
        ),
        (
            ["install"],
            {},
            [
                "bundle create --quiet",
                f"lpw:lpw_jax.bundle {WHERE} --worker=all",
                SSH_ALL,
                "uv venv --quiet --python 3.12",
                ".[tpu,gcs]",
            ],
        ),
        (
            ["run", "--config=configs/cifar10_bn.py", "--config.seed=1"],
            {},
            [
                SSH_ALL,
                "nohup setsid",
                "EPATH_USE_TF=false .venv/bin/python -m lpw_jax.main "
                "--config=configs/cifar10_bn.py --workdir gs://bkt/runs/lpw "
                "--config.data.dir=gs://bkt/tfds --distributed --config.seed=1",
                "run.log",
            ],
        ),
        (
            ["resume-loop", "--config=c.py"],
            {"QUEUED": "1", "WORKDIR": "gs://b/w", "DATA_DIR": "/d"},
            [
                f"gcloud compute tpus tpu-vm list {WHERE}",
                f"gcloud compute tpus queued-resources delete lpw {WHERE} --force",
                "gcloud compute tpus queued-resources create lpw",
                "--config=c.py --workdir gs://b/w --config.data.dir=/d --distributed",
            ],
        ),
        (["log"], {}, [f"gcloud compute tpus tpu-vm ssh lpw {WHERE} --worker=0"]),
        (["stop"], {}, [SSH_ALL, "kill -TERM"]),
        (
            ["collect"],
            {"DEST": "out/x"},
            [
                "gcloud storage rsync --recursive gs://bkt/runs/lpw out/x",
                SSH_ALL,
                "--output-directory=out/x/logs",
            ],
        ),
        (["delete"], {}, [f"gcloud compute tpus tpu-vm delete lpw {WHERE}"]),
        (["delete"], {"QUEUED": "1"}, [f"queued-resources delete lpw {WHERE} --force"]),
    ],
)
def test_print_shows_complete_commands_and_needs_no_gcloud(words, settings, expected, tmp_path):
    for tool in ("bash", "git", "cat", "tr", "awk", "dirname"):
        (tmp_path / tool).symlink_to(shutil.which(tool))
    text = printed(*words, env={"PATH": str(tmp_path)}, **settings)
    assert [part for part in expected if part not in text] == []


@pytest.mark.parametrize(
    "words, settings, named",
    [
        (["run"], {}, "--config"),
        (["run", "--config.seed=1"], {}, "--config="),
        (["create"], {"TYPE": ""}, "TYPE"),
        (["delete"], {"ZONE": ""}, "ZONE"),
        (["fly"], {}, "fly"),
        (["stop", "--worker=3"], {}, "--worker=3"),
        (["delete"], {"SPOT": "yes"}, "SPOT"),
        (["delete"], {"BUCKET": "gs://bkt"}, "BUCKET"),
    ],
)
def test_a_mistake_is_named_and_exits_with_2(words, settings, named):
    done = pod("--print", *words, **settings)
    assert done.returncode == 2 and named in done.stderr and not done.stdout


def test_create_install_and_run_start_the_same_command_on_every_worker(cloud):
    run, folder = cloud
    assert run("create").returncode == 0
    installed = run("install")
    assert installed.returncode == 0, installed.stderr
    odd = ["--config.late_phase.patterns='.*/bn \"[^/]*\"/(scale|bias)'", "--dry_run", "$HOME", ""]
    done = run(*RUN, *odd)
    assert done.returncode == 0, done.stderr
    for worker in "01":
        arguments = (folder / f"arguments.{worker}").read_text().split("\n")[:-1]
        assert arguments[:3] == ["-m", "lpw_jax.main", RUN[1]] and arguments[-4:] == odd


def test_run_ends_with_the_exit_code_of_the_run(cloud):
    run, folder = cloud
    run("create"), run("install")
    for codes, expected in ((("75", "134"), 75), (("2", "2"), 2), (("0", "1"), 1), (("0", "0"), 0)):
        for worker, code in zip("01", codes, strict=True):
            (folder / f"starts.{worker}").unlink(missing_ok=True)
            ends(folder, code, worker=worker)
        assert run(*RUN).returncode == expected


def test_run_before_install_says_so(cloud):
    run, _ = cloud
    run("create")
    done = run(*RUN)
    assert done.returncode == 2 and "install has not been run" in done.stderr


def test_a_run_outlives_its_watcher_and_stop_ends_it_with_75(cloud):
    run, folder = cloud
    run("create"), run("install")
    (folder / "hold").touch()
    watcher = run(*RUN, wait=False)
    until(lambda: (folder / "starts.1").exists() and (folder / "starts.0").exists())
    watcher.kill()
    watcher.communicate()
    assert "a run is going on" in run("install").stderr
    watcher = run(*RUN, wait=False)
    time.sleep(0.5)
    assert run("stop").returncode == 0
    assert watcher.communicate(timeout=20) and watcher.returncode == 75
    assert "already running" in watcher.communicate()[0]
    assert (folder / "starts.0").read_text() == "x\n"


def test_resume_loop_runs_again_after_75_and_not_after_other_codes(cloud):
    run, folder = cloud
    run("create"), run("install")
    ends(folder, "75", "75", "1", "0")
    done = run(*RESUME_LOOP)
    assert done.returncode == 1
    assert (folder / "starts.1").read_text() == 3 * "x\n"
    assert "tpu-vm delete" not in calls_of(folder)


def test_resume_loop_makes_and_installs_the_tpu_again_when_it_is_preempted(cloud):
    run, folder = cloud
    ends(folder, "137", "0")
    (folder / "preempt").touch()  # the first program to start takes the TPU with it
    done = run(*RESUME_LOOP, "--config.seed=3")
    assert done.returncode == 0, done.stderr
    calls = re.findall(r"gcloud compute tpus tpu-vm (create|scp|delete)", calls_of(folder))
    assert calls == ["create", "scp", "delete", "create", "scp"]
    assert (folder / "arguments.0").read_text().endswith("--config.seed=3\n")


def test_a_worker_that_restarted_counts_as_preempted(cloud):
    run, folder = cloud
    run("create"), run("install")
    (folder / "hold").touch()
    watcher = run(*RUN, wait=False)
    until(lambda: (folder / "1/lpw_jax_run/pid").exists() and (folder / "starts.1").exists())
    subprocess.run(
        ["kill", "-KILL", "--", "-" + (folder / "1/lpw_jax_run/pid").read_text().strip()]
    )
    (folder / "hold").unlink()
    assert watcher.communicate(timeout=20) and watcher.returncode == 75


def test_install_refuses_changes_that_no_commit_holds(cloud):
    run, folder = cloud
    run("create")
    with (folder.parent / "clone/scripts/tpu_pod.sh").open("a") as script:
        script.write("\n")
    done = run("install")
    assert done.returncode == 2 and "commit" in done.stderr and "scp" not in calls_of(folder)
