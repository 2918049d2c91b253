"""Densely connected networks for ImageNet (Huang et al., 2017) in torchvision's form."""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from lpw_jax.models import remat, torchvision
from lpw_jax.models.wide_resnet import he_normal


class DenseLayer(nn.Module):
    """A 1x1 and a 3x3 convolution, pre-activation; `growth` new channels join the input's."""

    growth: int
    bn_size: int
    conv: Callable[..., nn.Module]
    norm: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] to [B, H, W, C + growth]."""
        y = nn.relu(self.norm(name="bn1")(x))
        y = self.conv(self.bn_size * self.growth, (1, 1), padding=0, name="conv1")(y)
        y = nn.relu(self.norm(name="bn2")(y))
        y = self.conv(self.growth, (3, 3), padding=1, name="conv2")(y)
        return jnp.concatenate([x, y], axis=-1)


class Transition(nn.Module):
    """Halves channels and, by average pooling, height and width."""

    conv: Callable[..., nn.Module]
    norm: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] to [B, H / 2, W / 2, C / 2]."""
        y = nn.relu(self.norm(name="bn")(x))
        y = self.conv(x.shape[-1] // 2, (1, 1), padding=0, name="conv")(y)
        # Not nn.avg_pool, which divides by an integer: strict dtype promotion forbids it.
        return nn.pool(y, 0.0, jax.lax.add, (2, 2), (2, 2), "VALID") * 0.25


class DenseNet(nn.Module):
    """DenseNet-BC, without dropout; by default DenseNet-161.

    Attributes:
      num_classes: outputs of the linear head.
      stage_sizes: layers in each of the groups ("dense blocks").
      growth: channels that each layer adds.
      features_in: channels after the stem.
      bn_size: channels between a layer's two convolutions, in units of `growth`.
      axis_name, dtype, precision, conv_general_dilated, remat: as in `WideResNet`.
    """

    num_classes: int
    stage_sizes: Sequence[int] = (6, 12, 36, 24)
    growth: int = 48
    features_in: int = 96
    bn_size: int = 4
    axis_name: str | None = None
    dtype: Any = jnp.float32
    precision: str = "highest"
    conv_general_dilated: Callable[..., jax.Array] | None = None
    remat: str = "none"

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Normalised images [B, H, W, 3] to logits [B, num_classes]."""
        conv, norm = torchvision.layers(self, train=train, kernel_init=he_normal)
        x = torchvision.stem(images, self.features_in, conv=conv, norm=norm)
        kind = remat.block(DenseLayer, self.remat if train else "none")
        for group, depth in enumerate(self.stage_sizes):
            if group:
                x = Transition(conv=conv, norm=norm, name=f"transition{group - 1}")(x)
            for layer in range(depth):
                x = kind(
                    growth=self.growth,
                    bn_size=self.bn_size,
                    conv=conv,
                    norm=norm,
                    name=f"group{group}_layer{layer}",
                )(x)
        x = nn.relu(norm(name="bn_out")(x))
        return torchvision.head(self, x, bias_init=nn.initializers.zeros)
