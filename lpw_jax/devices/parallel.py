"""The one place that knows devices: lifting per-device functions, and placing arrays."""

import dataclasses
import functools
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
    """The devices of all hosts, in one order, driven with `jax.pmap` or `jax.shard_map`.

    Arrays that every device needs whole are *replicated* (axis None); arrays with a leading device
    axis are *sharded* (axis 0). Both are placed once, so that a call moves nothing. Every host
    calls the same functions in the same order with the same host arrays. With `pmap` a placed array
    is that of this host's devices, with `shard_map` that of all.

    Attributes:
      all: the devices, by host.
      backend: 'pmap' or 'shard_map'; results are the same, bit for bit.
    """

    all: tuple[jax.Device, ...]
    backend: str = "pmap"

    @classmethod
    def over(
        cls, devices: Sequence[jax.Device] | None = None, *, backend: str = "pmap"
    ) -> "Devices":
        """Over `devices`, by default all; ordered by host, as `unshard` needs them."""
        devices = found() if devices is None else devices
        in_order = sorted(devices, key=lambda device: (device.process_index, device.id))
        return cls(tuple(in_order), backend)

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
        in_axes, donated = tuple(in_axes), tuple(donate_argnums)
        if self.backend == "pmap":
            return jax.pmap(
                fn,
                axis_name=AXIS,
                in_axes=in_axes,
                out_axes=out_axes,
                devices=self.all,
                donate_argnums=donated,
            )

        def on_entries(*args):
            found = fn(*_sharded_leaves(lambda leaf: leaf[0], in_axes, args))
            return _sharded_leaves(lambda leaf: leaf[None], out_axes, found)

        mesh = self._mesh(self.all)
        in_specs, out_specs = map(_specs, (in_axes, out_axes))
        # Unchecked, as in pmap: JAX then sums no gradient over devices by itself.
        mapped = jax.shard_map(
            on_entries, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False
        )
        in_shardings, out_shardings = (
            jax.tree.map(functools.partial(NamedSharding, mesh), specs)
            for specs in (in_specs, out_specs)
        )
        return jax.jit(
            mapped, in_shardings=in_shardings, out_shardings=out_shardings, donate_argnums=donated
        )

    @property
    def own(self) -> list[int]:
        """Positions of this host's devices."""
        here = jax.process_index()
        return [i for i, device in enumerate(self.all) if device.process_index == here]

    def replicate(self, tree: Any) -> Any:
        """Copies every leaf to every device. Never aliases its argument."""
        return self._put(_copied(tree), PartitionSpec())

    def shard(self, tree: Any) -> Any:
        """Places host leaves [D, ...], one entry per device; each host takes its own devices'."""
        own = jax.tree.map(lambda leaf: np.asarray(leaf)[self.own], tree)
        return self._put(_copied(own), PartitionSpec(AXIS))

    def send(self, tree: Any) -> Any:
        """Places leaves [len(own), ...] of this host's own devices, for functions that donate none.

        May alias its argument.
        """
        return self._put(tree, PartitionSpec(AXIS))

    def unshard(self, tree: Any) -> Any:
        """Inverse of `shard`: host leaves [D, ...], whole on every host."""
        own = jax.tree.map(lambda x: np.array(x) if x.is_fully_addressable else x, tree)
        return multihost_utils.process_allgather(own, tiled=True)

    def _put(self, tree: Any, spec: PartitionSpec) -> Any:
        """Places leaves whole, or [len(own), ...], on this host's devices."""
        own = self._mesh([self.all[i] for i in self.own])
        placed = jax.device_put(tree, NamedSharding(own, spec))
        if self.backend == "pmap":
            return placed
        sharding = NamedSharding(self._mesh(self.all), spec)

        def of_all_hosts(leaf):
            shape = (self.count, *leaf.shape[1:]) if spec else leaf.shape
            parts = [shard.data for shard in leaf.addressable_shards]
            return jax.make_array_from_single_device_arrays(shape, sharding, parts)

        return jax.tree.map(of_all_hosts, placed)

    def _mesh(self, devices: Sequence[jax.Device]) -> Mesh:
        return Mesh(np.array(devices), (AXIS,))


def _is_none(x: Any) -> bool:
    return x is None


def _specs(axes: Any) -> Any:
    return jax.tree.map(
        lambda axis: PartitionSpec() if axis is None else PartitionSpec(AXIS),
        axes,
        is_leaf=_is_none,
    )


def _sharded_leaves(change: Callable, axes: Any, tree: Any) -> Any:
    """`tree` with its sharded leaves changed; `axes` is a prefix of it."""
    return jax.tree.map(
        lambda axis, part: part if axis is None else jax.tree.map(change, part),
        axes,
        tree,
        is_leaf=_is_none,
    )


def _copied(tree: Any) -> Any:
    """Through the host: placing alone may alias, and donation would then delete both."""
    return jax.tree.map(np.array, tree)
