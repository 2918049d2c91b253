"""An installed wheel needs no clone: every program in a folder with nothing in it."""

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("pyproject.toml", "setup.py", "README.md", "LICENSE", "lpw_jax", "configs", "scripts")
SHORT = ("--config.train.epochs=1", "--config.late_phase.release_epoch=0", "--config.seed=3")
RUN = os.path.join("runs", "digits_bn", "seed3")


def done(*command, cwd, **environment):
    """Standard output of a process that must end well and know nothing of the clone."""
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    process = subprocess.run(
        command, cwd=cwd, env=inherited | environment, capture_output=True, text=True, timeout=600
    )
    assert process.returncode == 0, f"{command}: {process.stdout}\n{process.stderr}"
    return process.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The wheel, of a copy: setuptools leaves what it built in the folder that it builds."""
    copy = tmp_path_factory.mktemp("sources")
    for name in SOURCES:
        place = ROOT / name
        (shutil.copytree if place.is_dir() else shutil.copy)(place, copy / name)
    pip = (sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-index", "--no-build-isolation")
    done(*pip, "--wheel-dir", "dist", ".", cwd=copy)
    (wheel,) = (copy / "dist").glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def lpw(built, tmp_path_factory):
    """Runs the installed command in a folder that is empty at first."""
    place = tmp_path_factory.mktemp("installed")
    venv.create(place / "venv")
    python = place / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
    pip = (sys.executable, "-m", "pip", "--python", str(python), "install")
    done(*pip, "--no-deps", "--no-index", str(built), cwd=place)
    (site,) = (place / "venv").rglob("site-packages")
    # Dependencies are those of this environment, but for what was installed in it as editable.
    there = [place for place in sys.path if Path(place).name == "site-packages"]
    (site / "dependencies.pth").write_text("\n".join(there))
    empty = place / "empty"
    empty.mkdir()
    return lambda *arguments: done(str(python.with_name("lpw")), *arguments, cwd=empty), empty


def test_the_wheel_is_one_package_with_all_modules_and_configs(built, tmp_path):
    shutil.unpack_archive(built, tmp_path, "zip")
    assert {path.name for path in tmp_path.iterdir() if path.suffix != ".dist-info"} == {"lpw_jax"}
    for here, there in (("lpw_jax", "lpw_jax"), ("configs", "lpw_jax/configs")):
        ours = {path.relative_to(ROOT / here) for path in (ROOT / here).rglob("*.*")}
        ours = {path for path in ours if "__pycache__" not in path.parts}
        assert not [path for path in ours if not (tmp_path / there / path).is_file()]


def test_every_program_works_in_an_empty_folder(lpw):
    run, folder = lpw
    assert run("--version").startswith("lpw_jax 0.")
    assert "lpw train" in run("train", "--help")
    run("train", "--config", "digits_bn", *SHORT)
    assert {"results.json", "report.html", "config.json"} <= set(os.listdir(folder / RUN))
    run("evaluate", "--workdir", RUN)
    assert "digits_bn" in run("compare", RUN, "--out", "comparison")
    (folder / RUN / "report.html").unlink()
    run("report", "--workdir", RUN)
    assert (folder / RUN / "report.html").exists()
    run("export", "--workdir", RUN, "--output", "weights.safetensors")
    run("benchmark", "--config", "digits_bn", "--parts", "matmul", "--matmul_size", "64")
    assert (folder / "runs" / "benchmarks" / "digits_bn.json").exists()
    run("batch", "--config", "digits_bn", "--output", "batch.png", "--steps", "1")
    assert (folder / "batch.png").exists()
    assert len(run("table", "digits", "--seeds", "1").splitlines()) == 7
