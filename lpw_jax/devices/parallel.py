"""The one place that knows devices: lifting per-device functions, and placing arrays."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lpw_jax.devices import cpu
from lpw_jax.errors import UserError, first_line

AXIS = "devices"  # over the devices of a group, which are all where there is one group
GROUPS = "groups"  # over the groups


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

    Arrays that every device needs whole are *replicated* (axis None); arrays with a leading axis of
    D devices (axis 0) or G groups (axis `GROUPS`) are *sharded*. All are placed once, so that a
    call moves nothing. Every host calls the same functions in the same order with the same host
    arrays. With `pmap` a placed array is that of this host's devices, with `shard_map` that of all.

    Attributes:
      all: the devices, by host.
      backend: 'pmap' or 'shard_map'; results are the same, bit for bit. `pmap` has one axis, so
        that its groups are all devices or each a device of its own.
      num_groups: G, groups of neighbours, for what is divided over groups and over the devices of
        each.
    """

    all: tuple[jax.Device, ...]
    backend: str = "pmap"
    num_groups: int = 1

    @classmethod
    def over(
        cls, devices: Sequence[jax.Device] | None = None, *, backend: str = "pmap"
    ) -> "Devices":
        """Over `devices`, by default all; ordered by host, as `unshard` needs them."""
        devices = found() if devices is None else devices
        in_order = sorted(devices, key=lambda device: (device.process_index, device.id))
        return cls(tuple(in_order), backend)

    def in_groups(self, num_groups: int) -> "Devices":
        """The same devices in so many groups; what was placed without groups is placed here, too.

        Raises:
          ValueError: the groups cannot be equal, or `backend` has none such.
        """
        if self.count % num_groups:
            raise ValueError(f"num_groups: must divide {self.count} devices, got {num_groups}")
        if self.backend == "pmap" and num_groups not in (1, self.count):
            raise ValueError(
                f"num_groups: must be 1 or {self.count} with pmap, which has one axis, "
                f"got {num_groups}"
            )
        return dataclasses.replace(self, num_groups=num_groups)

    @property
    def count(self) -> int:
        return len(self.all)

    @property
    def group_size(self) -> int:
        """Devices in a group."""
        return self.count // self.num_groups

    @property
    def axes(self) -> dict[str, str | None]:
        """What groups share members over, and their devices minibatches, as in `LatePhase`."""
        alone = self.num_groups > 1 and self.group_size == 1
        return {
            "batch_axis": None if alone else AXIS,
            "member_axis": GROUPS if self.num_groups > 1 else None,
        }

    @property
    def layout(self) -> str:
        """How members are shared, in words."""
        if self.num_groups == 1:
            return "data"
        if self.group_size == 1:
            return "members"
        return f"groups, {self.num_groups} of {self.group_size} devices"

    def lift(
        self,
        fn: Callable,
        *,
        in_axes: Sequence[Any],
        out_axes: Any,
        donate_argnums: Sequence[int] = (),
    ) -> Callable:
        """`fn` of one device, with collectives over `axes`, on all devices at once.

        Axes of arrays are None, 0, `GROUPS`, or trees of these, which must be hashable.
        """
        in_axes, donated = tuple(in_axes), tuple(donate_argnums)
        on_cpus = self.all[0].platform == "cpu"
        options = cpu.compiler_options() if on_cpus else {}
        if self.backend == "pmap":
            mapped = jax.pmap(
                fn,
                axis_name=self._pmap_axis_name,
                in_axes=_by_axis(_pmap_axis, in_axes),
                out_axes=_by_axis(_pmap_axis, out_axes),
                devices=self.all,
                donate_argnums=donated,
            )
            if not options or jax.process_count() > 1:
                return mapped

            def with_options(*args):  # which pmap takes none of
                return mapped(*args)

            return jax.jit(with_options, donate_argnums=donated, compiler_options=options)

        def on_entries(*args):
            found = fn(*_sharded_leaves(lambda leaf: leaf[0], in_axes, args))
            return _sharded_leaves(lambda leaf: leaf[None], out_axes, found)

        in_specs, out_specs = (_by_axis(_spec, axes) for axes in (in_axes, out_axes))
        # Unchecked, as in pmap: JAX then sums no gradient over devices by itself.
        mapped = jax.shard_map(
            on_entries, mesh=self._mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False
        )
        in_shardings, out_shardings = (
            jax.tree.map(functools.partial(NamedSharding, self._mesh), specs)
            for specs in (in_specs, out_specs)
        )
        return jax.jit(
            mapped,
            in_shardings=in_shardings,
            out_shardings=out_shardings,
            donate_argnums=donated,
            compiler_options=options,
        )

    @property
    def own(self) -> list[int]:
        """Positions of this host's devices."""
        here = jax.process_index()
        return [i for i, device in enumerate(self.all) if device.process_index == here]

    def replicate(self, tree: Any) -> Any:
        """Copies every leaf to every device. Never aliases its argument."""
        return self._put(_copied(tree), None)

    def shard(self, tree: Any, axis: Any = 0) -> Any:
        """Places host leaves [D, ...], one entry per device, or [G, ...], one per group.

        `axis` says which, 0 or `GROUPS`. Each host takes the entries of its own devices.
        """
        size = self.group_size if axis == GROUPS else 1
        entries = [i // size for i in self.own]
        return self._put(_copied(jax.tree.map(lambda leaf: np.asarray(leaf)[entries], tree)), axis)

    def send(self, tree: Any) -> Any:
        """Places leaves [len(own), ...] of this host's own devices, for functions that donate none.

        May alias its argument.
        """
        return self._put(tree, 0)

    def unshard(self, tree: Any) -> Any:
        """Inverse of `shard`: host leaves [D, ...] or [G, ...], whole on every host."""
        own = jax.tree.map(lambda x: np.array(x) if x.is_fully_addressable else x, tree)
        return multihost_utils.process_allgather(own, tiled=True)

    def _put(self, tree: Any, axis: Any) -> Any:
        """Places leaves whole (axis None), or [len(own), ...], on this host's devices."""
        name = self._pmap_axis_name  # placed under another, a program would be traced twice
        own = Mesh(np.array([self.all[i] for i in self.own]), (name,))
        spec = PartitionSpec() if axis is None else PartitionSpec(name)
        placed = jax.device_put(tree, NamedSharding(own, spec))
        if self.backend == "pmap":
            return placed
        sharding = NamedSharding(self._mesh, _spec(axis))
        entries = {None: None, 0: self.count, GROUPS: self.num_groups}[axis]

        def of_all_hosts(leaf):
            shape = leaf.shape if entries is None else (entries, *leaf.shape[1:])
            parts = [shard.data for shard in leaf.addressable_shards]
            return jax.make_array_from_single_device_arrays(shape, sharding, parts)

        return jax.tree.map(of_all_hosts, placed)

    @property
    def _pmap_axis_name(self) -> str:
        return self.axes["batch_axis"] or GROUPS

    @property
    def _mesh(self) -> Mesh:
        """For `shard_map`."""
        return Mesh(np.array(self.all).reshape(self.num_groups, -1), (GROUPS, AXIS))


def _pmap_axis(axis: Any) -> int | None:
    return None if axis is None else 0


def _spec(axis: Any) -> PartitionSpec:
    if axis is None:
        return PartitionSpec()
    return PartitionSpec(GROUPS) if axis == GROUPS else PartitionSpec((GROUPS, AXIS))


def _by_axis(change: Callable, axes: Any, *trees: Any) -> Any:
    """`change` of each axis, and of the parts of `trees` that it is for."""
    return jax.tree.map(change, axes, *trees, is_leaf=lambda axis: axis is None)


def _sharded_leaves(change: Callable, axes: Any, tree: Any) -> Any:
    """`tree` with its sharded leaves changed; `axes` is a prefix of it."""
    return _by_axis(
        lambda axis, part: part if axis is None else jax.tree.map(change, part), axes, tree
    )


def _copied(tree: Any) -> Any:
    """Through the host: placing alone may alias, and donation would then delete both."""
    return jax.tree.map(np.array, tree)
