"""Data and network of configs/effect_cifar10.py."""

import jax
import numpy as np
import tfds_fixtures
import tiny_net

from lpw_jax import models, networks
from lpw_jax.config import load_config
from lpw_jax.data import few_images

IMAGE = (8, 8, 3)


def test_images_are_means_of_blocks_and_only_the_first_train():
    found = few_images.cifar10(str(tfds_fixtures.folder() / "array_record"))
    for split in ("train", "test"):
        images, labels = tfds_fixtures.arrays("cifar10", split)  # of one colour in 8x8 pixels
        np.testing.assert_array_equal(found[f"{split}_images"], images[:2000, ::4, ::4])
        np.testing.assert_array_equal(found[f"{split}_labels"], labels[:2000])
    assert found["num_classes"] == 10 and found["class_names"] == ()  # nobody names them there
    # A value between two is rounded.
    mixed = np.zeros((1, 4, 4, 1), np.uint8)
    mixed[0, 0, :, 0] = 255, 255, 0, 1
    assert few_images._smaller(mixed).ravel().tolist() == [32]


def test_the_perceptron_is_its_formula_and_its_norms_and_head_are_late_phase():
    model = models.create("lpw_jax.models.mlp:build", num_classes=10, width=5)
    variables = tiny_net.random_variables(model, IMAGE)
    images = np.random.default_rng(0).standard_normal((4, *IMAGE)).astype(np.float32)
    x = images.reshape(4, -1)
    for i in range(2):
        weights, stats = variables["params"][f"bn{i}"], variables["batch_stats"][f"bn{i}"]
        x = x @ variables["params"][f"dense{i}"]["kernel"] - stats["mean"]
        x = np.maximum(x / np.sqrt(stats["var"] + 1e-5) * weights["scale"] + weights["bias"], 0)
    expected = x @ variables["params"]["head"]["kernel"] + variables["params"]["head"]["bias"]
    logits = jax.jit(model.apply)(variables, images)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)

    state = networks.shapes(load_config("configs/effect_cifar10.py"), 10, IMAGE)
    own = {name for name, tree in state.members.items() if jax.tree.leaves(tree)}
    assert own == {"bn0", "bn1", "head"}
