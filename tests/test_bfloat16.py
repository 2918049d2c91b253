"""bfloat16 arithmetic changes a training within its precision, and leaves the state in float32."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_net
from jax import jit
from short_run import DIGITS

from lpw_jax import main
from lpw_jax.devices import parallel
from lpw_jax.models.densenet import DenseNet
from lpw_jax.models.wide_resnet import WideResNet
from lpw_jax.training.schedules import Rates

PATTERNS = ("(.*/)?bn[^/]*/(scale|bias)", "head/.*")
IMAGE = (16, 16, 3)
NETWORKS = {
    "wide_resnet": functools.partial(WideResNet, depth=10, width=1, num_classes=10),
    "densenet": functools.partial(
        DenseNet, stage_sizes=(1,), growth=8, features_in=8, bn_size=2, num_classes=10
    ),
}


def after_a_cycle(network, dtype):
    """The state before and after a cycle of K = 2 minibatches of 16, and the losses."""
    model = NETWORKS[network](dtype=dtype)
    method = tiny_net.method(model, PATTERNS, coasting="reference", member_mode="vmap")
    variables = tiny_net.random_variables(model, IMAGE)
    start = tiny_net.released(method, 2, variables=variables, sigma=0.1)
    rng = np.random.default_rng(0)
    batch = {
        "image": rng.standard_normal((2, 16, *IMAGE)).astype(dtype),
        "label": rng.integers(0, 10, (2, 16)).astype(np.int32),
    }
    rates = Rates(0.1, 5e-4, 0.1, 5e-4, 1.0)
    end, metrics = jax.device_get(jit(tiny_net.step(method))(start, batch, rates))
    return start, end, metrics["loss"]


@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS)
def test_a_cycle_agrees_with_float32_within_bfloat16s_precision(network):
    start, exact, exact_loss = after_a_cycle(network, jnp.float32)
    _, rounded, loss = after_a_cycle(network, jnp.bfloat16)
    kept = (rounded.replace(step=None, coasting=None), loss)
    assert {leaf.dtype for leaf in jax.tree.leaves(kept)} == {jnp.dtype("float32")}
    np.testing.assert_allclose(loss, exact_loss, rtol=0.02)
    for name in ("shared", "members"):
        before, wanted, found = (
            np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(getattr(s, name))])
            for s in (start, exact, rounded)
        )
        error = np.linalg.norm(found - wanted) / np.linalg.norm(wanted - before)
        assert 0 < error < 0.2, name


@pytest.mark.slow
@pytest.mark.usefixtures("tiny_network")
def test_a_short_real_run_learns(tmp_path, monkeypatch):
    one = jax.devices()[:1]  # compiles soonest
    monkeypatch.setattr(parallel, "found", lambda: one)
    options = [
        "train.compute_dtype=bfloat16",
        "train.crop_padding=0",  # compiles sooner
        "train.epochs=5",
        "train.anneal_start=1",
        "train.anneal_end=4",
        "late_phase.release_epoch=4",
        "late_phase.num_members=2",
    ]
    flags = [f"--config.{option}" for option in options]
    assert main.main(["--config", DIGITS, "--workdir", str(tmp_path / "run"), *flags]) == 0
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["views"]["collapsed"]["accuracy"] > 0.9
    assert results["views"]["ensemble"]["nll"] < 0.4
