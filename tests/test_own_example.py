"""The folder examples/: what stands there works as it stands there."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import shared

from lpw_jax import experiment, networks
from lpw_jax.config import load_config

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A copy of examples/own_network, with its images made, as the current directory."""
    shutil.copytree(
        EXAMPLES / "own_network", tmp_path / "own", ignore=shutil.ignore_patterns("images", "runs")
    )
    monkeypatch.chdir(tmp_path / "own")
    subprocess.run([sys.executable, "make_images.py", "images"], check=True, timeout=60)
    return tmp_path / "own"


def test_examples_are_short():
    for path in EXAMPLES.rglob("*.py"):
        assert len(path.read_text().splitlines()) <= 80, path


def test_the_own_network_fits_the_own_images(folder, monkeypatch):
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    config = load_config("config.py")
    dataset = experiment.load_dataset(config)
    assert (len(dataset.train_labels), len(dataset.test_labels)) == (1_437, 360)
    assert dataset.image_shape == (8, 8, 1) and dataset.num_classes == 10
    networks.check(config, dataset)
    monkeypatch.delitem(sys.modules, "network")


@pytest.mark.slow
def test_the_own_network_is_trained_by_the_command_that_its_config_gives(folder):
    environment = os.environ | {"XLA_FLAGS": shared.FAST_PROGRAMS}  # and one device, as there
    command = [sys.executable, "-m", "lpw_jax.main", "--config", "config.py"]
    subprocess.run(command, check=True, env=environment, timeout=500)
    results = json.loads((folder / "runs" / "config" / "seed0" / "results.json").read_text())
    assert results["views"]["collapsed"]["accuracy"] > 0.9
