"""Laws of a training cycle."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny_net
from jax import jit
from tiny_net import PATTERNS, TinyNet, images, labels

from lpw_jax.method.average import statistics_step
from lpw_jax.method.cycle import MEMBER_MODES
from lpw_jax.method.members import map_members, member
from lpw_jax.method.model_state import is_observed
from lpw_jax.method.trees import join, map_places
from lpw_jax.models import functions
from lpw_jax.training.schedules import Rates

pytestmark = pytest.mark.usefixtures("float64")
K, B, CYCLES = 3, 8, 3
GAMMA = 0.5
RATES = Rates(0.1, 1e-2, 0.2, 3e-2, GAMMA)


@functools.cache
def released(num_members=K, **settings):
    return tiny_net.released(tiny_net.method(**settings), num_members)


def batches(num_members=K):
    return [
        {"image": images(c, num_members, B), "label": labels(c, num_members, B)}
        for c in range(CYCLES)
    ]


@functools.cache
def compiled(coasting, member_mode, num_microbatches, gamma, patterns=PATTERNS):
    method = tiny_net.method(
        patterns=patterns,
        coasting=coasting,
        member_mode=member_mode,
        num_microbatches=num_microbatches,
        shared_grad_scale=gamma,
    )
    return jit(tiny_net.step(method))


def trained(
    start,
    cycles,
    *,
    rates=RATES,
    coasting="reference",
    member_mode="vmap",
    num_microbatches=1,
    patterns=PATTERNS,
):
    settings = (coasting, member_mode, num_microbatches, rates.shared_grad_scale, patterns)
    train_step, losses = compiled(*settings), []
    for batch in cycles:
        start, metrics = train_step(start, batch, rates)
        losses.append(metrics["loss"])
    return jax.device_get(start), np.concatenate(losses)


def of_member(tree, k):
    return jax.tree.map(lambda leaf: leaf[k], tree)


def assert_close(a, b, tolerance=1e-11):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=tolerance), a, b)


@jit
def gradients(shared, late, image, label):
    """Loss and new statistics of one member, and the gradients of its shared and own weights."""

    def loss_of(shared, late):
        logits, updated = TinyNet().apply(
            {"params": join(shared, late)}, image, train=True, mutable=["batch_stats"]
        )
        picked = jnp.take_along_axis(jax.nn.log_softmax(logits), label[:, None], 1)
        seen = jax.tree.map(lambda found: found.value, updated["batch_stats"], is_leaf=is_observed)
        return -picked.mean(), seen

    return jax.value_and_grad(loss_of, argnums=(0, 1), has_aux=True)(shared, late)


@functools.cache
def python_loop(coasting, num_microbatches, patterns):
    """Algorithm 1 as the paper and the reference write it: one member, one leaf at a time."""
    start, late_rates = released(patterns=patterns), (0.2, 3e-2)

    def followed(stats, seen):
        return map_places(lambda r, b: None if r is None else 0.9 * r + 0.1 * b, stats, seen)

    def sgd(p, g, v, rate, decay):
        d = g + decay * p
        v = d if v is None else 0.9 * v + d
        return p - rate * (d + 0.9 * v), v

    def sgd_tree(params, grads, velocity, rate, decay):
        leaves, structure = jax.tree.flatten(params)
        velocity = velocity or [None] * len(leaves)
        grads = jax.tree.leaves(grads) if grads is not None else [0.0] * len(leaves)
        pairs = [sgd(*leaf, rate, decay) for leaf in zip(leaves, grads, velocity, strict=True)]
        return jax.tree.unflatten(structure, [p for p, _ in pairs]), [v for _, v in pairs]

    shared, shared_velocity = start.shared, None
    members = [of_member(start.members, k) for k in range(K)]
    shared_stats = start.shared_model_state
    stats = [of_member(start.member_model_state, k) for k in range(K)]
    velocity, losses = [None] * K, []
    for cycle, batch in enumerate(batches()):
        total = None
        for k in range(K):
            if k == 0 and cycle > 0 and coasting == "reference":
                for other in range(1, K):
                    members[other], velocity[other] = sgd_tree(
                        members[other], None, velocity[other], *late_rates
                    )
            g_late, own_losses = None, []
            for image, label in zip(
                np.split(batch["image"][k], num_microbatches),
                np.split(batch["label"][k], num_microbatches),
                strict=True,
            ):
                (loss, batch_stats), (g_shared, g_own) = jax.device_get(
                    gradients(shared, members[k], image, label)
                )
                shared_stats = followed(shared_stats, batch_stats)
                stats[k] = followed(stats[k], batch_stats)
                total = g_shared if total is None else jax.tree.map(np.add, total, g_shared)
                g_late = g_own if g_late is None else jax.tree.map(np.add, g_late, g_own)
                own_losses.append(loss)
            members[k], velocity[k] = sgd_tree(members[k], g_late, velocity[k], *late_rates)
            for other in set(range(K)) - {k}:
                if coasting == "every_minibatch" and velocity[other] is not None:
                    members[other], velocity[other] = sgd_tree(
                        members[other], None, velocity[other], *late_rates
                    )
            losses.append(np.mean(own_losses))
        total = jax.tree.map(lambda g: 0.5 * g, total)
        shared, shared_velocity = sgd_tree(shared, total, shared_velocity, 0.1, 1e-2)
    stacked = (jax.tree.map(lambda *leaves: np.stack(leaves), *trees) for trees in (members, stats))
    return (shared, shared_stats, *stacked), np.array(losses)


@pytest.mark.parametrize(
    ("member_mode", "coasting", "num_microbatches", "patterns"),
    [
        ("vmap", "reference", 1, PATTERNS),
        ("vmap", "every_minibatch", 2, ("head/.*",)),
        ("scan", "reference", 4, PATTERNS),
        pytest.param("unroll", "every_minibatch", 1, PATTERNS, marks=pytest.mark.slow),
        pytest.param("vmap", "none", 4, PATTERNS, marks=pytest.mark.slow),
        pytest.param("scan", "none", 2, ("bn1/.*",), marks=pytest.mark.slow),
        pytest.param("scan", "every_minibatch", 1, ("head/.*",), marks=pytest.mark.slow),
        pytest.param("unroll", "reference", 4, PATTERNS, marks=pytest.mark.slow),
        pytest.param("unroll", "none", 2, PATTERNS, marks=pytest.mark.slow),
    ],
)
def test_a_cycle_is_the_sequential_loop_over_members(
    member_mode, coasting, num_microbatches, patterns
):
    """Where batch norm is shared, its statistics follow the members' minibatches in turn."""
    expected, expected_losses = python_loop(coasting, num_microbatches, patterns)
    settings = {"coasting": coasting, "num_microbatches": num_microbatches, "patterns": patterns}
    start = released(patterns=patterns)
    end, losses = trained(start, batches(), member_mode=member_mode, **settings)
    found = (end.shared, end.shared_model_state, end.members, end.member_model_state)
    assert_close(found, expected)
    assert_close(losses, expected_losses)
    assert int(end.step) == K * CYCLES


