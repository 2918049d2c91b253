"""Laws of a training cycle."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny_net import PATTERNS, TinyNet, images, labels

from lpw_jax.method import late_phase as lp
from lpw_jax.method import optimizers, state, step
from lpw_jax.method.schedules import Rates

pytestmark = pytest.mark.usefixtures("float64")
K, B, CYCLES = 3, 8, 3
RATES = Rates(0.1, 1e-2, 0.2, 3e-2, 0.5)


@pytest.fixture
def tx(float64):
    return optimizers.sgd(momentum=0.9, nesterov=True)


def released(tx, *, sigma=0.3, num_members=K):
    start = state.init(
        jax.random.key(0), TinyNet(), image_shape=(8, 8, 3), patterns=PATTERNS, tx=tx
    )
    return state.release(start, jax.random.key(1), num_members=num_members, sigma=sigma, tx=tx)


def batches(num_members=K):
    return [
        {
            "image": jnp.asarray(images(c, num_members, B)),
            "label": jnp.asarray(labels(c, num_members, B)),
        }
        for c in range(CYCLES)
    ]


def trained(tx, start, cycles, *, rates=RATES, **settings):
    settings = {"coasting": "reference", "member_mode": "vmap"} | settings
    train_step = step.make_train_step(model=TinyNet(), tx=tx, **settings)
    train_step, losses = jax.jit(train_step), []
    for batch in cycles:
        start, metrics = train_step(start, batch, rates)
        losses.append(metrics["loss"])
    return start, np.concatenate(losses)


def assert_close(a, b, tolerance=1e-11):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=tolerance), a, b)


def python_loop(start, cycles, *, coasting, num_microbatches=1):
    """Algorithm 1 as the paper and the reference write it: one member, one leaf at a time."""
    late_rates = 0.2, 3e-2

    def loss_of(shared, late, image, label):
        logits, updated = TinyNet().apply(
            {"params": lp.merge(shared, late)}, image, train=True, mutable=["batch_stats"]
        )
        picked = jnp.take_along_axis(jax.nn.log_softmax(logits), label[:, None], 1)
        return -picked.mean(), updated["batch_stats"]

    gradients = jax.jit(jax.value_and_grad(loss_of, argnums=(0, 1), has_aux=True))

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
    members = [lp.member(start.late_phase, k) for k in range(K)]
    stats = [lp.member(start.batch_stats, k) for k in range(K)]
    velocity, losses = [None] * K, []
    for cycle, batch in enumerate(cycles):
        total = None
        for k in range(K):
            if k == 0 and cycle > 0 and coasting == "reference":
                for other in range(1, K):
                    members[other], velocity[other] = sgd_tree(
                        members[other], None, velocity[other], *late_rates
                    )
            g_late, own_losses = None, []
            for image, label in zip(
                jnp.split(batch["image"][k], num_microbatches),
                jnp.split(batch["label"][k], num_microbatches),
                strict=True,
            ):
                (loss, batch_stats), (g_shared, g_own) = gradients(shared, members[k], image, label)
                stats[k] = jax.tree.map(lambda r, b: 0.9 * r + 0.1 * b, stats[k], batch_stats)
                total = g_shared if total is None else jax.tree.map(jnp.add, total, g_shared)
                g_late = g_own if g_late is None else jax.tree.map(jnp.add, g_late, g_own)
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
    return shared, lp.stack(members), lp.stack(stats), np.array(losses)


@pytest.mark.parametrize("num_microbatches", [1, 2, 4])
@pytest.mark.parametrize("coasting", ["reference", "every_minibatch", "none"])
@pytest.mark.parametrize("member_mode", step.MEMBER_MODES)
def test_a_cycle_is_the_sequential_loop_over_members(tx, coasting, member_mode, num_microbatches):
    start = released(tx)
    settings = {"coasting": coasting, "num_microbatches": num_microbatches}
    shared, late, stats, expected = python_loop(start, batches(), **settings)
    end, losses = trained(tx, start, batches(), member_mode=member_mode, **settings)
    assert_close((end.shared, end.late_phase, end.batch_stats), (shared, late, stats))
    assert_close(losses, expected)
    assert int(end.step) == K * CYCLES


def test_one_member_is_plain_sgd(tx):
    start, cycles = released(tx, sigma=0.0, num_members=1), batches(1)
    rates = Rates(0.1, 1e-2, 0.1, 1e-2, 1.0)
    end, _ = trained(tx, start, cycles, rates=rates)

    plain = optax.chain(optax.add_decayed_weights(1e-2), optax.sgd(0.1, 0.9, nesterov=True))
    params = lp.merge(start.shared, lp.member(start.late_phase, 0))
    opt = plain.init(params)
    for batch in cycles:

        def loss(params, batch=batch):
            logits, _ = TinyNet().apply(
                {"params": params}, batch["image"][0], train=True, mutable=["batch_stats"]
            )
            return optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"][0]).mean()

        updates, opt = plain.update(jax.grad(loss)(params), opt, params)
        params = optax.apply_updates(params, updates)
    assert_close(lp.merge(end.shared, lp.member(end.late_phase, 0)), params)


def test_one_member_is_the_same_in_every_mode(tx):
    start = released(tx, num_members=1)
    ends = [trained(tx, start, batches(1), member_mode=mode) for mode in step.MEMBER_MODES]
    for end in ends[1:]:
        assert_close(end, ends[0])


@pytest.mark.parametrize("num_members", [1, K])
def test_members_are_evaluated_and_reestimated_alike_in_every_mode(tx, num_members):
    start, image = released(tx, num_members=num_members), jnp.asarray(images(0, B))
    collapsed = {
        "params": lp.merge(start.shared, lp.member(start.late_phase, 0)),
        "batch_stats": lp.member(start.batch_stats, 0),
    }
    weights = start.shared, start.late_phase, start.batch_stats
    found = []
    for mode in step.MEMBER_MODES:
        evaluate, statistics = (
            jax.jit(make(model=TinyNet(), member_mode=mode))
            for make in (step.make_eval_step, step.make_statistics_step)
        )
        found.append((evaluate(collapsed, *weights, image), statistics(*weights, image, 0.3)))
    for other in found[1:]:
        assert_close(other, found[0])
    logits = found[0][0]
    assert logits["members"].shape == (num_members, *logits["collapsed"].shape)
    assert_close(logits["members"][0], logits["collapsed"])


@pytest.mark.parametrize("num_members", [1, K])
def test_an_unknown_member_mode_is_refused(tx, num_members):
    with pytest.raises(ValueError, match="member_mode: must be one of .*'scan'.*, got 'map'"):
        trained(tx, released(tx, num_members=num_members), batches(num_members), member_mode="map")


def test_permuting_members_permutes_late_phase_and_leaves_shared(tx):
    order = np.array([2, 0, 1])
    start = released(tx)
    permuted = start.replace(
        late_phase=jax.tree.map(lambda leaf: leaf[order], start.late_phase),
        batch_stats=jax.tree.map(lambda leaf: leaf[order], start.batch_stats),
    )
    permuted_batches = [jax.tree.map(lambda leaf: leaf[order], batch) for batch in batches()]
    end, _ = trained(tx, start, batches(), coasting="none")
    other, _ = trained(tx, permuted, permuted_batches, coasting="none")
    assert_close(other.shared, end.shared)
    assert_close(
        (other.late_phase, other.batch_stats, other.opt_late),
        jax.tree.map(lambda leaf: leaf[order], (end.late_phase, end.batch_stats, end.opt_late)),
    )


def test_members_coast_in_every_cycle_but_the_first(tx):
    start = released(tx)
    once = [trained(tx, start, batches()[:1], coasting=rule)[0] for rule in ("reference", "none")]
    assert_close(once[0].late_phase, once[1].late_phase, 0)
    twice = [trained(tx, start, batches()[:2], coasting=rule)[0] for rule in ("reference", "none")]
    difference = jax.tree.map(
        lambda a, b: jnp.abs(a - b).max(tuple(range(1, a.ndim))),
        twice[0].late_phase,
        twice[1].late_phase,
    )
    for leaf in jax.tree.leaves(difference):
        assert leaf[0] == 0 and (leaf[1:] > 1e-6).all()


def test_zero_rates_leave_weights_and_still_follow_statistics(tx):
    start = released(tx)
    end, _ = trained(tx, start, batches()[:1], rates=Rates(0.0, 1e-2, 0.0, 1e-2, 1.0))
    assert_close((end.shared, end.late_phase), (start.shared, start.late_phase), 0)
    moved = jax.tree.map(lambda a, b: jnp.abs(a - b).max(), end.batch_stats, start.batch_stats)
    assert min(jax.tree.leaves(moved)) > 0


def test_every_weight_may_be_late_phase(tx):
    start = state.init(jax.random.key(0), TinyNet(), image_shape=(8, 8, 3), patterns=(".*",), tx=tx)
    start = state.release(start, jax.random.key(1), num_members=K, sigma=0.1, tx=tx)
    end, losses = trained(tx, start, batches())
    assert end.shared == {} and np.isfinite(losses).all()
