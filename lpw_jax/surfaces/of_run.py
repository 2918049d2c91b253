"""The loss around the networks of a trained run: surface.json."""

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from numpy.typing import ArrayLike, NDArray

from lpw_jax import experiment, networks
from lpw_jax.data.source import Source
from lpw_jax.devices.preemption import Preemption
from lpw_jax.display import console
from lpw_jax.errors import NotFinite, SharedError
from lpw_jax.evaluation.evaluator import Evaluator
from lpw_jax.files import surface as files
from lpw_jax.files.run_files import SURFACE
from lpw_jax.files.surface import COLLAPSED, LAST, Surface
from lpw_jax.files.workdir import Workdir
from lpw_jax.method.members import select_members
from lpw_jax.method.state import State
from lpw_jax.method.trees import Tree, stack
from lpw_jax.models import functions
from lpw_jax.surfaces import hessian, points
from lpw_jax.surfaces.alike import alike, common_statistics

IMAGES = 512
EIGENVALUES, TOLERANCE, PROBES = 3, 0.01, 20
SIZES, DRAWS = (0.01, 0.03, 0.1, 0.3), 5
BETWEEN, THROUGH = np.linspace(0, 1, 21), np.linspace(-0.5, 1.5, 21)
SIDE = 15


def evaluate(
    evaluator: Evaluator,
    weights: Mapping[str, Mapping[str, Any]],
    num_images: int,
    folder: Workdir,
    preemption: Preemption,
) -> Surface:
    """Computes the surface on one device, writes surface.json and returns its contents.

    Args:
      weights: by `networks.to_weights`: `final`, and `last`, of a run with SWA those that it
        averaged last, if they are known.
      num_images: of the training set; rounded down to whole minibatches.

    Raises:
      UserError: the weights do not fit the network, or a training image is damaged.
      NotFinite: the loss of a network is not finite.
      Preempted: between two products; nothing is written.
    """
    start = time.monotonic()
    config, dataset = evaluator.config, evaluator.dataset
    # JAX's own convolutions: written-out gradients have no derivatives in forward mode.
    model = experiment.build_model(config, dataset.num_classes, member_mode="vmap")
    shape, where = dataset.image_shape, str(folder.path / "weights")
    states = {
        name: networks.from_weights(config, found, dataset.num_classes, where, shape)
        for name, found in weights.items()
    }
    names, stacked = _networks(states, model, shape)
    source = experiment.training_images(config, dataset)
    batches = _batches(source, num_images, config.train.batch_size)
    loss = _Loss(functions.forward(model), evaluator.task.loss, batches, preemption.check)
    batch_size = len(batches[0]["label"])
    console.say(f"loss of {len(names)} networks on {len(batches) * batch_size:,} training images")
    network_of = jax.jit(lambda stacked, number: jax.tree.map(lambda leaf: leaf[number], stacked))
    found = {}
    for number, name in enumerate(names):
        found[name] = _curvature(loss, network_of(stacked, number), name)
        console.say(f"{name}: {_told(found[name])}")
    lines = [
        files.Line(
            start=names[a],
            end=names[b],
            at=at.tolist(),
            **loss.on(stacked, points.line(a, b, len(names), at)),
        )
        for a, b, at in _ends(names)
    ]
    plane, notes = _plane(loss, names, stacked)
    surface = Surface(
        images=len(batches) * batch_size,
        batch_size=batch_size,
        num_weights=hessian.num_weights(stacked[0]) // len(names),
        seconds=time.monotonic() - start,
        networks=found,
        lines=lines,
        plane=plane,
        notes=notes,
    )
    folder.write_json(SURFACE, surface)
    return surface


class _Loss:
    """The mean loss over fixed images, and what is computed of it, batch by batch on the host."""

    def __init__(
        self,
        forward: Callable[[Tree, Tree, jax.Array], Any],
        loss: Callable[..., tuple[jax.Array, dict[str, jax.Array]]],
        batches: Sequence[Mapping[str, jax.Array]],
        check: Callable[[], None],
    ):
        self._batches, self._check = batches, check

        def of_network(params, model_state, batch):
            value, metrics = loss(forward(params, model_state, batch["image"]), batch)
            return value, metrics["accuracy"]

        def of_point(stacked, coefficients, batch):
            return of_network(*points.affine(stacked, coefficients), batch)

        self._of_network, self._of_point = jax.jit(of_network), jax.jit(of_point)
        self._product = hessian.vector_product(lambda *network: of_network(*network)[0])
        self._perturbed = jax.jit(points.perturbed)

    def of(self, params: Tree, model_state: Tree) -> tuple[float, float]:
        """Loss and accuracy of one network."""
        return self._mean(self._of_network, params, model_state)

    def on(self, stacked: Tree, coefficients: NDArray) -> dict[str, list]:
        """`loss` and `accuracy` of points [..., P] of stacked networks, nested lists [...]."""
        flat = coefficients.reshape(-1, coefficients.shape[-1])
        found = np.array([self._mean(self._of_point, stacked, point) for point in flat])
        loss, accuracy = found.T.reshape(2, *coefficients.shape[:-1])
        accuracy = np.where(np.isfinite(loss), accuracy, np.nan)
        return {"loss": loss.tolist(), "accuracy": accuracy.tolist()}

    def perturbed(self, params: Tree, model_state: Tree, size: float) -> list[float]:
        """The loss of each draw, which are the same for every network."""
        keys = [jax.random.fold_in(jax.random.key(0), draw) for draw in range(DRAWS)]
        noisy = (self._perturbed(params, key, size) for key in keys)
        return [self.of(weights, model_state)[0] for weights in noisy]

    def hessian(self, params: Tree, model_state: Tree) -> hessian.Product:
        """Products of the Hessian at one network."""

        def product(vector: NDArray) -> NDArray:
            parts = (self._product(params, vector, model_state, b) for b in self._checked())
            total = sum(np.asarray(part, np.float64) for part in parts)
            return (total / len(self._batches)).astype(vector.dtype)

        return product

    def _mean(self, compute: Callable, *args: ArrayLike) -> NDArray:
        found = [compute(*args, batch) for batch in self._checked()]
        return np.mean(np.asarray(jax.device_get(found), np.float64), axis=0)

    def _checked(self) -> Iterator[Mapping[str, jax.Array]]:
        self._check()
        yield from self._batches