def test_one_member_is_plain_sgd():
    start, cycles = released(1), batches(1)
    rates = Rates(0.1, 1e-2, 0.1, 1e-2, 1.0)
    end, _ = trained(start, cycles, rates=rates)

    plain = optax.chain(optax.add_decayed_weights(1e-2), optax.sgd(0.1, 0.9, nesterov=True))

    @jit
    def descend(params, opt, batch):
        def loss(params):
            logits, _ = TinyNet().apply(
                {"params": params}, batch["image"][0], train=True, mutable=["batch_stats"]
            )
            return optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"][0]).mean()

        updates, opt = plain.update(jax.grad(loss)(params), opt, params)
        return optax.apply_updates(params, updates), opt

    params, _ = member(start, 0)
    opt = jit(plain.init)(params)
    for batch in cycles:
        params, opt = descend(params, opt, batch)
    assert_close(member(end, 0)[0], params)


def test_one_member_is_the_same_in_every_mode():
    ends = [trained(released(1), batches(1), member_mode=mode) for mode in MEMBER_MODES]
    for end in ends[1:]:
        assert_close(end, ends[0])


@pytest.mark.parametrize("num_members", [1, K])
def test_members_are_evaluated_and_reestimated_alike_in_every_mode(num_members):
    start, image = released(num_members), images(0, B)
    forward, statistics = functions.forward(TinyNet()), functions.statistics(TinyNet())

    @jit
    def in_every_mode(state):
        return [
            (
                map_members(forward, state, image, member_mode=mode),
                statistics_step(statistics, member_mode=mode)(state, image, 0.3),
            )
            for mode in MEMBER_MODES
        ]

    found = in_every_mode(start)
    for other in found[1:]:
        assert_close(other, found[0])
    logits = jax.device_get(found[0][0])
    assert len(logits) == num_members
    assert_close(logits[0], jit(forward)(*member(start, 0), image))


