"""A training on eight devices equals that on one, however it is divided among them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import jit
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import lpw_jax
from lpw_jax import State

NUM_MEMBERS, B, INPUTS, WIDTH = 4, 8, 3, 2
LAYERS = ("inner", "outer")
WAYS = {"batch": P(None, "batch"), "members": P("members"), "both": P("members", "batch")}
# Model state: of shared or of late-phase layers, told as `Observed` or changed by the layer itself.
STATES = {"shared_observed": (False, True), "own_observed": (True, True), "own": (True, False)}


def weights():
    random = np.random.default_rng(0)

    def layer(inputs):
        return {
            "kernel": random.standard_normal((inputs, WIDTH)),
            "scale": random.uniform(0.5, 1.5, WIDTH),
        }

    return {"inner": layer(INPUTS), "outer": layer(WIDTH)}


def statistics():
    return {name: {"mean": np.zeros(WIDTH)} for name in LAYERS}


def batch(seed):
    random = np.random.default_rng(seed)
    shape = NUM_MEMBERS, B
    return random.standard_normal((*shape, INPUTS)), random.standard_normal((*shape, WIDTH))


def method_of(observed, batch_axis=None, member_axis=None, **settings):
    """Centred layers; the mean that is subtracted is that of the whole minibatch."""

    def loss_fn(params, model_state, batch, key):
        h, new = batch[0], {}
        for name in LAYERS:
            h = h @ params[name]["kernel"]
            mean = h.mean(0)
            mean = jax.lax.pmean(mean, batch_axis) if batch_axis else mean
            seen = lpw_jax.Observed(mean, 0.1)
            new[name] = {"mean": seen if observed else seen.follow(model_state[name]["mean"])}
            scale = jnp.broadcast_to(params[name]["scale"], h.shape)
            h = jnp.tanh((h - jnp.broadcast_to(mean, h.shape)) * scale)
        if key is not None:
            h = h + jax.random.normal(key, (WIDTH,), h.dtype).reshape(1, WIDTH)
        return jnp.square(h - batch[1]).mean(), (new, {"largest": jnp.abs(h).mean()})

    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.3, momentum=0.9))
    return lpw_jax.LatePhase(
        loss_fn,
        lpw_jax.copies(".*/scale"),
        optimizer,
        optimizer,
        coasting="reference",
        batch_axis=batch_axis,
        member_axis=member_axis,
        **settings,
    )


def released(is_own):
    """A state of members that differ; statistics are of late-phase layers or of shared ones."""
    method = method_of(True, member_state=is_own)
    state = jit(method.init)(weights(), statistics())
    release = functools.partial(method.release, num_members=NUM_MEMBERS)
    state = jax.device_get(jit(release)(state))
    random = np.random.default_rng(1)
    spread = jax.tree.map(lambda x: x * random.uniform(0.5, 1.5, x.shape), state.members)
    return state.replace(members=spread)


def train(step, state, key=None):
    """States and metrics of some cycles, in numpy arrays."""
    found = []
    for seed in range(3):
        state, metrics = step(state, batch(seed), key)
        found.append(jax.device_get((state, metrics)))
    return found


@functools.cache
def on_one_device(is_own, observed, with_key=False, **settings):
    step = jit(method_of(observed, member_state=is_own, **settings).step)
    return train(step, released(is_own), jax.random.key(0) if with_key else None)


def check_equal(found, wanted):
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-12), found, wanted
    )


def mesh_of(way, axis_type=AxisType.Auto):
    sizes = {"batch": (8,), "members": (4,), "both": (4, 2)}[way]
    names = {"batch": ("batch",), "members": ("members",), "both": ("members", "batch")}[way]
    return jax.make_mesh(sizes, names, axis_types=(axis_type,) * len(names))


def axes_of(way):
    return dict(
        batch_axis="batch" if way != "members" else None,
        member_axis="members" if way != "batch" else None,
    )


def state_specs(state, spec):
    """Members' arrays are `spec`, all others on every device."""
    everywhere = jax.tree.map(lambda _: P(), state)
    own = {
        name: jax.tree.map(lambda _: spec, getattr(state, name))
        for name in ("members", "member_model_state", "member_opt_state")
    }
    return everywhere.replace(**own)


def sharded_step(method, way, state, check_vma):
    specs = state_specs(state, P("members") if way != "batch" else P())
    return jit(
        jax.shard_map(
            method.step,
            mesh=mesh_of(way),
            in_specs=(specs, WAYS[way], P()),
            out_specs=(specs, P()),
            check_vma=check_vma,
        )
    )


def slow(*cases):
    return [pytest.param(*case, marks=pytest.mark.slow) for case in cases]


