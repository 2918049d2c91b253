"""The one place that knows devices: lifting per-device functions, and placing arrays."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

AXIS = "devices"


@dataclasses.dataclass(frozen=True)
class DataParallel:
    """Data parallelism with `jax.pmap` over `devices`.

    Arrays that every device needs whole are *replicated* (pmap axis None); arrays with a leading
    device axis are *sharded* (axis 0). Both are placed once, so that a call moves nothing.
    """

    devices: tuple[jax.Device, ...]

    @classmethod
    def over(cls, devices: Sequence[jax.Device] | None = None) -> "DataParallel":
        """Over `devices`, by default all."""
        return cls(tuple(jax.devices() if devices is None else devices))

    @property
    def num_devices(self) -> int:
        return len(self.devices)

    def lift(
        self,
        fn: Callable,
        *,
        in_axes: Sequence[int | None],
        out_axes: Any,
        donate_argnums: Sequence[int] = (),
    ) -> Callable:
        """`fn` of one device, with collectives over `AXIS`, on all devices at once."""
        return jax.pmap(
            fn,
            axis_name=AXIS,
            in_axes=tuple(in_axes),
            out_axes=out_axes,
            devices=self.devices,
            donate_argnums=tuple(donate_argnums),
        )

    def replicate(self, tree: Any) -> Any:
        """Copies every leaf to every device. Never aliases its argument."""
        return self._put(tree, PartitionSpec())

    def shard(self, tree: Any) -> Any:
        """Leaves [D, ...] with one entry per device."""
        return self._put(tree, PartitionSpec(AXIS))

    def _put(self, tree: Any, spec: PartitionSpec) -> Any:
        sharding = NamedSharding(Mesh(np.array(self.devices), (AXIS,)), spec)
        # A copy through the host: device_put alone may alias, and donation would then delete both.
        return jax.tree.map(lambda leaf: jax.device_put(np.array(leaf), sharding), tree)
