"""What makes a run fast, as structure: traces, collectives, transfers, memory. No test takes time.

The run is short and real, on two devices: there every read of an array passes `Array._value`.
"""

import contextlib
import re
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_net
from short_run import DIGITS, subset

from lpw_jax.config import load_config
from lpw_jax.devices import preflight
from lpw_jax.devices.parallel import Devices
from lpw_jax.files.workdir import Workdir
from lpw_jax.method.cycle import MEMBER_MODES, over_members
from lpw_jax.method.late_phase import LatePhase
from lpw_jax.training import train
from lpw_jax.training.runner import Runner
from lpw_jax.training.schedules import Rates

pytestmark = pytest.mark.usefixtures("two_layers")
NUM_CYCLES = {1: 6, 2: 6, 3: 3, 4: 3, 5: 3}  # of 48 images in batches of 8; K = 2 from epoch 3 on


def training(layout, *options, num_images, num_devices):
    backend = "shard_map" if layout == "groups" else "pmap"
    first = (f"parallel.layout={layout}", f"parallel.backend={backend}", "train.batch_size=8")
    config = load_config(DIGITS, [f"--config.{option}" for option in (*first, *options)])
    devices = Devices.over(jax.devices()[:num_devices], backend=config.parallel.backend)
    return train.Training(config, subset(num_images), devices)


@contextlib.contextmanager
def counted():
    """Yields a Counter of what happens inside: 'read' of an array, 'trace', 'compile'."""
    counts, array = Counter(), type(jnp.zeros(1))
    value, copy_async = array._value, array.copy_to_host_async

    def count(name):
        counts[name] += 1

    def on_duration(event, *_, **__):
        kind = re.search("(trace|compile)_duration", event)
        if kind:
            count(kind[1])

    jax.monitoring.register_event_duration_secs_listener(on_duration)
    array._value = property(lambda self: count("read") or value.fget(self))
    array.copy_to_host_async = lambda self: count("read") or copy_async(self)
    try:
        yield counts
    finally:
        array._value, array.copy_to_host_async = value, copy_async
        jax.monitoring.unregister_event_duration_listener(on_duration)


class Record:
    """What a run did, an entry per epoch or trace."""

    def __init__(self):
        self.traces, self.first_cycles, self.other_cycles = [], [], []
        self.num_cycles, self.kept, self.sent = [], set(), []


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(("data", 2, "pmap"), marks=pytest.mark.slow),
        ("members", 2, "pmap"),
        pytest.param(("groups", 4, "shard_map"), marks=pytest.mark.slow),
    ],
    ids=lambda param: f"{param[0]}-{param[2]}",
)
def record(request, tmp_path_factory):
    """Of a run with a release, changing rates and a checkpoint after every epoch."""
    layout, num_devices, backend = request.param
    record, step, cycles, send = Record(), LatePhase.step, Runner.cycles, Devices.send

    def traced(self, state, batch, *args, **options):
        record.traces.append(batch["label"].shape)
        return step(self, state, batch, *args, **options)

    def counted_send(self, tree):
        record.sent.append(jax.tree.map(lambda leaf: (leaf.dtype.name, leaf.shape), tree))
        with jax.transfer_guard("allow"):
            return send(self, tree)

    def watched_cycles(self, *args, **options):
        yielded = cycles(self, *args, **options)
        with counted() as counts:
            placed, metrics = next(yielded)
        record.first_cycles.append(counts)
        record.num_cycles.append(1)
        with counted() as counts, jax.transfer_guard("disallow_explicit"):
            yield placed, metrics
            for after, metrics in yielded:
                record.num_cycles[-1] += 1
                record.kept |= {
                    jax.tree_util.keystr(path)
                    for path, leaf in jax.tree_util.tree_leaves_with_path(placed)
                    if not leaf.is_deleted()
                }
                placed = after
                yield placed, metrics
        record.other_cycles.append(counts)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LatePhase, "step", traced)
        patch.setattr(Runner, "cycles", watched_cycles)
        patch.setattr(Devices, "send", counted_send)
        # Otherwise threads compile and send at any time.
        patch.setattr(train.Training, "begin", lambda self, epoch, *, fresh: None)
        options = ["epochs=5", "anneal_start=1", "anneal_end=5"]
        run = training(
            layout,
            f"parallel.backend={backend}",
            *(f"train.{option}" for option in options),
            "late_phase.release_epoch=2",
            "late_phase.num_members=2",
            "late_phase.member_mode=vmap",  # compiles soonest
            "checkpoint.every_epochs=1",
            num_images=48,
            num_devices=num_devices,
        )
        run.run(Workdir(tmp_path_factory.mktemp(layout)))
    assert record.num_cycles == [*NUM_CYCLES.values()]
    record.num_devices = num_devices
    record.released = {"data": (2, 4), "members": (1, 8), "groups": (1, 4)}[layout]
    return record


