"""Wide residual networks (Zagoruyko and Komodakis, 2016), pre-activation, without dropout."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from lpw_jax.models import remat
from lpw_jax.models.layers import BatchNorm

# He et al. (2015), fan-in, gain sqrt(2), not truncated: PyTorch's kaiming_normal_.
he_normal = nn.initializers.variance_scaling(2.0, "fan_in", "normal")


class Block(nn.Module):
    """Pre-activation block; where channels change, the shortcut is a 1x1 conv of relu(bn1(x))."""

    features: int
    stride: int
    conv: Callable[..., nn.Module]
    norm: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] to [B, H / stride, W / stride, features]."""
        a = nn.relu(self.norm(name="bn1")(x))
        y = self.conv(self.features, (3, 3), self.stride, padding=1, name="conv1")(a)
        y = nn.relu(self.norm(name="bn2")(y))
        y = self.conv(self.features, (3, 3), padding=1, name="conv2")(y)
        if x.shape[-1] != self.features:
            shortcut = self.conv(
                self.features, (1, 1), self.stride, padding=0, name="conv_shortcut"
            )
            x = shortcut(a)
        return x + y


class WideResNet(nn.Module):
    """WRN-depth-width for 32x32 images: widths 16, 16w, 32w, 64w, strides 1, 2, 2.

    Attributes:
      depth: 6n + 4, with n blocks in each of the three groups.
      width: the factor w.
      num_classes: outputs of the linear head.
      axis_name: pmap axis over which batch-norm statistics are taken in training mode, or None.
      dtype: dtype of convolutions and activations; weights, statistics, head and logits are
        float32 or wider.
      precision: of the matrix products, as in `jax.lax.Precision`.
      conv_general_dilated: what computes convolutions, by default JAX's.
      remat: what the backward pass computes anew, as in `remat.block`.
    """

    depth: int
    width: int
    num_classes: int
    axis_name: str | None = None
    dtype: Any = jnp.float32
    precision: str = "highest"
    conv_general_dilated: Callable[..., jax.Array] | None = None
    remat: str = "none"

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Normalised images [B, H, W, 3] to logits [B, num_classes]."""
        if self.depth < 10 or (self.depth - 4) % 6:
            raise ValueError(f"WideResNet: depth must be 6n + 4 with n >= 1, got {self.depth}")
        param_dtype = np.promote_types(self.dtype, np.float32)
        conv = functools.partial(
            nn.Conv,
            use_bias=False,
            kernel_init=he_normal,
            precision=self.precision,
            conv_general_dilated=self.conv_general_dilated,
            dtype=self.dtype,
            param_dtype=param_dtype,
        )
        norm = functools.partial(
            BatchNorm,
            train=train,
            axis_name=self.axis_name,
            dtype=self.dtype,
            param_dtype=param_dtype,
        )
        x = conv(16, (3, 3), padding=1, name="conv_in")(images)
        kind = remat.block(Block, self.remat if train else "none")
        for group in range(3):
            for block in range((self.depth - 4) // 6):
                x = kind(
                    features=16 * 2**group * self.width,
                    stride=2 if group > 0 and block == 0 else 1,
                    conv=conv,
                    norm=norm,
                    name=f"group{group}_block{block}",
                )(x)
        x = nn.relu(norm(name="bn_out")(x))
        x = x.astype(param_dtype).mean((1, 2))
        return nn.Dense(
            self.num_classes,
            kernel_init=he_normal,
            precision=self.precision,
            dtype=param_dtype,
            param_dtype=param_dtype,
            name="head",
        )(x)


class TemplateLayers(NamedTuple):
    """Layers of one group whose weights may be mixtures of templates, as `kinds.mixed` takes them.

    Groups are those of the published code: 'input_layer'; 'adapter', each group's first block;
    'conv_block', the other blocks; 'head'.
    """

    group: str
    pattern: str
    num_templates: int
    split: int
    biases: bool = False


def template_layers(depth: int, width: int) -> list[TemplateLayers]:
    """How the published code mixes the layers of a Wide ResNet from templates."""
    blocks = (depth - 4) // 6
    most = max(2 * blocks - 1, 1)
    found = [
        TemplateLayers("input_layer", "conv_in/kernel", 10, 1),
        TemplateLayers("head", "head/kernel", 10, 1, biases=True),
    ]
    for group in range(3):
        inputs = 16 * width * 2 ** (group - 1) if group else 16
        widens = 16 * width * 2**group // inputs
        first = f"group{group}_block0"
        if widens > 1:
            num_templates = 2 * most if widens <= 2 else most
            found.append(TemplateLayers("adapter", f"{first}/conv1/kernel", num_templates, 1))
            found.append(TemplateLayers("adapter", f"{first}/conv_shortcut/kernel", most, 1))
        names = "conv2" if widens > 1 else "conv[12]"
        found.append(TemplateLayers("adapter", f"{first}/{names}/kernel", 2 * most, 2))
        if blocks > 1:
            others = f"group{group}_block[1-9][0-9]*/conv[12]/kernel"
            found.append(TemplateLayers("conv_block", others, 2 * most, 2))
    return found
