"""The one place that knows devices: lifting per-device functions, and placing arrays."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lpw_jax.errors import UserError, first_line

AXIS = "devices"


def found() -> list[jax.Device]:
    """The devices of all hosts. To be called where a program first needs any.

    Raises:
      UserError: JAX finds none of the kind that it was told to use.
    """
    try:
        return jax.devices()
    except (AssertionError, RuntimeError) as error:  # so it says it
        raise UserError(
            f"JAX_PLATFORMS = {jax.config.jax_platforms!r}: JAX cannot use such a device here; "
            "unset it, or install JAX for it, as `pip install -e '.[cuda]'` or '.[tpu]' do "
            f"({first_line(error)})"
        ) from error


@dataclasses.dataclass(frozen=True)
class Devices:
    """The devices of all hosts, in one order, driven with `jax.pmap`.

    Arrays that every device needs whole are *replicated* (pmap axis None); arrays with a leading
    device axis are *sharded* (axis 0). Both are placed once, so that a call moves nothing. Every
    host calls the same functions in the same order with the same host arrays.
    """

    all: tuple[jax.Device, ...]

    @classmethod
    def over(cls, devices: Sequence[jax.Device] | None = None) -> "Devices":
        """Over `devices`, by default all; ordered by host, as `unshard` needs them."""
        devices = found() if devices is None else devices
        return cls(tuple(sorted(devices, key=lambda device: (device.process_index, device.id))))

    @property
    def count(self) -> int:
        return len(self.all)

    def lift(
        self,
        fn: Callable,
        *,
        in_axes: Sequence[Any],
        out_axes: Any,
        donate_argnums: Sequence[int] = (),
    ) -> Callable:
        """`fn` of one device, with collectives over `AXIS`, on all devices at once.

        Axes are None, 0, or trees of these, which must be hashable.
        """
        return jax.pmap(
            fn,
            axis_name=AXIS,
            in_axes=tuple(in_axes),
            out_axes=out_axes,
            devices=self.all,
            donate_argnums=tuple(donate_argnums),
        )

    def replicate(self, tree: Any) -> Any:
        """Copies every leaf to every device. Never aliases its argument."""
        return self._put(tree, PartitionSpec())

    @property
    def own(self) -> list[int]:
        """Positions of this host's devices."""
        here = jax.process_index()
        return [i for i, device in enumerate(self.all) if device.process_index == here]

    def shard(self, tree: Any) -> Any:
        """Places host leaves [D, ...], one entry per device; each host takes its own devices'."""
        own = jax.tree.map(lambda leaf: np.asarray(leaf)[self.own], tree)
        return self._put(own, PartitionSpec(AXIS))

    def send(self, tree: Any) -> Any:
        """Places leaves [len(own), ...] of this host's own devices, for functions that donate none.

        May alias its argument.
        """
        return jax.device_put(tree, self._sharding(PartitionSpec(AXIS)))

    def unshard(self, tree: Any) -> Any:
        """Inverse of `shard`: host leaves [D, ...], whole on every host."""
        tree = jax.tree.map(np.array, tree)
        return multihost_utils.process_allgather(tree, tiled=True)

    def _put(self, tree: Any, spec: PartitionSpec) -> Any:
        # A copy through the host: device_put alone may alias, and donation would then delete both.
        sharding = self._sharding(spec)
        return jax.tree.map(lambda leaf: jax.device_put(np.array(leaf), sharding), tree)

    def _sharding(self, spec: PartitionSpec) -> NamedSharding:
        return NamedSharding(Mesh(np.array([self.all[i] for i in self.own]), (AXIS,)), spec)
