"""Networks and data that a user might write, for `model.name` and `data.name`."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from flax import nnx

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
    calls: int = 1

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Conv(4, (3, 3), name="conv")(x)
        if self.foreign:
            norm = nn.BatchNorm(
                axis_name=self.axis_name, momentum=0.7, epsilon=self.epsilon, name="bn"
            )
        else:
            norm = BatchNorm(train=train, axis_name=self.axis_name, name="bn")
        for _ in range(self.calls):
            x = norm(x, use_running_average=not train) if self.foreign else norm(x)
        return nn.Dense(self.num_classes, name="head")(x.mean((1, 2)))


class Homemade(nn.Module):
    """A batch norm of one's own, which does not tell its epsilon."""

    num_classes: int
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x, train=False):
        return nn.Dense(self.num_classes, name="head")(Centred(name="bn")(x.mean((1, 2)), train))


class Centred(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        shape = x.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
        self.variable("batch_stats", "var", jnp.ones, shape)
        if train:
            mean.value = 0.5 * mean.value + 0.5 * x.mean(0)
        return (x - mean.value.reshape(1, -1)) * scale.reshape(1, -1) + bias.reshape(1, -1)


class Dropping(nn.Module):
    """Without batch norm."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Dropout(0.5, deterministic=not train)(x.reshape(len(x), -1))
        return nn.Dense(3, name="head")(x)


class Nnx(nnx.Module):
    """A convolution, nnx's batch norm and dropout, and layers in a list."""

    def __init__(self, num_classes, axis_name, rngs, channels=1, calls=1):
        self.conv = nnx.Conv(channels, 4, (3, 3), rngs=rngs)
        self.bn = nnx.BatchNorm(4, axis_name=axis_name, momentum=0.7, epsilon=1e-3, rngs=rngs)
        self.dropout = nnx.Dropout(0.25, rngs=rngs)
        self.layers = nnx.List([nnx.Linear(4, num_classes, rngs=rngs)])
        self.calls = calls

    def __call__(self, x):
        x = self.conv(x)
        for _ in range(self.calls):
            x = self.bn(x)
        return self.layers[0](self.dropout(nnx.relu(x).mean((1, 2))))


class Counter(nnx.Module):
    def __init__(self, rngs):
        self.linear = nnx.Linear(1, 3, rngs=rngs)
        self.calls = nnx.Variable(jnp.zeros(()))

    def __call__(self, x):
        return self.linear(x.mean((1, 2)))


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


def twice(num_classes, axis_name):
    return Normed(num_classes, axis_name, calls=2)


class Bare(nn.Module):
    """A batch norm without parameters, or several in a loop over layers."""

    num_classes: int
    axis_name: str | None
    in_loop: bool

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Conv(4, (3, 3), name="conv")(x)
        options = {"axis_name": self.axis_name, "use_running_average": not train}
        if self.in_loop:
            axes = {"params": 0, "batch_stats": 0}
            loop = nn.scan(Step, variable_axes=axes, split_rngs={"params": True}, length=2)
            x, _ = loop(options, name="layers")(x, None)
        else:
            x = nn.BatchNorm(**options, use_scale=False, use_bias=False, name="bn")(x)
        return nn.Dense(self.num_classes, name="head")(x.mean((1, 2)))


class Step(nn.Module):
    options: dict

    @nn.compact
    def __call__(self, x, _):
        return nn.BatchNorm(**self.options, name="bn")(x), None


def bare(num_classes, axis_name):
    return Bare(num_classes, axis_name, in_loop=False)


def in_loop(num_classes, axis_name):
    return Bare(num_classes, axis_name, in_loop=True)


def homemade(num_classes, axis_name):
    return Homemade(num_classes)


def of_nnx(num_classes, axis_name, rngs):
    return Nnx(num_classes, axis_name, rngs)


def nnx_twice(num_classes, axis_name, rngs):
    return Nnx(num_classes, axis_name, rngs, calls=2)


def nnx_counting(rngs):
    return Counter(rngs)


def nnx_seeded():
    return Counter(nnx.Rngs(0))


def rngs_for_linen(num_classes, rngs):
    return Plain(num_classes)


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
