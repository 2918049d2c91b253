"""The README's own training loop, run as it stands there."""

import re
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

README = (Path(__file__).parents[1] / "README.md").read_text()


class Network(nn.Module):
    """With batch norm and dropout, which are in training mode when they can be."""

    @nn.compact
    def __call__(self, x):
        trains = self.is_mutable_collection("batch_stats")
        x = nn.BatchNorm(use_running_average=not trains, name="bn")(nn.Dense(8, name="body")(x))
        x = nn.Dropout(0.1, deterministic=not self.has_rng("dropout"))(nn.relu(x))
        return nn.Dense(3, name="head")(x)


def test_the_loop_for_ones_own_network_ends_in_one_network():
    (block,) = re.findall(r"```python\n(import jax, lpw_jax, optax\n.*?)```", README, re.DOTALL)
    model, rng = Network(), np.random.default_rng(0)
    variables = model.init(jax.random.key(0), jnp.zeros((2, 5)))

    def minibatches(num_members):
        for i in range(3):
            x = rng.standard_normal((num_members, 16, 5), dtype=np.float32)
            batch = {"x": x, "y": rng.integers(0, 3, (num_members, 16))}
            yield batch, jax.random.key(i)

    found = {
        "model": model,
        "params": variables["params"],
        "model_state": {"batch_stats": variables["batch_stats"]},
        "tied_batches": minibatches(1),
        "cycles": minibatches(10),
        "key": jax.random.key(1),
    }
    with jax.numpy_dtype_promotion("standard"):  # as a user has it
        exec(block, found)
    assert found["metrics"]["loss"].shape == (10,)
    network = {"params": found["params"], **found["model_state"]}
    assert jax.tree.map(jnp.shape, network) == jax.tree.map(jnp.shape, dict(variables))
    assert jnp.isfinite(model.apply(network, jnp.ones((2, 5)))).all()