def _networks(states: Mapping[str, State], model: Any, shape: Any) -> tuple[list[str], Tree]:
    """Names and (params, model_state), every array [P, ...]: collapsed, members, `last`."""
    collapse = networks.collapse_of(model, shape)
    epsilon = networks.batch_norm_epsilon(model, shape)
    several = states["final"].num_members > 1
    members = range(states["final"].num_members if several else 0)
    names = [COLLAPSED, *(f"member {k}" for k in members), *([LAST] if "last" in states else [])]

    @jax.jit
    def stacked(final, *last):
        # The collapse of one member has ordinary weights, whatever its kind.
        alone = [select_members(final, [k]) for k in members]
        found = [collapse(state) for state in (final, *alone, *last)]
        statistics = common_statistics(final)
        return stack([alike(*network, statistics, epsilon=epsilon) for network in found])

    return names, stacked(*(states[name] for name in ("final", "last") if name in states))


def _batches(source: Source, num_images: int, batch_size: int) -> list[dict[str, jax.Array]]:
    """Minibatches of the same training images in every run on these data."""
    num_images = min(num_images, len(source))
    batch_size = min(batch_size, num_images)
    chosen = np.random.default_rng(0).permutation(len(source))
    chosen = chosen[: num_images // batch_size * batch_size].reshape(-1, batch_size)
    make = jax.jit(lambda feed: source.batch((), feed, 0))
    batches = [make(feed) for feed in source.feeds(chosen, epoch=0)]
    if not all(batch.pop("valid").all() for batch in batches):
        raise SharedError(
            "--surface: a damaged training image is among those chosen; take another number of them"
        )
    return batches


def _curvature(loss: _Loss, network: tuple[Tree, Tree], name: str) -> files.Curvature:
    value, accuracy = loss.of(*network)
    if not np.isfinite(value):
        raise NotFinite(f"the training loss of {name} is not finite: there is no surface around it")
    size, product = hessian.num_weights(network[0]), loss.hessian(*network)
    dtype = np.result_type(*(leaf.dtype for leaf in jax.tree.leaves(network[0])))
    options = dict(count=EIGENVALUES, tolerance=TOLERANCE, dtype=dtype)
    found = hessian.top_eigenvalues(product, size, **options)
    trace, trace_error = hessian.trace(product, size, probes=PROBES, dtype=dtype)
    return files.Curvature(
        loss=float(value),
        accuracy=float(accuracy),
        eigenvalues=found.values.tolist(),
        residuals=found.residuals.tolist(),
        trace=trace,
        trace_error=trace_error,
        perturbed=[files.Perturbed(size=s, loss=loss.perturbed(*network, s)) for s in SIZES],
    )


def _told(found: files.Curvature) -> str:
    values = ", ".join(f"{value:.4g}" for value in found.eigenvalues)
    trace = f"{found.trace:.4g} ± {found.trace_error:.2g}"
    return f"loss {found.loss:.4g}; Hessian: trace {trace}, largest eigenvalues {values}"


def _ends(names: Sequence[str]) -> Iterator[tuple[int, int, NDArray]]:
    """Numbers of the networks that lines go through, and where on the lines."""
    members = [number for number, name in enumerate(names) if name not in (COLLAPSED, LAST)]
    for a, b in itertools.combinations(members[:3], 2):
        yield a, b, BETWEEN
    for number, name in enumerate(names):
        if name != COLLAPSED:
            yield number, names.index(COLLAPSED), THROUGH


def _plane(
    loss: _Loss, names: Sequence[str], stacked: Tree
) -> tuple[files.Plane | None, list[str]]:
    """The plane through the first three members, or why there is none."""
    num_members = sum(name not in (COLLAPSED, LAST) for name in names)
    if not num_members:
        return None, ["With one member there are no lines between members, and there is no plane."]
    if num_members < 3:
        return None, ["The plane needs three members."]
    three, collapsed = (1, 2, 3), names.index(COLLAPSED)
    try:
        found = points.plane(stacked[0], three, side=SIDE, shown=[collapsed])
    except ValueError:
        return None, ["The first three members lie on a line, so there is no plane through them."]
    placed = {
        names[k]: files.Point(x=x, y=y, distance=float(found.distances[k]))
        for k in (*three, collapsed)
        for x, y in [found.positions[k].tolist()]
    }
    values = loss.on(stacked, found.coefficients)
    return files.Plane(x=found.x.tolist(), y=found.y.tolist(), networks=placed, **values), []
