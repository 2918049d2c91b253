"""A network from outside the package, called as the package's own are."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from lpw_jax import registry
from lpw_jax.errors import UserError
from lpw_jax.models.layers import BATCH_NORM_EPSILON, BatchNorm

_FIELD = "model.name"


class OwnNetwork:
    """The flax module that a function of one's own gives, with the methods that a run uses.

    The function is 'package.module:function'. It is called with those of these keyword arguments
    that are in its signature by name: `num_classes`, `depth` and `width` (of the config), `dtype`
    (of activations), `precision` (of products), `axis_name` (the device axis over which batch norm
    takes its statistics, or None) and `conv_general_dilated` (what computes convolutions, None for
    JAX's). The module maps normalised images [B, H, W, C] to logits [B, num_classes]; its
    `__call__` may take `train`, in which mode it may draw random numbers of the collection
    'dropout'. Its variables are `params` and, if it has batch norms, `batch_stats`. These are
    `lpw_jax.models.layers.BatchNorm` or, without SWA, flax's own with `epsilon=1e-5`.

    Attributes:
      num_classes, dtype, axis_name, conv_general_dilated: what it was built with.
      module: the flax module.
    """

    def __init__(self, name: str, **options: Any):
        """Builds the module.

        Raises:
          UserError: `name` is no function, it fails, or what it gives is no flax module.
        """
        self.name, self._options = name, options
        self.num_classes, self.dtype = options["num_classes"], options["dtype"]
        self.axis_name = options.get("axis_name")
        self.conv_general_dilated = options.get("conv_general_dilated")
        self.module = registry.call(name, _FIELD, options)
        if not isinstance(self.module, nn.Module):
            raise self._error(f"must give a flax.linen Module, not {self.module!r}")
        self._takes_train = bool(registry.accepted(type(self.module).__call__, {"train": None}))

    def clone(self, **changed: Any) -> "OwnNetwork":
        """Built anew with other options; one that the function does not take changes nothing."""
        return OwnNetwork(self.name, **self._options | changed)

    def init(self, key: jax.Array, images: jax.Array) -> dict[str, Any]:
        """`params` and `batch_stats`, the latter perhaps empty, for images [B, H, W, C]."""
        return {"batch_stats": {}, **self.module.init(key, images, **self._mode(False))}

    def apply(
        self,
        variables: dict[str, Any],
        images: jax.Array,
        *,
        train: bool = False,
        mutable: Any = False,
        rngs: Any = None,
    ) -> Any:
        """Logits [B, num_classes], float32 or wider; with `mutable` also what was written."""
        kept = {name: tree for name, tree in variables.items() if tree}
        found = self.module.apply(kept, images, mutable=mutable, rngs=rngs, **self._mode(train))
        logits, updated = (found, None) if mutable is False else found
        logits = logits.astype(np.promote_types(logits.dtype, np.float32))
        return logits if mutable is False else (logits, {"batch_stats": {}, **updated})

    def check(self, image_shape: Sequence[int], *, averages: bool = False) -> None:
        """Refuses what a run could not train, by shapes alone, for images [H, W, C].

        `averages` tells whether there is SWA, for which statistics are taken anew.

        Raises:
          UserError: it fails, gives other than logits, or has other variables than it may.
        """
        owners = []

        def note(method, args, kwargs, context):
            result = method(*args, **kwargs)
            stats = context.module.variables.get("batch_stats", {})
            if any(not isinstance(value, dict) for value in stats.values()):
                owners.append(context.module)
            return result

        images = jax.ShapeDtypeStruct((2, *image_shape), self.dtype)
        with registry.speaking_of(_FIELD, self.name):
            with nn.intercept_methods(note):
                variables = jax.eval_shape(self.init, jax.random.key(0), images)
            logits, _ = jax.eval_shape(self._train_mode, variables, images)
        if not variables.get("params"):
            raise self._error("must have parameters, but has none")
        if others := sorted(variables.keys() - {"params", "batch_stats"}):
            raise self._error(f"must have no variables but params and batch_stats, not {others}")
        expected = (2, self.num_classes)
        if logits.shape != expected or not jnp.issubdtype(logits.dtype, jnp.floating):
            found = f"{logits.dtype} {list(logits.shape)}"
            raise self._error(f"must give logits {list(expected)} for two images, not {found}")
        for layer in owners:
            epsilon = getattr(layer, "epsilon", BATCH_NORM_EPSILON)
            if not isinstance(layer, BatchNorm) and (averages or epsilon != BATCH_NORM_EPSILON):
                raise self._error(
                    f"must, with SWA or an epsilon other than {BATCH_NORM_EPSILON}, take its batch "
                    f"norms from lpw_jax.models.layers, not {type(layer).__name__} of flax"
                )
        if owners and not self._takes_axis_name:
            raise self._error(
                "must take axis_name and give it to its batch norms, whose statistics are those of "
                "all devices' images"
            )

    @property
    def _takes_axis_name(self) -> bool:
        return bool(registry.accepted(registry.resolve(self.name, _FIELD), {"axis_name": None}))

    def _train_mode(self, variables, images):
        rngs = {"dropout": jax.random.key(0)}
        return self.apply(variables, images, train=True, mutable=["batch_stats"], rngs=rngs)

    def _mode(self, train: bool) -> dict[str, bool]:
        return {"train": train} if self._takes_train else {}

    def _error(self, rule: str) -> UserError:
        return UserError(f"{_FIELD} = {self.name!r}: {rule}")
