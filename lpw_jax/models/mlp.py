"""A multilayer perceptron with batch norm, for comparisons that take minutes on a CPU."""

import jax
from flax import linen as nn


class MLP(nn.Module):
    """Two hidden layers of `width` units, each with batch norm and ReLU, and a linear head."""

    num_classes: int
    width: int
    axis_name: str | None = None

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        """Normalised images [B, H, W, C] to logits [B, num_classes]."""
        x = images.reshape(len(images), -1)
        for i in range(2):
            x = nn.Dense(self.width, use_bias=False, name=f"dense{i}")(x)
            norm = nn.BatchNorm(not train, momentum=0.9, axis_name=self.axis_name, name=f"bn{i}")
            x = nn.relu(norm(x))
        return nn.Dense(self.num_classes, name="head")(x)


def build(num_classes: int, width: int, axis_name: str | None = None) -> nn.Module:
    """What `config.model.name = "lpw_jax.models.mlp:build"` names."""
    return MLP(num_classes, width, axis_name)
