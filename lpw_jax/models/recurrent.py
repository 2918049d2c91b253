"""A network of bytes: an embedding, one LSTM that carries its state on, and a linear head."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from lpw_jax.data.text import BEGIN, NUM_BYTES
from lpw_jax.models.lstm import Factors, lstm, rows


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Carried:
    """The LSTM's state, `hidden` and `cell`, after the last byte that each sequence had: [B, H].

    It is the only model state of this network, and no part of what is trained: a run's weights, and
    what they are evaluated with, are without it.
    """

    hidden: jax.Array | None
    cell: jax.Array | None


def without_carried(model_state: Any) -> Any:
    """A network's model state with nothing in the places that a `Carried` has."""

    def emptied(x):
        return Carried(None, None) if isinstance(x, Carried) else x

    return jax.tree.map(emptied, model_state, is_leaf=lambda x: isinstance(x, Carried))


class Recurrent(nn.Module):
    """The recurrent weights of an `lstm`. Takes factors of rank one, as `lpw_jax.linen` gives them.

    Attributes:
      dtype, param_dtype: of products, and of the kernel.
    """

    takes_factors = True
    dtype: Any
    param_dtype: Any

    @nn.compact
    def __call__(
        self, inputs: jax.Array, start: tuple[jax.Array, jax.Array], *, factors: Factors = None
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        """As `lstm`: inputs [T, B, 4H] to hidden states [T, B, H] and the last state."""
        units = inputs.shape[-1] // 4
        kernel = self.param("kernel", uniform(units), (units, 4 * units), self.param_dtype)
        return lstm(inputs, start, kernel, factors, self.dtype)


class Layer(nn.Module):
    """An LSTM of bytes: `embedding`, `inputs/kernel` [E, 4H], `recurrent/kernel`, `bias` [4H].

    Attributes:
      units, embedding: H and E.
      dtype, param_dtype: as in `Recurrent`.
    """

    units: int
    embedding: int
    dtype: Any
    param_dtype: Any

    @nn.compact
    def __call__(self, text: jax.Array, start: Any) -> tuple[jax.Array, Any]:
        """Bytes [B, T] from a state to hidden states [T, B, H] and the last state."""
        types, init = dict(dtype=self.dtype, param_dtype=self.param_dtype), uniform(self.units)
        embed = nn.Embed(NUM_BYTES, self.embedding, param_dtype=self.param_dtype, name="embedding")
        project = nn.Dense(4 * self.units, use_bias=False, kernel_init=init, name="inputs", **types)
        bias = self.param("bias", init, (4 * self.units,), self.param_dtype)
        # There are fewer bytes than places in a minibatch.
        table = project(embed.embedding).astype(self.param_dtype)
        begins = (text[:, 0] == BEGIN)[:, None]
        start = jax.tree.map(lambda x: jnp.where(begins, jnp.zeros_like(x), x), start)
        inputs = rows(table, text.T) + bias[None, None]
        return Recurrent(name="recurrent", **types)(inputs, start)


class LSTM(nn.Module):
    """Predicts every next byte. In training it goes on where the last minibatch ended.

    The state is model state, `carry`, of every sequence of the whole minibatch: devices that share
    one take their own sequences of it and give all of them back.

    Attributes:
      num_classes: 256.
      width: H, units.
      embedding: E, size of a byte's embedding.
      batch_size: sequences whose states are carried.
      context: in evaluation, bytes at the start of each sequence that are read, not predicted from.
      axis_name: device axis over which minibatches are shared, or None.
      dtype: of products. States and logits are float32 at least.
    """

    num_classes: int
    width: int
    embedding: int
    batch_size: int
    context: int = 0
    axis_name: str | None = None
    dtype: Any = jnp.float32

    def setup(self):
        wide = np.promote_types(self.dtype, np.float32)
        types = dict(dtype=self.dtype, param_dtype=wide)
        self.lstm = Layer(self.width, self.embedding, **types)
        init = uniform(self.width)
        self.head = nn.Dense(self.num_classes, kernel_init=init, bias_init=init, **types)
        if self.is_mutable_collection("batch_stats"):
            self.carry = self.variable(
                "batch_stats", "carry", lambda: Carried(*self.zeros(self.batch_size))
            )

    def zeros(self, count: int) -> tuple[jax.Array, jax.Array]:
        """The state of so many sequences that begin."""
        wide = np.promote_types(self.dtype, np.float32)
        return (jnp.zeros((count, self.width), wide), jnp.zeros((count, self.width), wide))

    def __call__(self, text: jax.Array, *, train: bool = False) -> jax.Array:
        """Logits of each next byte, [B, T, 256], of bytes [B, T]; `BEGIN` may be the first.

        In evaluation the text is [B, context + T], and `BEGIN` may stand for the whole context and
        the first byte after it.
        """
        text = text.astype(jnp.int32)
        if train:
            return self._train(text)
        state = self.zeros(len(text))
        if self.context and text.shape[1] > self.context:
            _, state = self.lstm(text[:, : self.context], state)
            text = text[:, self.context :]
        return self.advance(text, state)[0]

    def advance(self, text: jax.Array, state: Any) -> tuple[jax.Array, Any]:
        """Logits [B, T, 256] of bytes [B, T] from a state, and the state after them."""
        hidden, state = self.lstm(text, state)
        logits = self.head(hidden).astype(np.promote_types(self.dtype, np.float32))
        return jnp.swapaxes(logits, 0, 1), state

    def _train(self, text):
        carried, count = self.carry.value, len(text)
        whole = (carried.hidden, carried.cell)
        if self.axis_name is None:
            logits, whole = self.advance(text, whole)
        else:
            first = jax.lax.axis_index(self.axis_name) * count
            own = jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, first, count), whole)
            logits, own = self.advance(text, own)
            whole = jax.tree.map(lambda x: jax.lax.all_gather(x, self.axis_name, tiled=True), own)
        # Truncated: what went before is not trained through.
        self.carry.value = Carried(*jax.lax.stop_gradient(whole))
        return logits


def uniform(units: int) -> Any:
    """PyTorch's rule for recurrent layers: uniform between -1 / sqrt(H) and 1 / sqrt(H)."""

    def draw(key, shape, dtype):
        return jax.random.uniform(key, shape, dtype, -(units**-0.5), units**-0.5)

    return draw
