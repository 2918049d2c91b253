"""Two processes, each of which reads its own images from disk, make the run of one."""

import json
import socket

import jax
import numpy as np
import pytest
import survival
from imagenet_files import make_tars

import lpw_jax
from lpw_jax.data import imagenet_prepare

pytestmark = pytest.mark.slow
CONFIG = "imagenet_resnet50.py:sample"
NUM_VAL = 11  # which no batch divides


@pytest.fixture(scope="module")
def flags(tmp_path_factory):
    folder = tmp_path_factory.mktemp("imagenet")
    make_tars(folder / "tars", num_classes=5, per_class=8, num_val=NUM_VAL)
    imagenet_prepare.prepare(str(folder / "tfds"), str(folder / "tars"))
    fields = {
        "data.dir": folder / "tfds",
        "data.image_size": 32,
        "data.resize": 40,
        "train.batch_size": 8,
        "train.compute_dtype": "float64",
        "late_phase.member_mode": "vmap",  # compiles soonest
        "evaluate.batch_size": 4,
    }
    return [f"--config.{name}={value}" for name, value in fields.items()]


def test_two_processes_make_the_run_of_one(flags, tmp_path):
    """Minibatches that hosts share, by shard_map, against members on devices of their own."""
    alone = survival.start_tiny(
        tmp_path / "alone",
        flags=[*flags, "--config.parallel.layout=members"],
        config=CONFIG,
        devices=2,
    )
    assert alone.wait() == 0, alone.errors
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    joining = ["--coordinator", f"127.0.0.1:{port}", "--num_processes", "2", "--process_id"]
    sharing = ["--config.parallel.layout=data", "--config.parallel.backend=shard_map"]
    both = [
        survival.start_tiny(
            tmp_path / "both",
            flags=[*flags, *sharing, *joining, str(i)],
            config=CONFIG,
            devices=1,
        )
        for i in range(2)
    ]
    assert [program.wait() for program in both] == [0, 0], [program.errors for program in both]
    assert "members: vmap, layout: data" in both[0].output

    def assert_agree(ours, theirs):
        assert ours.dtype == np.float64 and len(ours) == len(theirs)
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)

    weights = [lpw_jax.load_weights(run.workdir) for run in (both[0], alone)]
    jax.tree.map(assert_agree, *weights)
    ours, theirs = (np.load(run.workdir / "predictions" / "test.npz") for run in (both[0], alone))
    assert sorted(ours["label"]) == sorted(theirs["label"]) and len(ours["label"]) == NUM_VAL
    np.testing.assert_array_equal(ours["label"], theirs["label"])
    for view in ("collapsed", "ensemble"):
        assert_agree(ours[view], theirs[view])
    epochs = [
        [json.loads(line) for line in (run.workdir / "metrics.jsonl").read_text().splitlines()]
        for run in (both[0], alone)
    ]
    for epoch, expected in zip(*epochs, strict=True):
        assert_agree(np.array(epoch["member_loss"]), np.array(expected["member_loss"]))
        found = [e["evaluation"]["collapsed"]["accuracy"] for e in (epoch, expected)]
        assert found[0] == found[1]
