"""Text that a network of bytes writes."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lpw_jax.data.text import BEGIN
from lpw_jax.models.recurrent import LSTM

LENGTH = 1000  # bytes
SEED = 0


def sample(model: LSTM, params: Any, *, num_bytes: int = LENGTH, seed: int = SEED) -> bytes:
    """Bytes drawn one after the other from the network's own predictions, at temperature 1.

    A function of the weights and the seed. The network has read nothing before.

    Args:
      model: in evaluation.
      params: of one network.
    """

    def write(params, key):
        def step(carry, key):
            text, state = carry
            logits, state = model.apply({"params": params}, text, state, method="advance")
            drawn = jax.random.categorical(key, logits[:, -1]).astype(jnp.int32)
            return (drawn[:, None], state), drawn[0]

        start = jnp.full((1, 1), BEGIN, jnp.int32), model.zeros(1)
        return jax.lax.scan(step, start, jax.random.split(key, num_bytes))[1]

    key = jax.random.key(seed, impl="threefry2x32")
    return np.asarray(jax.jit(write)(params, key)).astype(np.uint8).tobytes()
