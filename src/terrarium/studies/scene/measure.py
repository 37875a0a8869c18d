"""What each cell of `scene` grows or loads, and measures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from terrarium.evidence.rows import Row, measured
from terrarium.organisms.build import build
from terrarium.organisms.grow import grow
from terrarium.organisms.recipe import Recipe
from terrarium.progress import Progress
from terrarium.randomness import generator
from terrarium.store import Store
from terrarium.studies.scene.features import layer_dictionary
from terrarium.studies.scene.layers import layer_rows, points_of
from terrarium.studies.scene.loaded import open_network
from terrarium.studies.scene.networks import DISTANCE, LOADED
from terrarium.studies.scene.pictures import atlas_rows, slice_rows
from terrarium.studies.scene.removals import Float, says
from terrarium.worlds.scenes.world import Scenes

NETWORK, UNTRAINED, LINEAR, QUADRATIC = "network", "untrained", "linear", "quadratic"
ANSWERS = (NETWORK, QUADRATIC, LINEAR, UNTRAINED)
"""Who answers, in the order of figures; linear and quadratic are least squares on coordinates."""

FITTED = 4000
"""Training points that the baselines are fitted to."""

BINS = 5
"""Groups of surface points by curvature."""

FEWEST = 2 * BINS
"""Surface points that must have a curvature for anything to be said by it."""


@dataclass(frozen=True, eq=False)
class Subject:
    """A network, its scene, and points that it was not trained on.

    ``volume`` and ``near`` are points ``(n, 3)`` in the scene's box and near its surface,
    ``scale`` what a difference of outputs is multiplied by to be % of the diagonal (or of full
    intensity).
    """

    network: Any
    untrained: Any | None
    world: Scenes
    parameters: int
    scale: float
    volume: NDArray[np.float32] = field(repr=False)
    near: NDArray[np.float32] = field(repr=False)

    @property
    def outputs(self) -> int:
        """Channels of the output."""
        return self.world.output.dimensions

    def truth(self, points: NDArray[np.floating]) -> Float:
        """Return the exact answers ``(n, outputs)``."""
        return self.world.optimum(self.world.at(np.asarray(points, np.float32)))

    def error(self, points: NDArray[np.floating]) -> Float:
        """Return the network's signed error ``(n, outputs)`` in %."""
        return (says(self.network, points) - self.truth(points)) * self.scale


def measure_cell(spec: Mapping[str, Any], store_home: str, progress: Progress) -> list[Row]:
    """Grow or load a network and measure it; pure in ``spec``."""
    kind, seed, quantity = str(spec["network"]), int(spec["seed"]), str(spec["quantity"])
    found = _loaded(spec) if kind == LOADED else _grown(spec, Store(store_home), progress)
    factors = {"network": kind, "seed": seed, "quantity": quantity, "scene": spec["scene"]}
    if isinstance(found, Row):
        return [found.with_factors(**factors)]
    key = (kind, quantity, seed)
    rows = [measured("parameters", found.parameters, unit="parameters", n=1)]
    rows += error_rows(found, *key)
    rows += place_rows(found, spec["parts"], *key)
    at = points_of(found, int(spec["effect_points"]), spec["parts"], key)
    rows += layer_rows(found, at, int(spec["randoms"]), key)
    dictionary = layer_dictionary(found, spec, *key)
    rows += dictionary.rows(at, rows, int(spec["randoms"]), key)
    if spec["pictures"]:
        rows += slice_rows(found, int(spec["side"]))
        rows += atlas_rows(found, rows, dictionary)
    return [row.with_factors(**factors) for row in rows]


def _grown(spec: Mapping[str, Any], store: Store, progress: Progress) -> Subject | Row:
    seed = int(spec["seed"])
    recipe = Recipe.model_validate(spec["recipe"])
    (organism,) = grow([(recipe, seed)], store, progress)
    if organism.status != "grown":
        why = f"{recipe.name} {organism.status}: {organism.reason}"
        return Row("", "", "cell", "", None, {}, None, 1, "failed", why)
    network, world = organism.network(), organism.world.inner
    untrained = build(organism.model, [("organism", seed)]).eval()
    return _subject(network, untrained, world, network.parameters_per_member, spec)


def _loaded(spec: Mapping[str, Any]) -> Subject:
    network = open_network(spec["path"])
    world = Scenes.model_validate(spec["world"])
    count = sum(p.numel() for p in network.parameters())
    return _subject(network, None, world, count, spec)


def _subject(
    network: Any, untrained: Any, world: Scenes, parameters: int, spec: Mapping[str, Any]
) -> Subject:
    """Draw the points: unseen ones."""
    scale = 100.0 / (world.diagonal if world.quantity == DISTANCE else 1.0)
    n = int(spec["points"])
    drawn = {
        where: world.law.points(
            world.oracle, world.box, where, n, generator("scene", where, spec["seed"]), "test"
        )
        for where in ("volume", "near")
    }
    return Subject(network.eval(), untrained, world, parameters, scale, **drawn)


# Errors


