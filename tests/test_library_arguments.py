"""Every public function names the argument that it cannot take, what it must be, and what came."""

import inspect

import jax
import numpy as np
import optax
import pytest

import lpw_jax

METHOD = lpw_jax.LatePhase(
    lambda params, model_state, batch, key: (batch.mean(), (model_state, {})),
    lpw_jax.copies("head/.*"),
    shared_optimizer=optax.sgd(0.1),
    member_optimizer=optax.sgd(0.1),
)
PARAMS = {"head": {"kernel": np.ones((3, 2), np.float32)}, "body": np.ones(3, np.float32)}
BATCH = np.zeros((1, 2, 3), np.float32)
AVERAGE = lpw_jax.Average(np.int32(0), None)

# Of a value in the place of the state.
TAKE_STATES = {
    "release": lambda state: METHOD.release(state, num_members=2),
    "step": lambda state: METHOD.step(state, BATCH),
    "collapse": METHOD.collapse,
    "members": lpw_jax.members,
    "member": lambda state: lpw_jax.member(state, 0),
    "map_members": lambda state: lpw_jax.map_members(print, state),
    "select_members": lambda state: lpw_jax.select_members(state, [0]),
    "greedy_soup": lambda state: lpw_jax.greedy_soup(state, len),
    "Average.start": lpw_jax.Average.start,
    "Average.add": AVERAGE.add,
    "statistics_step": lambda state: lpw_jax.statistics_step(print)(state, BATCH, 1.0),
}
STATE = jax.eval_shape(METHOD.init, PARAMS)
TAKE_KEYS = {
    "init": lambda key: METHOD.init(PARAMS, key=key),
    "release": lambda key: METHOD.release(STATE, key, num_members=2, sigma=0.1),
    "step": lambda key: METHOD.step(STATE, BATCH, key),
    "statistics_step": lambda key: lpw_jax.statistics_step(print)(STATE, BATCH, 1.0, key),
}
NO_KEYS = {"int 0": 0, "float32 [2]": np.zeros(2, np.float32), "key<fry> [2]": "two"}
NO_LOGITS = {
    "list [[0.0, 1.0]]": [[0.0, 1.0]],
    "int32 [2, 3]": np.zeros((2, 3), np.int32),
    "float32 [3]": np.zeros(3, np.float32),
    "NoneType None": None,
}


@pytest.mark.parametrize("name", TAKE_STATES)
@pytest.mark.parametrize("got", [PARAMS, None, np.zeros((2, 3), np.float32)], ids=["a", "b", "c"])
def test_what_is_no_state(name, got):
    with pytest.raises(
        TypeError, match=rf"{name}: state: must be a lpw_jax.State.*, got "
    ) as error:
        TAKE_STATES[name](got)
    came = "float32 [2, 3]" if isinstance(got, np.ndarray) else f"{type(got).__name__} "
    assert f"got {came}" in str(error.value)


@pytest.mark.parametrize("name", TAKE_KEYS)
@pytest.mark.parametrize("got", NO_KEYS)
def test_what_is_no_key(name, got):
    key = (
        jax.eval_shape(lambda: jax.random.split(jax.random.key(0)))
        if "key" in got
        else NO_KEYS[got]
    )
    with pytest.raises(
        TypeError, match=f"{name}: key: must be one key, as jax.random.key"
    ) as error:
        TAKE_KEYS[name](key)
    assert f"got {got}" in str(error.value)


@pytest.mark.parametrize("got", NO_LOGITS)
def test_what_are_no_logits(got):
    with pytest.raises(
        TypeError, match=r"logits: must be a floating array \[K, \.\.\., C\]"
    ) as error:
        lpw_jax.ensemble(NO_LOGITS[got])
    assert f"got {got}" in str(error.value)


def test_every_public_function_that_takes_a_state_is_here():
    places = {name: getattr(lpw_jax, name) for name in dir(lpw_jax)}
    for holder in ("LatePhase", "Average"):
        places |= dict(inspect.getmembers(places[holder], inspect.isroutine))
    taking = {
        name
        for name, function in places.items()
        if inspect.isroutine(function)
        and not name.startswith("_")
        and "state" in inspect.signature(function).parameters
    }
    assert taking <= {name.rpartition(".")[2] for name in TAKE_STATES}
