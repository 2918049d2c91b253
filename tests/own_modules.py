"""Networks and data that a user might write, for `model.name` and `data.name`."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from lpw_jax.models.layers import BatchNorm


class Plain(nn.Module):
    """No argument `train`, no batch norm."""

    num_classes: int

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(4, (3, 3), strides=2, name="conv")(x))
        x = nn.LayerNorm(name="norm")(x)
        return nn.Dense(self.num_classes, name="head")(x.mean((1, 2)))


class Normed(nn.Module):
    """Batch norm of the package, or of flax."""

    num_classes: int
    axis_name: str | None = None
    foreign: bool = False
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Conv(4, (3, 3), name="conv")(x)
        if self.foreign:
            norm = nn.BatchNorm(axis_name=self.axis_name, epsilon=self.epsilon, name="bn")
            x = norm(x, use_running_average=not train)
        else:
            x = BatchNorm(train=train, axis_name=self.axis_name, name="bn")(x)
        return nn.Dense(self.num_classes, name="head")(x.mean((1, 2)))


class Dropping(nn.Module):
    """Without batch norm."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Dropout(0.5, deterministic=not train)(x.reshape(len(x), -1))
        return nn.Dense(3, name="head")(x)


class Counting(nn.Module):
    @nn.compact
    def __call__(self, x):
        self.variable("counts", "calls", jnp.zeros, ())
        return nn.Dense(3)(x.mean((1, 2)))


def plain(num_classes):
    return Plain(num_classes)


def foreign(num_classes, axis_name):
    return Normed(num_classes, axis_name, foreign=True)


def other_epsilon(num_classes, axis_name):
    return Normed(num_classes, axis_name, foreign=True, epsilon=1e-3)


def deaf(num_classes):
    return Normed(num_classes)


def dropping():
    return Dropping()


def counting():
    return Counting()


def wrong_shape(num_classes):
    return Plain(num_classes + 1)


def flat(num_classes):
    return nn.Dense(num_classes)


def no_module():
    return [1, 2]


def arrays(data_dir, image_size):
    """Grey squares of three sizes in noise, as a mapping."""
    random = np.random.default_rng(0)
    splits = {}
    for split, size in (("train", 96), ("test", 24)):
        labels = np.arange(size) % 3
        images = random.integers(0, 100, (size, image_size, image_size), np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[1 : 3 + 2 * label, 1 : 3 + 2 * label] = 255
        splits |= {f"{split}_images": images, f"{split}_labels": labels}
    return {**splits, "note": data_dir}
