"""Networks that are not the package's own, small enough for laws to be tested in float64.

With the fixture `tiny_network` the program trains `PatchNet` in place of the configured one, which
takes a tenth of the time to compile.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from lpw_jax.method import optimizers
from lpw_jax.method.kinds.copies import copies
from lpw_jax.method.late_phase import LatePhase
from lpw_jax.method.state import State
from lpw_jax.models import functions
from lpw_jax.models.layers import BATCH_NORM_EPSILON, BatchNorm
from lpw_jax.recipe import rate_arguments
from lpw_jax.tasks import classification

PATTERNS = (".*bn.*", "head/.*")
CLASSES = 5


class Network(nn.Module):
    """Its attributes are arguments of `models.create`."""

    num_classes: int = CLASSES
    axis_name: str | None = None
    dtype: Any = jnp.float64
    precision: str = "highest"
    conv_general_dilated: Any = None


class TinyNet(Network):
    """Without the bias, a run has no gradient that is only rounding."""

    use_bias: bool = True
    features: tuple[int, int] = (6, 8)

    @nn.compact
    def __call__(self, x, *, train=False):
        layer = dict(dtype=self.dtype, param_dtype=np.promote_types(self.dtype, np.float32))
        norm = dict(train=train, axis_name=self.axis_name, **layer)
        layer |= dict(precision=self.precision)
        conv = dict(conv_general_dilated=self.conv_general_dilated, **layer)
        first, second = self.features
        x = nn.Conv(first, (3, 3), strides=2, use_bias=self.use_bias, name="conv1", **conv)(x)
        x = nn.relu(BatchNorm(name="bn1", **norm)(x))
        x = nn.Conv(second, (3, 3), use_bias=False, name="conv2", **conv)(x)
        x = nn.relu(BatchNorm(name="bn2", **norm)(x))
        logits = nn.Dense(self.num_classes, name="head", **layer)(x.mean((1, 2)))
        return logits.astype(np.promote_types(self.dtype, np.float32))


class PatchNet(Network):
    """The least that a run trains: a convolution of four patches, batch norm, a head.

    It sees 8 x 8 pixels of an image, which has at least as many; a digit has no more.
    """

    features: int = 8

    @nn.compact
    def __call__(self, x, *, train=False):
        layer = dict(dtype=self.dtype, param_dtype=np.promote_types(self.dtype, np.float32))
        product = dict(precision=self.precision, **layer)
        patch = dict(kernel_size=(4, 4), strides=4, padding="VALID", use_bias=False, name="conv1")
        conv = dict(conv_general_dilated=self.conv_general_dilated, **product)
        every = x.shape[1] // 8
        x = nn.Conv(self.features, **patch, **conv)(x[:, ::every, ::every][:, :8, :8])
        x = BatchNorm(name="bn1", train=train, axis_name=self.axis_name, **layer)(x)
        x = nn.relu(x).reshape(len(x), -1)
        logits = nn.Dense(self.num_classes, name="head", **product)(x)
        return logits.astype(np.promote_types(self.dtype, np.float32))


def create(
    name: str, *, network=PatchNet, depth=None, width=None, remat=None, **attributes: Any
) -> nn.Module:
    """`models.create`, whatever the name."""
    return network(**attributes)


def images(seed: int, *shape: int) -> np.ndarray:
    """float64 [*shape, 8, 8, 3]."""
    return np.random.default_rng(seed).standard_normal((*shape, 8, 8, 3))


def labels(seed: int, *shape: int) -> np.ndarray:
    """int32 of `shape`."""
    return np.random.default_rng(seed).integers(0, CLASSES, shape).astype(np.int32)


def random_variables(model: nn.Module, image_shape=(8, 8, 3)) -> dict[str, Any]:
    """Variables in numpy arrays, of the size of initialised ones but no two the same.

    A program that draws them takes long to compile.
    """
    random = np.random.default_rng(1)

    def draw(path, like):
        if path[-1].key in ("scale", "var"):
            values = random.uniform(0.5, 1.5, like.shape)
        else:
            values = random.standard_normal(like.shape) / np.sqrt(np.prod(like.shape[:-1]))
        return values.astype(like.dtype)

    image = jax.ShapeDtypeStruct((1, *image_shape), model.dtype)
    like = jax.eval_shape(model.init, jax.random.key(0), image)
    return jax.tree_util.tree_map_with_path(draw, like)


def method(model: nn.Module | None = None, patterns=PATTERNS, **settings: Any) -> LatePhase:
    """How the program trains a network: its loss, its SGD. `step` takes `Rates`."""
    sgd = optimizers.sgd(momentum=0.9, nesterov=True)
    return LatePhase(
        functions.training_loss(model or TinyNet(), classification.loss),
        copies(*patterns),
        sgd,
        sgd,
        batch_norm_epsilon=BATCH_NORM_EPSILON,
        **settings,
    )


def step(method: LatePhase) -> Any:
    """(state, batch, rates) -> (state, metrics)."""
    return lambda state, batch, rates: method.step(state, batch, **rate_arguments(rates))


def released(method: LatePhase, num_members: int, *, variables=None, sigma: float = 0.3) -> State:
    """A released state of members that differ, also in statistics, in numpy arrays."""
    variables = random_variables(TinyNet()) if variables is None else variables
    random = np.random.default_rng(2)

    def spread(leaf):  # changes no sign
        return leaf * (1 + sigma * random.uniform(-1, 1, leaf.shape)).astype(leaf.dtype)

    tied = method.init(variables["params"], variables["batch_stats"])
    start = jax.device_get(method.release(tied, num_members=num_members))
    members, stats = jax.tree.map(spread, (start.members, start.member_model_state))
    return start.replace(members=members, member_model_state=stats)
