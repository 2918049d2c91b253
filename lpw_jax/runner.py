"""Training on devices: an epoch of cycles, and the pass that re-estimates statistics after SWA."""

from collections import deque
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax import linen as nn

from lpw_jax import late_phase as lp
from lpw_jax import step as steps
from lpw_jax.data import in_memory
from lpw_jax.parallel import AXIS, DataParallel
from lpw_jax.schedules import Rates
from lpw_jax.state import TrainState

CYCLES_IN_FLIGHT = 2  # dispatched and not yet finished; bounds memory and keeps progress honest


class Runner:
    """The compiled programs of a run, with the training set on every device.

    Args:
      devices: where to run.
      model: network without a device axis.
      tx: from `optimizers.sgd`.
      coasting: as in `late_phase.coasting_steps`.
      member_mode: as in `step.over_members`.
      batch: from `in_memory.make_batch`.
      images: uint8 [N, H, W, C].
      labels: int32 [N].
      batch_size: examples in a minibatch, divisible by the number of devices.
    """

    def __init__(
        self,
        *,
        devices: DataParallel,
        model: nn.Module,
        tx: Any,
        coasting: str,
        member_mode: str,
        batch: Callable,
        images: np.ndarray,
        labels: np.ndarray,
        batch_size: int,
    ):
        self._devices = devices
        self._batch_size = batch_size
        self._data = devices.replicate({"image": images, "label": labels})
        # Batch norm takes its statistics over the whole minibatch, which all devices share.
        shared_batch_model = model.clone(axis_name=AXIS)
        cycle = in_memory.make_cycle(batch)
        train_step = steps.make_train_step(
            model=shared_batch_model,
            tx=tx,
            coasting=coasting,
            member_mode=member_mode,
            axis_name=AXIS,
        )

        def train_cycle(state, data, order, first_step, rates):
            return train_step(state, cycle(data, order, first_step, state.step), rates)

        self._train_cycle = devices.lift(
            train_cycle,
            in_axes=(None, None, 0, None, None),
            out_axes=(None, None),
            donate_argnums=(0,),
        )

        def statistics_program(model):
            step = steps.make_statistics_step(model=model, member_mode=member_mode)

            def statistics(weights, batch_stats, data, index, number, momentum):
                image = batch(data, index, number)["image"]
                return step(weights["shared"], weights["late_phase"], batch_stats, image, momentum)

            return devices.lift(
                statistics, in_axes=(None, None, None, 0, None, None), out_axes=None
            )

        self._statistics = statistics_program(shared_batch_model)
        # The last, short batch may not divide by the devices: each then sees all of it.
        self._short_statistics = statistics_program(model)

    def train_epoch(
        self,
        state: TrainState,
        order: np.ndarray,
        rates: Rates,
        on_cycle: Callable[[int], None] = lambda num_minibatches: None,
    ) -> tuple[TrainState, dict[str, np.ndarray]]:
        """Trains on the examples of `order` [N], cycle after cycle. `state` is donated.

        Returns the new state and `loss` and `accuracy` of every minibatch, each [cycles, K].
        """
        num_members = lp.num_members(state.late_phase)
        order = in_memory.split_order(
            order,
            num_members=num_members,
            batch_size=self._batch_size,
            num_devices=self._devices.num_devices,
        )
        num_cycles = order.shape[1]
        order = self._devices.shard(order)
        first_step, rates = self._devices.replicate((state.step, rates))
        history, in_flight = [], deque()
        for _ in range(num_cycles):
            state, metrics = self._train_cycle(state, self._data, order, first_step, rates)
            history.append(metrics)
            in_flight.append(metrics)
            if len(in_flight) > CYCLES_IN_FLIGHT:
                jax.block_until_ready(in_flight.popleft())
            on_cycle(num_members)
        return state, jax.tree.map(lambda *values: np.stack(values), *jax.device_get(history))

    def reestimate_statistics(
        self,
        weights: dict[str, Any],
        batch_stats: Any,
        order: np.ndarray,
        first_step: int,
        on_batch: Callable[[int], None] = lambda num_minibatches: None,
    ) -> Any:
        """Cumulative batch-norm statistics of every member over all examples of `order` [N].

        `weights` holds `shared` and `late_phase`; `batch_stats` gives the shapes. All members see
        every batch, augmented as training steps `first_step` and on; the last, short batch counts
        by its size (reference, SWA).
        """
        weights, batch_stats = self._devices.replicate((weights, batch_stats))
        for start in range(0, len(order), self._batch_size):
            index = order[start : start + self._batch_size]
            momentum = np.asarray(len(index) / (start + len(index)))
            number = np.asarray(first_step + start // self._batch_size, np.int32)
            if len(index) == self._batch_size:
                program, index = self._statistics, index.reshape(self._devices.num_devices, -1)
            else:
                program = self._short_statistics
                index = np.tile(index, (self._devices.num_devices, 1))
            batch_stats = program(
                weights,
                batch_stats,
                self._data,
                self._devices.shard(index),
                *self._devices.replicate((number, momentum)),
            )
            jax.block_until_ready(batch_stats)
            on_batch(1)
        return batch_stats
