"""Checks before the first step; memory estimates against what XLA plans to use."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_net
from etils import epath

from lpw_jax import models
from lpw_jax.devices import preflight
from lpw_jax.errors import UserError
from lpw_jax.method.state import State
from lpw_jax.models.densenet import DenseNet
from lpw_jax.training.schedules import Rates

PATTERNS = ("(.*/)?bn[^/]*/(scale|bias)", "head/(kernel|bias)")


def devices(*platforms):
    return [SimpleNamespace(platform=platform) for platform in platforms]


@pytest.mark.parametrize(
    ("num_devices", "platform", "found"),
    [
        (0, "", ["cpu"] * 8),
        (8, "cpu", ["cpu"] * 8),
        (2, "gpu", ["gpu", "gpu"]),
        (1, "gpu", ["cuda"]),
        (0, "gpu", ["rocm"]),
        (4, "tpu", ["tpu"] * 4),
    ],
)
def test_devices_that_were_asked_for_pass(num_devices, platform, found):
    preflight.check_devices(num_devices=num_devices, platform=platform, found=devices(*found))


@pytest.mark.parametrize(
    ("num_devices", "platform", "found", "words"),
    [
        (4, "", ["cpu"] * 8, ["parallel.num_devices = 4", "found 8 (8 x cpu)", "set it to 8"]),
        (8, "tpu", ["tpu"] * 4, ["parallel.num_devices = 8", "found 4"]),
        (0, "gpu", ["cpu"], ["parallel.platform = 'gpu'", "found 1 x cpu;", "'.[cuda]'"]),
        (0, "tpu", ["cpu"], ["parallel.platform = 'tpu'", "pip install '.[tpu]'"]),
        (0, "cpu", ["gpu"], ["parallel.platform = 'cpu'", "JAX_PLATFORMS=cpu"]),
        (0, "gpu", ["gpu", "cpu"], ["found 1 x cpu, 1 x gpu"]),
    ],
)  # fmt: skip
def test_other_devices_are_refused(num_devices, platform, found, words, monkeypatch):
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    with pytest.raises(UserError) as error:
        preflight.check_devices(num_devices=num_devices, platform=platform, found=devices(*found))
    assert all(word in str(error.value) for word in words), error.value


def test_a_platform_that_the_environment_excludes_is_explained(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    with pytest.raises(UserError, match="unset JAX_PLATFORMS, which is 'cpu'"):
        preflight.check_devices(num_devices=0, platform="gpu", found=jax.devices())


def test_a_full_disk_is_refused_with_both_sizes(tmp_path):
    workdir = epath.Path(tmp_path / "not" / "yet")
    preflight.check_disk(workdir, num_bytes=1000, free=1000)
    with pytest.raises(
        UserError, match=r"--workdir.*3\.2 GB, but 900 MB are free.*checkpoint\.keep"
    ):
        preflight.check_disk(workdir, num_bytes=3_200_000_000, free=900_000_000)
    assert not list(tmp_path.iterdir())


def test_free_space_is_that_of_the_nearest_folder_there_is(tmp_path):
    preflight.check_disk(tmp_path / "not" / "yet", num_bytes=1)
    with pytest.raises(UserError, match="1000000000.0 GB"):
        preflight.check_disk(tmp_path / "not" / "yet", num_bytes=10**18)


def test_what_an_interrupted_run_wrote_needs_no_room_again(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "5").write_bytes(bytes(1000))
    preflight.check_disk(tmp_path, num_bytes=1500, free=500)
    with pytest.raises(UserError):
        preflight.check_disk(tmp_path, num_bytes=1500, free=499)


def test_a_remote_folder_is_not_checked():
    preflight.check_disk(epath.Path("gs://bucket/run"), num_bytes=10**18, free=0)


def test_shapes_count_like_arrays():
    tree = {"a": np.zeros((3, 5), np.float32), "b": [jnp.zeros(7, jnp.bfloat16)]}
    assert preflight.tree_bytes(tree) == 3 * 5 * 4 + 7 * 2
    assert preflight.tree_bytes(jax.eval_shape(lambda: tree)) == 3 * 5 * 4 + 7 * 2


def test_one_more_checkpoint_than_is_kept_is_on_disk():
    ten, two = np.zeros(10, np.uint8), {"shared": np.zeros(2, np.uint8)}
    assert preflight.run_bytes(checkpoint=ten, weights=two, keep=3, predictions=1) == 4 * 10 + 2 + 1


def network(*, depth=10, width=1, dtype=jnp.float32):
    return models.create(
        "wide_resnet", depth=depth, width=width, num_classes=10, dtype=dtype, precision="highest"
    )


def activations(model, batch_size, platform="gpu"):
    return preflight.activation_bytes(model, (batch_size, 32, 32, 3), platform=platform)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["wide_resnet", "densenet"])
def test_estimated_memory_is_near_what_xla_plans(name, num_members=2):
    model = network()
    if name == "densenet":
        model = DenseNet(num_classes=10, stage_sizes=(4, 4), growth=32)

    method = tiny_net.method(model, PATTERNS, member_mode="vmap")

    def make_state(key):
        variables = model.init(key, jnp.zeros((1, 32, 32, 3)))
        tied = method.init(variables["params"], variables["batch_stats"])
        return method.release(tied, num_members=num_members)

    shapes = jax.eval_shape(make_state, jax.random.key(0))
    batch = {
        "image": jax.ShapeDtypeStruct((num_members, 32, 32, 32, 3), jnp.float32),
        "label": jax.ShapeDtypeStruct((num_members, 32), jnp.int32),
    }
    rates = Rates(*[jax.ShapeDtypeStruct((), jnp.float32)] * 5)
    program = jax.jit(tiny_net.step(method), donate_argnums=0).lower(shapes, batch, rates)
    fast = {"xla_backend_optimization_level": 0}  # of machine code, which uses the same memory
    plan = program.compile(compiler_options=fast).memory_analysis()
    planned = plan.argument_size_in_bytes + plan.output_size_in_bytes - plan.alias_size_in_bytes
    planned += plan.temp_size_in_bytes
    estimate = preflight.step_bytes(
        shapes,
        activations=num_members * activations(model, 32, "cpu"),
        data=preflight.tree_bytes(batch),
    )
    assert 0.75 < estimate / planned < 1.3


def test_activations_are_proportional_to_the_batch_and_hold_no_weights():
    model = network(width=4)
    assert activations(model, 6) == 3 * activations(model, 2) > 0


def test_bfloat16_halves_activations_except_on_the_cpu():
    narrow, wide = network(dtype=jnp.bfloat16), network()
    assert activations(narrow, 8) == pytest.approx(activations(wide, 8) / 2, rel=0.01)
    assert activations(narrow, 8, "cpu") == activations(wide, 8, "cpu")


def test_a_network_larger_than_the_machine_is_estimated():
    # 2 per block and image, of 160 * 32 * 32, 320 * 16 * 16 and 640 * 8 * 8 float32 values.
    blocks = 4 * (160 * 32 * 32 + 320 * 16 * 16 + 640 * 8 * 8) * 4 * 4
    estimate = activations(network(depth=28, width=10), 10_000)
    assert 0.9 < estimate / (10_000 * blocks) < 1.2


def test_the_step_holds_state_gradients_data_and_activations():
    shapes = jax.eval_shape(
        lambda: State(
            step=jnp.zeros((), jnp.int32),
            coasting=jnp.zeros((), bool),
            shared=jnp.zeros(100),
            members=jnp.zeros((3, 10)),
            shared_model_state=None,
            member_model_state=jnp.zeros((3, 2)),
            shared_opt_state=jnp.zeros(100),
            member_opt_state=jnp.zeros((3, 10)),
        )
    )
    weights = 4 * (100 + 30)
    expected = 3 * weights + 4 * 6 + 4 + 1 + 1000 + 50
    assert preflight.step_bytes(shapes, activations=1000, data=50) == expected


def test_too_little_memory_is_one_line_that_says_what_to_try():
    warning = preflight.memory_warning(2_500_000_000, 1_000_000_000, platform="gpu")
    assert "2.5 GB" in warning and "1.0 GB" in warning and "\n" not in warning
    assert "train.batch_size" in warning and "bfloat16" in warning
    assert "bfloat16" not in preflight.memory_warning(2, 1, platform="cpu")
    assert preflight.memory_warning(1, 1, platform="gpu") == ""
    assert preflight.memory_warning(10**18, None, platform="gpu") == ""


def test_memory_is_what_the_device_says_and_for_cpus_their_part_of_what_is_free():
    gpu = SimpleNamespace(platform="gpu", memory_stats=lambda: {"bytes_limit": 123})
    assert preflight.device_memory(gpu) == 123
    silent = SimpleNamespace(platform="tpu", memory_stats=lambda: None)
    assert preflight.device_memory(silent) is None
    cpu = preflight.device_memory(jax.devices()[0])
    assert cpu is None or 10**6 < cpu < 10**14 / jax.local_device_count()