def test_a_run_has_exactly_two_traces(record):
    """Of [K, B] labels on a device: rates, epochs and checkpoints cause no other."""
    assert record.traces == [(1, 8 // record.num_devices), record.released]


def test_only_the_first_cycles_before_and_after_the_release_are_compiled(record):
    compiled = [counts["compile"] for counts in record.first_cycles]
    assert compiled[0] == compiled[2] == 1 and sum(compiled) == 2
    for counts in record.other_cycles:
        assert counts["trace"] == counts["compile"] == 0


def test_nothing_is_read_from_devices_inside_an_epoch(record):
    assert [counts["read"] for counts in record.other_cycles] == [0] * len(NUM_CYCLES)


def test_of_a_data_set_in_memory_only_numbers_of_examples_are_sent(record):
    """[D, K, B] once a cycle; of anything else the transfer guard would have ended the run."""
    number = record.num_devices
    tied_cycles = NUM_CYCLES[1] + NUM_CYCLES[2]
    late_cycles = sum(NUM_CYCLES.values()) - tied_cycles
    tied, late = ("int32", (number, 1, 8 // number)), ("int32", (number, *record.released))
    assert record.sent == [tied] * tied_cycles + [late] * late_cycles


@pytest.mark.parametrize(
    "read",
    [float, np.asarray, jax.device_get, np.isfinite, str, bool, lambda x: x.item(),
     lambda x: x.copy_to_host_async()],
)  # fmt: skip
def test_reads_are_seen(read):
    loss = Devices.over(jax.devices()[:2]).replicate(np.float32(1))
    with counted() as counts:
        jax.block_until_ready(loss)
        assert not counts
        read(loss)
    assert counts["read"]


def test_every_cycle_takes_over_the_memory_of_the_state_before(record):
    assert record.kept <= {".coasting"}  # which a tied cycle has no use for


def lowered_cycle(layout, mode, num_devices, *, num_members=8, seed=0):
    """The program of a released cycle, not yet compiled, and the state it takes."""
    run = training(
        layout,
        f"late_phase.member_mode={mode}",
        f"late_phase.num_members={num_members}",
        f"seed={seed}",
        num_images=8 * num_members,
        num_devices=num_devices,
    )
    runner, calls = run.runner, []
    programs = runner._train_cycle
    devices = run.in_groups
    runner._train_cycle = {devices: lambda *arguments: calls.append(arguments) or arguments[:2]}
    state = runner.place(run.released(run.initial_state), num_members=num_members)
    order, rates = np.arange(8 * num_members, dtype=np.int32), run.timeline.rates(12)
    next(runner.cycles(state, order, rates, epoch=12, num_members=num_members))
    return programs[devices].lower(*calls[0]), state


def compiled_cycle(layout, mode, num_devices, **options):
    """`lowered_cycle`, compiled."""
    lowered, state = lowered_cycle(layout, mode, num_devices, **options)
    # Machine code is not looked at: the least effort for it.
    fast = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
    return lowered.compile(fast), state


def test_another_seed_is_the_same_program():
    one, other = (
        lowered_cycle("data", "vmap", 1, num_members=2, seed=seed)[0].as_text() for seed in (0, 1)
    )
    assert one == other


@pytest.mark.parametrize("num_microbatches", [1, 2])
def test_members_are_merged_looped_over_or_written_out(float64, num_microbatches):
    """Merged or looped over, a program has the convolutions of one member; else of K."""
    batch = {"image": tiny_net.images(0, 3, 4), "label": tiny_net.labels(0, 3, 4)}
    found = {}
    for mode in MEMBER_MODES:
        method = tiny_net.method(member_mode=mode, num_microbatches=num_microbatches)
        step = tiny_net.step(method)
        program = str(jax.make_jaxpr(step)(tiny_net.released(method, 3), batch, Rates(*[0.1] * 5)))
        found[mode] = program.count("conv_general_dilated["), "scan[" in program
    convolutions = found["scan"][0]
    assert found["scan"] == (convolutions, True)
    merged = convolutions * num_microbatches  # written out on CPUs
    assert found["vmap"] == (merged, False) and found["unroll"] == (3 * merged, False)


@pytest.mark.parametrize(("mode", "expected"), [("vmap", 1), ("scan", 1), ("unroll", 3)])
def test_networks_of_members_are_applied_at_once_or_in_turn(mode, expected):
    apply = over_members(lambda w, x: w @ x, mode, in_axes=(0, None))
    program = str(jax.make_jaxpr(apply)(np.ones((3, 2, 2)), np.ones(2)))
    assert program.count("dot_general[") == expected and ("scan[" in program) == (mode == "scan")


def collectives(program):
    """Kind and origin of each: 'backward' for those that JAX derived."""
    kinds = "all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter"
    kinds += "|collective-broadcast|ragged-all-to-all"
    lines = re.findall(rf" ({kinds})(?:-start)?\((.*)", program.as_text())
    return Counter((kind, "backward" if "transpose(" in rest else "") for kind, rest in lines)


@pytest.mark.parametrize(
    ("num_devices", "mode"),
    [
        (2, "vmap"),
        pytest.param(4, "scan", marks=pytest.mark.slow),
        pytest.param(8, "vmap", marks=pytest.mark.slow),
    ],
)
def test_members_on_devices_need_one_all_reduce_a_cycle(num_devices, mode):
    program, _ = compiled_cycle("members", mode, num_devices)
    assert collectives(program) == {("all-reduce", ""): 1}


@pytest.mark.parametrize(
    "num_devices", [2, *(pytest.param(number, marks=pytest.mark.slow) for number in (4, 8))]
)
def test_shared_minibatches_need_one_all_reduce_and_three_a_batch_norm_one_of_them_backward(
    num_devices,
):
    """Forward: the mean, then the squared deviations from it. XLA merges none of these on CPUs."""
    program, state = compiled_cycle("data", "vmap", num_devices)
    norms = len(jax.tree.leaves(state.member_model_state)) // 2
    assert norms == 2
    assert collectives(program) == {
        ("all-reduce", ""): 2 * norms + 1,
        ("all-reduce", "backward"): norms,
    }


def test_groups_reduce_shared_gradients_over_all_and_all_else_within_each():
    """By as many all-reduces as shared minibatches: members' gradients go with a batch norm's."""
    program, state = compiled_cycle("groups", "vmap", 4, num_members=2)
    norms = len(jax.tree.leaves(state.member_model_state)) // 2
    assert sum(collectives(program).values()) == 3 * norms + 1
    groups = re.findall(r" all-reduce(?:-start)?\(.*?replica_groups=(\S+),", program.as_text())
    assert Counter(groups) == {"{{0,1,2,3}}": 1, "{{0,1},{2,3}}": 3 * norms}


@pytest.mark.parametrize("layout", ["data", "members", "groups"])
def test_the_compiled_cycle_writes_the_state_where_it_was(layout):
    sizes = dict(num_devices=4, num_members=2) if layout == "groups" else dict(num_devices=2)
    program, state = compiled_cycle(layout, "vmap", **sizes)
    on_one_device = [leaf.addressable_shards[0].data for leaf in jax.tree.leaves(state)]
    num_bytes, plan = preflight.tree_bytes(on_one_device), program.memory_analysis()
    assert 0.999 * num_bytes < plan.alias_size_in_bytes <= num_bytes
