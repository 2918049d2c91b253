"""bfloat16 arithmetic changes a training within its precision, and leaves the state in float32."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from short_run import DIGITS

from lpw_jax import main, models
from lpw_jax.method import optimizers, schedules, state
from lpw_jax.method import step as steps

PATTERNS = ("(.*/)?bn[^/]*/(scale|bias)", "head/.*")


def after_a_cycle(dtype, member_mode):
    """The state before and after a cycle of K = 2 minibatches of 16, and the losses."""
    model = models.create("wide_resnet", depth=10, width=1, num_classes=10, dtype=dtype)
    tx = optimizers.sgd(momentum=0.9, nesterov=True)
    tied = state.init(jax.random.key(0), model, image_shape=(32, 32, 3), patterns=PATTERNS, tx=tx)
    start = state.release(tied, jax.random.key(1), num_members=2, sigma=0.1, tx=tx)
    rng = np.random.default_rng(0)
    batch = {
        "image": jnp.asarray(rng.standard_normal((2, 16, 32, 32, 3)), dtype),
        "label": jnp.asarray(rng.integers(0, 10, (2, 16)), jnp.int32),
    }
    step = steps.make_train_step(model=model, tx=tx, coasting="reference", member_mode=member_mode)
    rates = schedules.Rates(0.1, 5e-4, 0.1, 5e-4, 1.0)
    end, metrics = jax.jit(step)(start, batch, rates)
    return start, end, metrics["loss"]


@pytest.mark.parametrize("member_mode", ["vmap", "unroll"])
def test_a_cycle_agrees_with_float32_within_bfloat16s_precision(member_mode):
    start, exact, exact_loss = after_a_cycle(jnp.float32, member_mode)
    _, rounded, loss = after_a_cycle(jnp.bfloat16, member_mode)
    kept = (rounded.shared, rounded.late_phase, rounded.batch_stats, rounded.opt_shared, loss)
    assert {leaf.dtype for leaf in jax.tree.leaves(kept)} == {jnp.dtype("float32")}
    np.testing.assert_allclose(loss, exact_loss, rtol=0.02)
    for name in ("shared", "late_phase"):
        before, wanted, found = (
            np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(getattr(s, name))])
            for s in (start, exact, rounded)
        )
        error = np.linalg.norm(found - wanted) / np.linalg.norm(wanted - before)
        assert 0 < error < 0.2, name


def test_a_short_real_run_learns(tmp_path):
    options = [
        "train.compute_dtype=bfloat16",
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