@pytest.mark.parametrize(
    ("way", "kind", "check_vma"),
    [
        ("both", "shared_observed", True),
        *slow(
            ("batch", "shared_observed", False),
            ("batch", "own_observed", True),
            ("members", "own", True),
            ("both", "own_observed", False),
            ("both", "own", True),
        ),
    ],
)
def test_shard_map(float64, way, kind, check_vma):
    is_own, observed = STATES[kind]
    method = method_of(observed, member_state=is_own, **axes_of(way))
    state = released(is_own)
    found = train(sharded_step(method, way, state, check_vma), state)
    check_equal(found, on_one_device(is_own, observed))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("way", "member_mode", "check_vma"),
    [("batch", "scan", False), ("members", "vmap", False), ("both", "scan", True)],
)  # fmt: skip
def test_shard_map_with_members_one_by_one_and_microbatches(float64, way, member_mode, check_vma):
    """Each device's microbatches are a part of its own minibatch, so nothing is normalised."""

    def loss_fn(params, model_state, batch, key):
        h = jnp.tanh(batch[0] @ params["inner"]["kernel"] @ params["outer"]["kernel"])
        scale = params["inner"]["scale"] * params["outer"]["scale"]
        error = h * jnp.broadcast_to(scale, h.shape) - batch[1]
        return jnp.square(error).mean(), (model_state, {})

    sizes = dict(member_mode=member_mode, num_microbatches=2)
    if way == "batch":
        sizes |= dict(num_microbatches=1)
    optimizer = optax.sgd(0.3, momentum=0.9)
    make = functools.partial(
        lpw_jax.LatePhase, loss_fn, lpw_jax.copies(".*/scale"), optimizer, optimizer, **sizes
    )
    alone, state = make(), released(False)
    state = state.replace(
        shared_opt_state=alone.shared_optimizer.init(state.shared),
        member_opt_state=jax.vmap(alone.member_optimizer.init)(state.members),
    )
    wanted = train(jit(alone.step), state)
    found = train(sharded_step(make(**axes_of(way)), way, state, check_vma), state)
    check_equal(found, wanted)


@pytest.mark.slow
def test_members_have_the_same_keys_wherever_they_are(float64):
    method = method_of(True, member_state=True, **axes_of("members"))
    state = released(True)
    found = train(sharded_step(method, "members", state, True), state, jax.random.key(0))
    check_equal(found, on_one_device(True, True, with_key=True))


@pytest.mark.slow
@pytest.mark.parametrize("check_vma", [True, False])
def test_shared_state_that_changes_in_turn_on_a_divided_batch(float64, check_vma):
    method = method_of(False, member_state=False, batch_axis="batch", member_mode="scan")
    state = released(False)
    found = train(sharded_step(method, "batch", state, check_vma), state)
    check_equal(found, on_one_device(False, False))


@pytest.mark.slow
@pytest.mark.parametrize("check_vma", [True, False])
def test_tied_training_on_a_divided_batch(float64, check_vma):
    one = lambda tree: jax.tree.map(lambda leaf: leaf[:1], tree)  # noqa: E731
    alone, method = method_of(True), method_of(True, batch_axis="batch")
    state = other = jax.device_get(jit(alone.init)(weights(), statistics()))
    step, sharded = jit(alone.step), sharded_step(method, "batch", state, check_vma)
    for seed in range(2):
        state, metrics = step(state, one(batch(seed)))
        other, other_metrics = sharded(other, one(batch(seed)), None)
        check_equal((other, other_metrics), (state, metrics))


def divided(leaf, axis, size):
    """[..., D * n, ...] to [D, ..., n, ...]."""
    return np.moveaxis(leaf.reshape(*leaf.shape[:axis], size, -1, *leaf.shape[axis + 1 :]), axis, 0)


@pytest.mark.parametrize(
    ("way", "kind"),
    [
        ("members", "shared_observed"),
        *slow(("batch", "shared_observed"), ("batch", "own"), ("members", "own_observed")),
    ],
)
def test_pmap(float64, way, kind):
    is_own, observed = STATES[kind]
    method = method_of(observed, member_state=is_own, **axes_of(way))
    state, num_devices = released(is_own), {"batch": 8, "members": 4}[way]

    def spread(leaf, spec):
        if spec:
            return divided(leaf, 0, num_devices)
        return np.broadcast_to(leaf, (num_devices, *leaf.shape))

    def gather(leaf, spec):
        leaf = np.asarray(leaf)
        return leaf.reshape(-1, *leaf.shape[2:]) if spec else leaf[0]

    # A spec that is not empty stands for what is divided.
    specs = state_specs(state, P("members") if way == "members" else P())
    step = jax.pmap(method.step, axis_name=way, devices=jax.devices()[:num_devices])

    def run(state, batch, key):
        axis = 0 if way == "members" else 1
        placed = jax.tree.map(spread, state, specs)
        batch = jax.tree.map(lambda leaf: divided(leaf, axis, num_devices), batch)
        state, metrics = step(placed, batch)
        return jax.tree.map(gather, state, specs), jax.tree.map(lambda x: np.asarray(x[0]), metrics)

    check_equal(train(run, state), on_one_device(is_own, observed))


@pytest.mark.parametrize(
    ("way", "kind", "axis_type"),
    [
        ("both", "shared_observed", AxisType.Explicit),
        *slow(
            ("batch", "own_observed", AxisType.Auto),
            ("members", "own", AxisType.Auto),
            ("members", "shared_observed", AxisType.Explicit),
            ("both", "own", AxisType.Auto),
        ),
    ],
)
def test_named_sharding(float64, way, kind, axis_type):
    """Nothing is said to the library: JAX divides the arrays of a plain step."""
    is_own, observed = STATES[kind]
    state, mesh = released(is_own), mesh_of(way, axis_type)

    def place(tree, specs):
        return jax.tree.map(
            lambda x, spec: jax.device_put(x, NamedSharding(mesh, spec)), tree, specs
        )

    compiled = jit(method_of(observed, member_state=is_own).step)

    def step(state: State, batch, key):
        return compiled(state, place(batch, jax.tree.map(lambda _: WAYS[way], batch)), key)

    placed = place(state, state_specs(state, P("members") if way != "batch" else P()))
    check_equal(train(step, placed), on_one_device(is_own, observed))