def test_permuting_members_permutes_late_phase_and_leaves_shared():
    order = np.array([2, 0, 1])
    start = released()
    permuted = start.replace(
        members=jax.tree.map(lambda leaf: leaf[order], start.members),
        member_model_state=jax.tree.map(lambda leaf: leaf[order], start.member_model_state),
    )
    permuted_batches = [jax.tree.map(lambda leaf: leaf[order], batch) for batch in batches()]
    end, _ = trained(start, batches(), coasting="none")
    other, _ = trained(permuted, permuted_batches, coasting="none")
    assert_close(other.shared, end.shared)
    assert_close(
        (other.members, other.member_model_state, other.member_opt_state),
        jax.tree.map(
            lambda leaf: leaf[order], (end.members, end.member_model_state, end.member_opt_state)
        ),
    )


def test_members_coast_in_every_cycle_but_the_first():
    start = released()
    once = [trained(start, batches()[:1], coasting=rule)[0] for rule in ("reference", "none")]
    assert_close(once[0].members, once[1].members, 0)
    twice = [trained(start, batches()[:2], coasting=rule)[0] for rule in ("reference", "none")]
    difference = jax.tree.map(
        lambda a, b: np.abs(a - b).max(tuple(range(1, a.ndim))),
        twice[0].members,
        twice[1].members,
    )
    for leaf in jax.tree.leaves(difference):
        assert leaf[0] == 0 and (leaf[1:] > 1e-6).all()


def test_zero_rates_leave_weights_and_still_follow_statistics():
    start = released()
    end, _ = trained(start, batches()[:1], rates=Rates(0.0, 1e-2, 0.0, 1e-2, 1.0))
    assert_close((end.shared, end.members), (start.shared, start.members), 0)
    moved = jax.tree.map(
        lambda a, b: np.abs(a - b).max(), end.member_model_state, start.member_model_state
    )
    assert min(jax.tree.leaves(moved)) > 0


def test_accuracy_is_that_of_each_members_minibatch_before_the_step():
    start, batch = released(), batches()[0]
    _, metrics = compiled("reference", "vmap", 1, GAMMA)(start, batch, RATES)

    @jit
    def logits(params, image):
        return TinyNet().apply({"params": params}, image, train=True, mutable=["batch_stats"])[0]

    for k in range(K):
        params, _ = member(start, k)
        predicted = np.asarray(logits(params, batch["image"][k])).argmax(-1)
        correct = predicted == batch["label"][k]
        assert metrics["accuracy"][k] == correct.mean()


def test_every_weight_may_be_late_phase():
    method = tiny_net.method(patterns=(".*",), shared_grad_scale=GAMMA)
    end, losses = trained(tiny_net.released(method, K), batches())
    assert not jax.tree.leaves(end.shared) and np.isfinite(losses).all()
