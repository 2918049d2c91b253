"""Networks of one's own: called as they want to be, and refused before training if they cannot."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import own_modules
import pytest
from flax import nnx
from tiny_net import random_variables

import lpw_jax
from lpw_jax import evaluate, experiment, main, models, networks
from lpw_jax.config import load_config
from lpw_jax.errors import UserError

IMAGE = (8, 8, 1)


def create(name, **options):
    return models.create(f"own_modules:{name}", num_classes=3, **options)


def test_a_module_without_train_and_statistics_is_called_as_it_wants():
    model, module = create("plain"), own_modules.Plain(3)
    images = np.random.default_rng(0).standard_normal((2, *IMAGE)).astype(np.float32)
    key = jax.random.key(0)
    assert jax.eval_shape(model.init, key, images) == {
        "batch_stats": {},
        **jax.eval_shape(module.init, key, images),
    }
    variables = random_variables(model, IMAGE)

    def train(variables, images):
        return model.apply(variables, images, train=True, mutable=["batch_stats"])

    logits, updated = jax.jit(train)(variables, images)
    assert updated == {"batch_stats": {}}
    expected = jax.jit(module.apply)({"params": variables["params"]}, images)
    np.testing.assert_array_equal(logits, expected)
    model.check(IMAGE)


def test_options_that_the_function_takes_are_given_and_changed():
    model = create("Normed", dtype=jnp.float32)
    assert model.module == own_modules.Normed(3)
    assert model.clone(axis_name="d", precision="high").module == own_modules.Normed(3, "d")
    model.check(IMAGE)


def test_logits_are_float32_at_least():
    model = create("plain", dtype=jnp.bfloat16)
    half = lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.bfloat16)  # noqa: E731
    image = jax.ShapeDtypeStruct((2, *IMAGE), jnp.bfloat16)
    with jax.numpy_dtype_promotion("standard"):
        variables = jax.tree.map(half, jax.eval_shape(model.init, jax.random.key(0), image))
        assert jax.eval_shape(model.apply, variables, image).dtype == jnp.float32


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("bare", "must have parameters in each layer with statistics, but 'bn/mean' has none"),
        ("twice", "must call each layer with statistics only once, but calls 'bn' again"),
        ("nnx_twice", "must call each layer with statistics only once, but calls 'bn' again"),
        ("nnx_counting", r"no variables but nnx.Param and nnx.BatchStat, not \['Variable'\]"),
        ("nnx_seeded", "must give a flax.linen Module, or take rngs and give a flax.nnx one, not"),
        ("rngs_for_linen", r"must give a flax.nnx Module, since it takes rngs, not Plain\("),
        ("deaf", "must take axis_name and give it to its batch norms"),
        ("counting", r"no variables but params and batch_stats, not \['counts'\]"),
        ("wrong_shape", r"must give logits \[2, 3\] for two images, not float32 \[2, 4\]"),
        ("flat", r"must give logits \[2, 3\] for two images, not float32 \[2, 8, 8, 3\]"),
        ("no_module", r"must give a flax.linen Module, .*, not \[1, 2\]"),
        ("arrays", "must not fail, but raised TypeError"),
        ("plane", r"has no plane \(did you mean 'plain'\?\)"),
    ],
)
def test_what_cannot_be_trained_is_refused_with_field_rule_and_value(name, rule):
    with pytest.raises(UserError, match=f"^model.name = 'own_modules:{name}': .*{rule}"):
        create(name).check(IMAGE)


def test_batch_norm_of_flax_and_dropout_can_be_trained():
    create("dropping").check(IMAGE)
    for name in ("foreign", "other_epsilon", "in_loop", "of_nnx"):
        create(name).check(IMAGE, averages=True)


def test_an_nnx_module_is_initialised_and_applied_as_by_itself():
    model, images = create("of_nnx"), np.ones((2, *IMAGE), np.float32)

    def by_itself(key):
        module = own_modules.Nnx(3, None, nnx.Rngs(key))
        module.eval()
        return module(images)

    def in_a_run(key):
        variables = model.init(key, images)
        assert set(variables["params"]) == {"conv", "bn", "layers"}
        return model.apply(variables, images)

    key = jax.random.key(7)
    np.testing.assert_array_equal(jax.jit(in_a_run)(key), jax.jit(by_itself)(key))


@pytest.mark.parametrize("name", ["of_nnx", "dropping"])
def test_a_module_drops_out_by_the_key_it_is_given(name):
    model, images = create(name), np.ones((2, *IMAGE), np.float32)
    variables = random_variables(model, IMAGE)

    def train(key):
        options = {"train": True, "mutable": ["batch_stats"], "rngs": {"dropout": key}}
        return model.apply(variables, images, **options)[0]

    train = jax.jit(train)
    one, again, *others = (train(jax.random.key(seed)) for seed in (0, 0, 1, 2, 3))
    np.testing.assert_array_equal(one, again)
    assert any((one != other).any() for other in others)


def test_statistics_that_follow_in_an_unknown_way_are_refused_with_swa_only():
    model = create("homemade")
    model.check(IMAGE)
    with pytest.raises(UserError, match="must, with SWA, return lpw_jax.Observed for 'bn/mean'"):
        model.check(IMAGE, averages=True)


CONFIG = [
    "--config.model.name=own_modules:plain",
    "--config.data.name=own_modules:arrays",
    "--config.data.image_size=8",
    "--config.data.dir=a remark",
    "--config.train.epochs=3",
    "--config.train.batch_size=8",
    "--config.train.crop_padding=1",
    "--config.train.anneal_start=1",
    "--config.train.anneal_end=3",
    "--config.late_phase.release_epoch=1",
    "--config.late_phase.num_members=2",
    "--config.late_phase.patterns=norm/.*,head/.*",
    "--config.swa.start_epoch=3",
    "--config.late_phase.sigma=0.1",
]


def test_a_network_is_checked_with_the_data_that_tell_its_shapes():
    config = load_config("configs/base.py", CONFIG)
    networks.check(config)  # without data it is only built
    dataset = experiment.load_dataset(config)
    networks.check(config, dataset)
    assert experiment.num_classes(config) == 3 and experiment.image_shape(config) == IMAGE
    wrong = load_config("configs/base.py", [*CONFIG, "--config.late_phase.patterns=bn/.*"])
    with pytest.raises(UserError, match="late_phase.patterns: every pattern must match"):
        networks.check(wrong, dataset)


def test_a_late_phase_batch_norm_must_tell_its_epsilon():
    flags = [*CONFIG, "--config.model.name=own_modules:homemade", "--config.swa.start_epoch=0"]
    config = load_config("configs/base.py", [*flags, "--config.late_phase.patterns=head/.*"])
    networks.shapes(config, 3, IMAGE)
    config = load_config("configs/base.py", [*flags, "--config.late_phase.patterns=bn/.*"])
    with pytest.raises(UserError, match="must have an attribute `epsilon` in its batch norm 'bn'"):
        networks.shapes(config, 3, IMAGE)


@pytest.mark.parametrize(
    ("flag", "wanted"),
    [
        ("late_phase.member_mode=vmap", "'scan'"),
        ("parallel.layout=members", "'data'"),
        ("train.num_microbatches=2", "1"),
    ],
)
def test_shared_statistics_that_follow_in_turn_must_be_able_to(flag, wanted):
    flags = ["model.name=own_modules:homemade", "swa.start_epoch=0", "parallel.layout=data"]
    flags = [f"--config.{flag}" for flag in (*flags, "late_phase.patterns=head/.*", flag)]
    config = load_config("configs/base.py", [*CONFIG, *flags, "--config.late_phase.num_members=8"])
    field, _, value = flag.partition("=")
    with pytest.raises(UserError, match=f"^{field} = .*must be {wanted}, since .* 'bn/mean'"):
        networks.check(config, experiment.load_dataset(config))


@pytest.mark.slow
@pytest.mark.parametrize("network", ["other_epsilon", "of_nnx"])
def test_own_network_and_grey_data_are_trained_loaded_and_evaluated(network, tmp_path):
    flags = [*CONFIG, f"--config.model.name=own_modules:{network}"]
    head = "layers/0" if network == "of_nnx" else "head"
    flags.append(f"--config.late_phase.patterns=bn/.*,{head}/.*")
    command = ["--config", "configs/base.py", *flags, "--workdir", str(tmp_path)]
    assert main.main([*command, "--dry_run"]) == 0
    assert main.main(command) == 0
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["status"] == "complete"
    data = results["data"]
    assert data["image_shape"] == [*IMAGE] and data["num_classes"] == 3
    assert data["note"] == "a remark" and len(data["mean"]) == len(data["std"]) == 1
    run = lpw_jax.load(tmp_path)
    images = own_modules.arrays("", 8)["test_images"][..., None]
    predicted = np.load(tmp_path / "predictions" / "test.npz")
    for k in range(2):
        logits = run.model.apply(run.member(k), run.normalize(images))
        np.testing.assert_allclose(logits, predicted["members"][k], rtol=1e-4, atol=1e-5)
    assert evaluate.main(["--workdir", str(tmp_path)]) == 0
    again = json.loads((tmp_path / "results.json").read_text())
    assert again["views"] == results["views"]
