"""Which features are frobnoloids: regular, important, nameless; false discoveries controlled."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from terrarium.errors import InputError
from terrarium.instruments.frobnoloids.nameability import Nameability
from terrarium.instruments.frobnoloids.scores import Float, Score, benjamini_hochberg
from terrarium.instruments.frobnoloids.structure import Structure

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class Scores:
    """The three scores of the same ``k`` features."""

    structure: Structure = field(repr=False)
    importance: Score = field(repr=False)
    nameability: Nameability = field(repr=False)
    beyond_varying: Score | None = field(default=None, repr=False)
    """Importance against directions in which the site varies: told, and decides nothing."""

    def __post_init__(self) -> None:
        sizes = {
            "structure": len(self.structure.value),
            "importance": len(self.importance.value),
            "nameability": len(self.nameability.score.value),
        }
        if len(set(sizes.values())) > 1:
            told = ", ".join(f"{size} of {name}" for name, size in sizes.items())
            raise InputError(f"Scores: there are {told}; score the same features three times.")

    def __len__(self) -> int:
        return len(self.importance.value)


@dataclass(frozen=True)
class Thresholds:
    """Where "high" begins and "low" ends, as planted features tell.

    Attributes
    ----------
    structure:
        `Structure.value` from here on is regular.
    importance:
        `Score.deviations` (the null's standard deviations) from here on is important.
    nameability:
        Held-out R² or AUROC from here on counts as named.
    scale:
        For each of the three, half the distance between the medians of the plants on either side:
        the unit of `strength`.
    accuracy:
        Balanced accuracy of each threshold on the plants that set it.
    """

    structure: float
    importance: float
    nameability: float
    scale: tuple[float, float, float] = (1.0, 1.0, 1.0)
    accuracy: tuple[float, float, float] = (1.0, 1.0, 1.0)


def calibrate(
    scores: Scores,
    regular: NDArray[np.bool_],
    important: NDArray[np.bool_],
    named: NDArray[np.bool_],
) -> Thresholds:
    """Return thresholds from planted features whose nature is known.

    Parameters
    ----------
    scores:
        Of the plants, on the same inputs and with the same settings as the features in question.
    regular, important, named:
        ``(k,)`` what each plant is.  Named is told from unnamed among the regular ones.

    Each threshold has the highest balanced accuracy, halfway between its neighbours; that of
    importance is at least 0, the mean of random directions.  Raises
    ``InputError`` where a kind of plant is missing.  The plants that set thresholds must not be
    the ones that test them.
    """
    kept = np.asarray(regular)
    cuts = [
        _best_cut(scores.structure.value, kept, "regular"),
        _best_cut(scores.importance.deviations, np.asarray(important), "important"),
        _best_cut(scores.nameability.score.value[kept], np.asarray(named)[kept], "named"),
    ]
    (structure, weight, name), scale, accuracy = zip(*cuts, strict=True)
    return Thresholds(structure, max(weight, 0.0), name, scale, accuracy)


def _best_cut(values: Float, positive: NDArray[np.bool_], what: str) -> tuple[float, float, float]:
    """Return the threshold, half the distance of the medians, and the balanced accuracy."""
    real = np.isfinite(values)
    values, positive = values[real], positive[real]
    ones, zeros = int(positive.sum()), int((~positive).sum())
    if not ones or not zeros:
        raise InputError(f"calibrate: plants that are {what} and plants that are not are needed.")
    half = float(np.median(values[positive]) - np.median(values[~positive])) / 2
    if half <= 0:
        raise InputError(
            f"calibrate: plants that are {what} score no higher than plants that are not; use "
            "more images, or clearer plants."
        )
    order = np.argsort(values, kind="stable")
    ordered, truth = values[order], positive[order]
    missed = np.r_[0, np.cumsum(truth)] / ones
    rejected = np.r_[0, np.cumsum(~truth)] / zeros
    accuracy = (1 - missed + rejected) / 2
    inner = np.flatnonzero(np.r_[True, ordered[1:] > ordered[:-1], True])
    best = inner[accuracy[inner] >= accuracy[inner].max() - 1e-12]
    cut = int(best[len(best) // 2])
    below = ordered[cut - 1] if cut else ordered[0] - 1.0
    above = ordered[cut] if cut < len(ordered) else ordered[-1] + 1.0
    return float((below + above) / 2), half, float(accuracy[cut])


def strength(scores: Scores, thresholds: Thresholds) -> Float:
    """Return ``(k,)`` how far each feature is a frobnoloid: the least of its three margins.

    A margin is the distance to the threshold in units of `Thresholds.scale`, positive on the
    frobnoloid's side; so 0 and more where all three are passed.  For ranking; -inf where a score
    is not defined.
    """
    margins = [
        (scores.structure.value - thresholds.structure) / thresholds.scale[0],
        (scores.importance.deviations - thresholds.importance) / thresholds.scale[1],
        (thresholds.nameability - scores.nameability.score.value) / thresholds.scale[2],
    ]
    weakest = np.min(margins, axis=0)
    return np.where(np.isfinite(weakest), weakest, -np.inf)


def frobnoloids(
    scores: Scores,
    thresholds: Thresholds,
    *,
    level: float = 0.1,
    names: tuple[str, ...] | None = None,
) -> pd.DataFrame:
    """Return a frame of features: three scores, intervals, nulls, and the decision.

    A feature is a frobnoloid where three hypotheses fall together: that it has no structure, that
    it matters no more than random directions do, and that names explain it up to the threshold or
    better.  Its p-value is the largest of the three (Berger 1982), 1 where structure or importance
    stays under its threshold; over all features Benjamini & Hochberg hold the expected share of
    false discoveries at ``level``.

    Columns: ``feature``, ``status`` (``"scored"`` or ``"constant"``); for each of ``structure``,
    ``importance`` and ``nameability`` the score, ``_low``, ``_high`` (95 %, over groups; of what is
    found again over initialisations), ``_null`` (mean of the null) and ``_p``; the parts of
    structure; ``importance_sd`` (null's standard deviations); ``beyond_varying_p`` where it was
    measured; ``concept`` and ``combination`` (best names); ``p``, ``q``, ``strength`` and
    ``frobnoloid``.
    """
    import pandas as pd

    if not 0.0 < level < 1.0:
        raise InputError(f"frobnoloids: the level is {level}; give a rate between 0 and 1.")
    k = len(scores)
    columns: dict[str, Any] = {"feature": names or tuple(f"feature {j}" for j in range(k))}
    naming = scores.nameability.score
    whole = Score(
        scores.structure.value,
        scores.structure.error,
        min(part.degrees for part in scores.structure.parts.values()),
        np.zeros((1, k)),
    )
    p_nameless = naming.p_below(thresholds.nameability)
    judged = {
        "structure": (whole, scores.structure.p),
        "importance": (scores.importance, scores.importance.p),
        "nameability": (naming, naming.p),
    }
    columns["status"] = np.where(_defined(scores), "scored", "constant")
    for name, (score, p) in judged.items():
        columns[name] = score.value
        columns[f"{name}_low"], columns[f"{name}_high"] = score.low, score.high
        columns[f"{name}_null"], columns[f"{name}_p"] = score.null.mean(0), p
    for part, score in scores.structure.parts.items():
        columns[part], columns[f"{part}_null"] = score.value, score.null.mean(0)
        columns[f"{part}_p"] = score.p
    columns["importance_sd"] = scores.importance.deviations
    if scores.beyond_varying is not None:
        columns["beyond_varying_p"] = scores.beyond_varying.p
    columns["nameless_p"] = p_nameless
    columns["concept"] = scores.nameability.concept
    columns["combination"] = tuple(" + ".join(c) for c in scores.nameability.combination)
    p = decision_p(scores, thresholds)
    columns["p"], columns["q"] = p, benjamini_hochberg(p)
    columns["strength"] = strength(scores, thresholds)
    columns["frobnoloid"] = columns["q"] <= level
    return pd.DataFrame(columns)


def decision_p(scores: Scores, thresholds: Thresholds) -> Float:
    """Return ``(k,)`` p-values of "not a frobnoloid"; see `frobnoloids`."""
    high = (scores.structure.value >= thresholds.structure) & (
        scores.importance.deviations >= thresholds.importance
    )
    p = np.max(
        [
            scores.structure.p,
            scores.importance.p,
            scores.nameability.score.p_below(thresholds.nameability),
        ],
        axis=0,
    )
    return np.where(high & _defined(scores), p, 1.0)


def _defined(scores: Scores) -> NDArray[np.bool_]:
    values = (scores.structure.value, scores.importance.value, scores.nameability.score.value)
    return np.asarray(np.all([np.isfinite(value) for value in values], axis=0))