def error_rows(subject: Subject, *key: str | int) -> list[Row]:
    """Return mean absolute errors in the volume and near the surface, %, and of baselines.

    ``worst_error`` is the larger of the network's two; ``removed`` the share of a baseline's mean
    error that the network does not make; ``right`` the share of points that the world's judge
    calls right.
    """
    train = subject.world.sample(FITTED, generator("scene", "baseline", *key), "train")
    means: dict[tuple[str, str], float] = {}
    rows = []
    for region, points in (("volume", subject.volume), ("near", subject.near)):
        truth = subject.truth(points)
        given = {NETWORK: says(subject.network, points)}
        for name, degree in ((LINEAR, 1), (QUADRATIC, 2)):
            given[name] = polynomial(train.inputs, train.targets, points, degree)
        if subject.untrained is not None:
            given[UNTRAINED] = says(subject.untrained, points)
        for name, output in given.items():
            value = float(np.abs(output - truth).mean()) * subject.scale
            means[region, name] = value
            rows.append(measured("error", value, unit="%", n=len(points), region=region, of=name))
        judged = subject.world.judge(subject.world.at(points), list(given[NETWORK]))["right"]
        share = float(np.asarray(judged).mean())
        rows.append(measured("right", share, unit="proportion", n=len(points), region=region))
    n = len(subject.volume)
    worst = max(means["volume", NETWORK], means["near", NETWORK])
    rows.append(measured("worst_error", worst, unit="%", n=n))
    for name in dict.fromkeys(name for _, name in means if name != NETWORK):
        own, other = (means["volume", x] + means["near", x] for x in (NETWORK, name))
        gone = 1 - own / other if other > 0 else None
        rows.append(measured("removed", gone, unit="proportion", n=n, of=name))
    return rows


def polynomial(
    seen: NDArray[np.floating], targets: NDArray[np.floating], points: NDArray[np.floating], d: int
) -> Float:
    """Return the least-squares polynomial of degree ``d`` (1 or 2) at points, ``(n, outputs)``."""

    def design(x: NDArray[np.floating]) -> Float:
        x = np.asarray(x, np.float64)
        columns = [np.ones(len(x)), *x.T]
        if d == 2:
            columns += [x[:, i] * x[:, j] for i in range(x.shape[1]) for j in range(i + 1)]
        return np.stack(columns, axis=1)

    weights, *_ = np.linalg.lstsq(design(seen), np.asarray(targets, np.float64), rcond=None)
    return np.asarray(design(points) @ weights)


def place_rows(subject: Subject, names: list[str], *key: str | int) -> list[Row]:
    """Return errors on the surface by part and by curvature.

    Curvature is the size of the mean curvature times the diagonal.  ``curvature_rank`` is
    Spearman's correlation with the absolute error, beside that of shuffled curvatures.
    """
    rng = generator("scene", "surface", *key)
    oracle = subject.world.oracle
    points = oracle.surface(len(subject.near), rng).astype(np.float32)
    error = np.abs(subject.error(points)).mean(axis=1)
    exact = points.astype(np.float64)
    parts = oracle.parts(exact)
    rows = []
    for part, name in enumerate(part_names(names, parts)):
        here = error[parts == part]
        value = float(here.mean()) if len(here) else None
        rows.append(measured("part_error", value, unit="%", n=len(here), part=name))
    curvature = np.abs(oracle.curvature(exact)) * subject.world.diagonal
    good = np.isfinite(curvature)
    return [*rows, *_curvature_rows(curvature[good], error[good], rng)]


def _curvature_rows(curvature: Float, error: Float, rng: np.random.Generator) -> list[Row]:
    """Return errors ``(n,)`` by curvature ``(n,)``; undefined where too few points have one."""
    n, why, rows = len(error), "the curvature is the same everywhere", []
    if n < FEWEST:
        why = f"{n} of the surface's points have a curvature, and {FEWEST} are needed"
        told: dict[str, Any] = {"curvature_group": 0, "curvature": 0.0}
        rows.append(measured("curvature_error", None, unit="%", n=n, reason=why, **told))
    else:
        edges = np.unique(np.quantile(curvature, np.linspace(0, 1, BINS + 1)))
        last = max(0, len(edges) - 2)
        group = np.clip(np.searchsorted(edges, curvature, side="right") - 1, 0, last)
        for g in range(last + 1):
            here = group == g
            value = float(error[here].mean()) if here.any() else None
            middle = float(np.median(curvature[here])) if here.any() else 0.0
            told = {"curvature_group": g, "curvature": middle}
            rows.append(measured("curvature_error", value, unit="%", n=int(here.sum()), **told))
    for order, against in (("as it is", curvature), ("shuffled", rng.permutation(curvature))):
        rank = _spearman(against, error) if n >= FEWEST else None
        rows.append(measured("curvature_rank", rank, unit="", n=n, reason=why, order=order))
    return rows


def _spearman(a: Float, b: Float) -> float | None:
    flat = any(np.ptp(x) <= 1e-6 * np.abs(x).max() for x in (a, b)) if len(a) > 2 else True
    if flat:  # but for rounding
        return None
    return float(stats.spearmanr(a, b).statistic)


def part_names(names: list[str], parts: NDArray[np.int64]) -> list[str]:
    """Return the names of the parts that points belong to, numbered where none are given."""
    count = int(parts.max()) + 1
    return [names[p] if p < len(names) else f"part {p + 1}" for p in range(count)]
