"""An LSTM over time (Hochreiter and Schmidhuber, 1997) with gradients that are written out.

T steps, B sequences, H units. Inside the loops over time only the products with the recurrent
weights are left: its gradient is one product of all steps after the loop, where JAX's own would add
up a [H, 4H] matrix in every step.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

Factors = tuple[jax.Array, jax.Array] | None  # u [H] and v [4H]
State = tuple[jax.Array, jax.Array]  # hidden and cell, [B, H]


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def lstm(
    inputs: jax.Array, start: State, weight: jax.Array, factors: Factors, dtype: Any
) -> tuple[jax.Array, State]:
    """Every step's hidden state [T, B, H], and the state after the last.

    With gates i, f, g, o of z = inputs[t] + h W, or inputs[t] + ((h * u) W) * v with factors, a
    step makes c = sigmoid(f) c + sigmoid(i) tanh(g) and h = sigmoid(o) tanh(c).

    Args:
      inputs: [T, B, 4H], what the inputs and the bias give to the gates.
      start: the state before the first step, of the type of `inputs`.
      weight: W [H, 4H].
      factors: of rank one, or None.
      dtype: of the products; all else has the type of `inputs`.
    """
    end, (hidden, _, _) = _steps(inputs, start, weight, factors, dtype)
    return hidden, end


def _steps(inputs, start, weight, factors, dtype):
    weight = weight.astype(dtype)

    def step(state, z):
        hidden, cell = state
        product = _scaled(hidden, factors, 0).astype(dtype) @ weight
        z = z + _scaled(product.astype(z.dtype), factors, 1)
        i, f, g, o = jnp.split(z, 4, axis=-1)
        i, f, g, o = jax.nn.sigmoid(i), jax.nn.sigmoid(f), jnp.tanh(g), jax.nn.sigmoid(o)
        cell = f * cell + i * g
        hidden = o * jnp.tanh(cell)
        return (hidden, cell), (hidden, cell, jnp.concatenate([i, f, g, o], axis=-1))

    return jax.lax.scan(step, start, inputs)


def _forward(inputs, start, weight, factors, dtype):
    end, kept = _steps(inputs, start, weight, factors, dtype)
    return (kept[0], end), (start, weight, factors, kept)


def _backward(dtype, kept, gradients):
    start, weight, factors, (hidden, cell, gates) = kept
    of_hidden, of_end = gradients
    transposed = weight.astype(dtype).T
    cell_before = jnp.concatenate([start[1][None], cell[:-1]])

    def step(later, now):
        of_hidden, of_cell = later
        seen, cell, cell_before, gates = now
        i, f, g, o = jnp.split(gates, 4, axis=-1)
        of_hidden, squashed = of_hidden + seen, jnp.tanh(cell)
        of_cell = of_cell + of_hidden * o * (1 - squashed * squashed)
        of_z = jnp.concatenate(
            [
                of_cell * g * i * (1 - i),
                of_cell * cell_before * f * (1 - f),
                of_cell * i * (1 - g * g),
                of_hidden * squashed * o * (1 - o),
            ],
            axis=-1,
        )
        product = _scaled(of_z, factors, 1).astype(dtype) @ transposed
        before = _scaled(product.astype(of_z.dtype), factors, 0)
        return (before, of_cell * f), of_z

    of_start, of_inputs = jax.lax.scan(
        step, of_end, (of_hidden, cell, cell_before, gates), reverse=True
    )
    hidden_before = jnp.concatenate([start[0][None], hidden[:-1]])
    # Of W * (u v^T), from which those of W, u and v follow.
    of_effective = jnp.einsum("tbi,tbo->io", hidden_before.astype(dtype), of_inputs.astype(dtype))
    of_effective = of_effective.astype(weight.dtype)
    if factors is None:
        return of_inputs, of_start, of_effective, None
    u, v = factors[0][:, None], factors[1][None]
    of_u, of_v = (of_effective * weight * v).sum(1), (of_effective * weight * u).sum(0)
    return of_inputs, of_start, of_effective * (u * v), (of_u, of_v)


lstm.defvjp(_forward, _backward)


def _scaled(x, factors, which):
    return x if factors is None else x * factors[which].astype(x.dtype)[None]


@jax.custom_vjp
def rows(table: jax.Array, numbers: jax.Array) -> jax.Array:
    """Rows [..., D] of `table` [N, D]; zeros for a negative number.

    Its gradient is one product where additions to rows would come in any order, and give other bits
    in every run; on CPUs, which add one row after the other, that is faster.
    """
    return jnp.where(numbers[..., None] >= 0, table[numbers], jnp.zeros((), table.dtype))


def _rows_forward(table, numbers):
    return rows(table, numbers), (numbers, table.shape[0])


def _rows_backward(kept, gradient):
    numbers, count = kept
    if jax.default_backend() == "cpu":
        table = jnp.zeros((count, gradient.shape[-1]), gradient.dtype)
        return table.at[jnp.where(numbers < 0, count, numbers)].add(gradient, mode="drop"), None
    chosen = jax.nn.one_hot(numbers.reshape(-1), count, dtype=gradient.dtype)
    return chosen.T @ gradient.reshape(-1, gradient.shape[-1]), None


rows.defvjp(_rows_forward, _rows_backward)
