"""Metrics as pure functions over leading axes.

Scores are ``(..., n)``, labels ``(..., n)`` or ``(n,)``; results are ``(...,)``.  A metric that is
not defined somewhere is *masked* there: results are ``numpy.ma.MaskedArray`` (of no axes for a
single problem), with NaN (for indices -1) under the mask, so that nothing undefined can pass for
a number.  `optional` turns one entry into a float or None, which is what a row wants.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrarium.errors import InputError

Float = NDArray[np.float64]
Masked = np.ma.MaskedArray[Any, Any]


def optional(value: Any) -> float | None:
    """Return one metric value as a float, or None where it is masked.

    Raises ``InputError`` for more than one value.
    """
    if np.ma.size(value) != 1:
        raise InputError(f"one metric value is wanted, got {np.ma.size(value)}; index it first.")
    return None if bool(np.ma.getmaskarray(value).any()) else float(np.ma.getdata(value).item())


def auroc(scores: Any, labels: Any) -> Masked:
    """Return the area under the ROC curve, ``(...,)``, exactly, a tie counting one half.

    It is the share of (true row, false row) pairs in which the true row scores higher
    (Mann-Whitney U over n1 n0; Hanley & McNeil 1982).  Masked where one class is missing.
    """
    values, truth = _checked(scores, labels)
    n = values.shape[-1]
    order = np.argsort(values, axis=-1)
    ordered = np.take_along_axis(values, order, -1)
    positive = np.take_along_axis(truth, order, -1)
    ranks = _midranks(ordered)
    ones = truth.sum(-1)
    wins = (ranks * positive).sum(-1) - ones * (ones + 1) / 2
    return _ratio(wins, ones * (n - ones))


def _midranks(ordered: Float) -> Float:
    """Return ranks from 1 along the last, sorted axis; ties share the mean of their ranks."""
    n = ordered.shape[-1]
    place = np.arange(n)
    step = ordered[..., 1:] != ordered[..., :-1]
    if bool(step.all()):
        return np.broadcast_to(place + 1.0, ordered.shape)
    edge = np.ones((*ordered.shape[:-1], 1), bool)
    first = np.maximum.accumulate(np.where(np.concatenate([edge, step], -1), place, 0), -1)
    ends = np.where(np.concatenate([step, edge], -1), place, n)
    last = np.minimum.accumulate(ends[..., ::-1], -1)[..., ::-1]
    ranks: Float = (first + last) / 2 + 1
    return ranks


def recall_at_fpr(scores: Any, labels: Any, fpr: float = 0.01) -> Masked:
    """Return the share of true rows flagged at a false-positive rate of at most ``fpr``.

    The threshold is the (k + 1)-th largest score among the n0 false rows, k = floor(fpr n0), and
    a row is flagged if it scores strictly higher.  So the rate is never above ``fpr``, ties with
    the threshold are not flagged, and with fewer than 1 / fpr false rows none of them is.
    Masked where one class is missing.
    """
    if not 0 <= fpr < 1:
        raise InputError(f"fpr is {fpr}; give a proportion from 0 to below 1, such as 0.01.")
    values, truth = _checked(scores, labels)
    n = values.shape[-1]
    zeros = (~truth).sum(-1)
    allowed = np.floor(fpr * zeros + 1e-9).astype(int)
    falling = -np.sort(np.where(truth, np.inf, -values), axis=-1)  # false rows, largest first
    place = np.clip(np.minimum(allowed, zeros - 1), 0, n - 1)[..., None]
    threshold = np.take_along_axis(falling, place, -1)
    caught = ((values > threshold) & truth).sum(-1)
    return _ratio(np.where(zeros > 0, caught, np.nan), truth.sum(-1))


def balanced_accuracy(scores: Any, labels: Any, threshold: float = 0.0) -> Masked:
    """Return the mean of the two classes' accuracies of ``score > threshold``.

    Boolean predictions may stand for scores.  Masked where one class is missing.
    """
    values, truth = _checked(scores, labels)
    said = values > threshold
    hits = _ratio((said & truth).sum(-1), truth.sum(-1))
    rejections = _ratio((~said & ~truth).sum(-1), (~truth).sum(-1))
    return _defined((np.ma.getdata(hits) + np.ma.getdata(rejections)) / 2)


def brier(probabilities: Any, labels: Any) -> Masked:
    """Return the mean squared distance of ``(..., n)`` probabilities from labels (Brier 1950)."""
    p, truth = _probabilities(probabilities, labels)
    return _ratio(np.square(p - truth).sum(-1), np.full(p.shape[:-1], p.shape[-1]))


def log_loss(probabilities: Any, labels: Any) -> Masked:
    """Return the mean negative log-likelihood in nats of ``(..., n)`` probabilities of "true".

    Masked where a row that happened was given probability 0: the loss is infinite there.
    """
    p, truth = _probabilities(probabilities, labels)
    with np.errstate(divide="ignore"):
        mean = -np.log(np.where(truth, p, 1 - p)).mean(-1)
    return np.ma.masked_array(np.where(np.isfinite(mean), mean, np.nan), ~np.isfinite(mean))


def performance_gap_recovered(probe: Any, floor: Any, ceiling: Any) -> Masked:
    """Return ``(probe - floor) / (ceiling - floor)``; the three broadcast.

    May be negative or above 1.  Masked where ``ceiling <= floor`` and where any of the three is
    masked or NaN.  Source: Mallen et al. 2023 (arXiv 2312.01037); Burns et al. 2023
    (arXiv 2312.09390).
    """
    reached, low, high = (_defined(part) for part in (probe, floor, ceiling))
    gap = high - low
    undefined = np.ma.getmaskarray(reached - low) | np.ma.getmaskarray(gap)
    undefined = undefined | (np.ma.getdata(gap) <= 0)
    gain = np.ma.getdata(reached) - np.ma.getdata(low)
    share = np.divide(
        gain,
        np.ma.getdata(gap),
        out=np.full(np.shape(undefined), np.nan),
        where=~undefined,
    )
    return np.ma.masked_array(share, undefined)


def earliest_informative_layer(
    auroc_by_layer: Any, share: float = 0.95, *, axis: int = -1, tolerance: float = 0.01
) -> Masked:
    """Return the index of the first layer with AUROC - 0.5 >= share (max - 0.5).

    Masked layers are passed over.  Masked where no layer exceeds 0.5 by more than ``tolerance``
    (AUROC; 0 gives the published rule, under which noise is informative too).  Give
    in-distribution validation values, layers along ``axis`` in the order of the forward pass.
    Source: Mallen et al. 2023 (arXiv 2312.01037).
    """
    table = _defined(auroc_by_layer)
    if table.ndim == 0 or table.shape[axis] == 0:
        raise InputError("the AUROC by layer is empty; give one value for each layer.")
    above = np.moveaxis(np.ma.filled(table, -np.inf), axis, -1) - 0.5
    most = above.max(-1)
    # rounding must not lose a layer that sits exactly at the share
    enough = above >= share * most[..., None] - 1e-12
    informative = most > tolerance
    return np.ma.masked_array(np.where(informative, enough.argmax(-1), -1), ~informative)


def _defined(values: Any) -> Masked:
    """Return ``values`` as a masked float array, NaN and infinity masked."""
    masked: Masked = np.ma.masked_invalid(np.ma.asarray(values, dtype=float))
    return masked


def _checked(scores: Any, labels: Any) -> tuple[Float, NDArray[np.bool_]]:
    values = np.asarray(scores)
    if values.dtype.kind not in "fiub":
        raise InputError(f"scores have dtype {values.dtype}; give real numbers.")
    values = values if values.dtype == np.float32 else values.astype(np.float64)
    raw = np.asarray(labels)
    if raw.dtype != np.bool_ and not bool(np.isin(raw, (0, 1)).all()):
        raise InputError("labels must be true or false (or 1 and 0).")
    if values.ndim == 0 or raw.ndim == 0 or values.shape[-1] != raw.shape[-1]:
        raise InputError(
            f"scores have shape {values.shape} and labels {raw.shape}; the last axes must agree."
        )
    try:
        shape = np.broadcast_shapes(values.shape, raw.shape)
    except ValueError:
        raise InputError(
            f"scores have shape {values.shape} and labels {raw.shape}; leading axes must agree."
        ) from None
    if shape[-1] == 0:
        raise InputError("there are no rows; a metric needs at least one.")
    if bool(np.isnan(values).any()):
        raise InputError("scores hold NaN; count the rows without a score apart.")
    return np.broadcast_to(values, shape), np.broadcast_to(raw.astype(bool), shape)


def _probabilities(probabilities: Any, labels: Any) -> tuple[Float, NDArray[np.bool_]]:
    p, truth = _checked(probabilities, labels)
    if bool(((p < 0) | (p > 1)).any()):
        raise InputError("probabilities must lie between 0 and 1; scores are something else.")
    return p.astype(np.float64), truth


def _ratio(above: Any, below: Any) -> Masked:
    above, below = np.asarray(above, dtype=float), np.asarray(below)
    undefined = (below == 0) | np.isnan(above)
    ratio = np.divide(above, below, out=np.full(np.shape(undefined), np.nan), where=~undefined)
    return np.ma.masked_array(ratio, undefined)
