"""What all probes share: how rows and labels come in, and the frozen linear probes that go out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrarium.errors import InputError
from terrarium.instruments.base import ContrastPairs
from terrarium.instruments.metrics import auroc

Float = NDArray[np.float64]
Bool = NDArray[np.bool_]
Index = tuple[int, ...]


def as_array(x: Any, what: str) -> NDArray[Any]:
    """Return ``x`` (numpy or torch, any device) as float32 or float64, copied only if needed.

    float64 and integers become float64, everything narrower float32.  Raises ``InputError`` for
    what is not an array of real numbers.
    """
    if hasattr(x, "detach"):  # a torch tensor; numpy knows no bfloat16
        x = x.detach().cpu()
        x = x.float() if x.element_size() < 4 and x.is_floating_point() else x
        x = x.numpy()
    try:
        values = np.asarray(x)
    except ValueError:
        raise InputError(f"{what} are ragged; give one array (..., rows, channels).") from None
    if values.dtype in (np.float32, np.float64):
        return values
    if values.dtype.kind not in "fiub":
        raise InputError(f"{what} have dtype {values.dtype}; give real numbers.")
    return values.astype(np.float32 if values.dtype == np.float16 else np.float64)


def rows(
    x: Any, what: str, *, width: int | None = None, least: int = 1, finite: bool = True
) -> NDArray[Any]:
    """Return activations ``(..., n, d)`` as float32 or float64, checked.

    With ``finite=False`` the caller looks for NaN itself (`refuse_nan`).

    Raises ``InputError`` for fewer than two axes, no channels, fewer than ``least`` rows, another
    ``width`` than the probe was fitted on, and for NaN or infinity.
    """
    values = as_array(x, what)
    if values.ndim < 2 or values.shape[-1] == 0:
        raise InputError(f"{what} have shape {values.shape}; expected (..., rows, channels).")
    if width is not None and values.shape[-1] != width:
        raise InputError(
            f"{what} have {values.shape[-1]} channels and the probe was fitted on {width}; "
            "read the same site of the same model."
        )
    if values.shape[-2] < least:
        raise InputError(f"{what} have {values.shape[-2]} row(s); at least {least} are needed.")
    for index in np.ndindex(values.shape[:-2] if finite else (0,)):
        refuse_nan(values[index], what, index)
    return values


def refuse_nan(x: NDArray[Any], what: str, index: Index) -> None:
    """Raise ``InputError`` if ``x``, the rows at a leading index, holds NaN or infinity."""
    if not np.isfinite(x).all():
        where = f" at index {index}" if index else ""
        raise InputError(f"{what} hold NaN or infinity{where}; drop or mend those rows.")


def labels(y: Any, x: NDArray[Any], what: str, *, both: bool = True) -> tuple[Index, Bool]:
    """Return the leading axes of the problem and its labels ``(..., n)`` as bool.

    ``y`` is ``(n,)`` or ``(..., n)``, boolean or 0 and 1; leading axes of ``x`` and ``y``
    broadcast.  Raises ``InputError`` for other values and shapes, and where one class is missing
    although ``both`` are needed.
    """
    if y is None:
        raise InputError(f"{what}: labels are needed; give y, one true or false for each row.")
    values = np.asarray(y.detach().cpu() if hasattr(y, "detach") else y)
    n = x.shape[-2]
    if values.ndim < 1 or values.shape[-1] != n:
        raise InputError(f"{what}: labels have shape {values.shape}; expected (..., {n}) as x has.")
    if values.dtype != np.bool_ and not (
        values.dtype.kind in "fiu" and bool(np.isin(values, (0, 1)).all())
    ):
        raise InputError(f"{what}: labels must be true or false (or 1 and 0).")
    try:
        lead = np.broadcast_shapes(x.shape[:-2], values.shape[:-1])
    except ValueError:
        raise InputError(
            f"{what}: leading axes of labels {values.shape[:-1]} do not fit those of the "
            f"activations {x.shape[:-2]}; give one label per row, or the same leading axes."
        ) from None
    truth = values.astype(bool)
    if both and bool((truth.all(-1) | ~truth.any(-1)).any()):
        raise InputError(f"{what}: labels hold a single class; rows of both classes are needed.")
    return lead, np.broadcast_to(truth, (*lead, n))


def over(lead: Index, x: NDArray[Any]) -> Iterator[tuple[Index, Float]]:
    """Yield each leading index with its rows ``(n, d)`` in float64; ``x`` broadcasts."""
    wide = np.broadcast_to(x, (*lead, *x.shape[-2:]))
    for index in np.ndindex(lead):
        yield index, wide[index].astype(np.float64)


@dataclass(frozen=True, eq=False, repr=False)
class LinearProbe:
    """A fitted linear probe of single statements: ``score(x) = x @ direction + bias``.

    Attributes
    ----------
    direction:
        ``(..., d)`` float64, in raw activation units, read-only.
    bias:
        ``(...,)`` float64, read-only; a score above 0 means "true".
    """

    direction: Float
    bias: Float

    def __post_init__(self) -> None:
        freeze(self, "direction", "bias")

    def score(self, x: Any) -> Float:
        """Return ``(..., n)`` scores of ``x`` ``(..., n, d)``; higher means "true".

        Leading axes of ``x`` and of the probe broadcast.  Each row's score depends on that row
        alone.  Raises ``InputError`` for NaN and for shapes that do not match.
        """
        what = "the scored activations"
        return (
            project(rows(x, what, width=self.direction.shape[-1]), self.direction)
            + (self.bias[..., None])
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({_shape(self.bias)}{self.direction.shape[-1]} channels)"


@dataclass(frozen=True, eq=False, repr=False)
class LinearPairProbe:
    """A fitted linear probe of contrast pairs.

    ``score = positive @ on_positive + negative @ on_negative + bias``.

    Attributes
    ----------
    on_positive, on_negative:
        ``(..., d)`` float64, in raw activation units, read-only.
    bias:
        ``(...,)`` float64, read-only; a score above 0 means that the positive side is true.
    sign:
        Where the sign comes from: ``"fit"`` for supervised probes, ``"labels"`` where labels of
        given rows chose it (`resolve_sign`), ``"unresolved"`` where nothing did.
    """

    on_positive: Float
    on_negative: Float
    bias: Float
    sign: str = "fit"

    def __post_init__(self) -> None:
        freeze(self, "on_positive", "on_negative", "bias")

    @property
    def direction(self) -> Float:
        """``(..., d)``: half the difference of the two, the direction along which truth lies.

        The score grows by ``|direction|^2`` times two where the positive side moves by
        ``direction`` and the negative side by its opposite.
        """
        return (self.on_positive - self.on_negative) / 2

    def score(self, pairs: ContrastPairs) -> Float:
        """Return ``(..., n)`` scores of the pairs; higher means that the positive side is true.

        Raises ``InputError`` for NaN and for shapes that do not match.
        """
        positive, negative = pair_rows(pairs, width=self.on_positive.shape[-1])
        side = project(positive, self.on_positive) + project(negative, self.on_negative)
        total: Float = side + self.bias[..., None]
        return total

    def resolve_sign(self, pairs: ContrastPairs, y: Any) -> LinearPairProbe:
        """Return the probe with its sign turned so that these labelled rows have AUROC >= 0.5.

        Done for every leading index by itself.  Give rows that the probe may see: on test rows
        this is a leak.  Raises ``InputError`` where one class is missing.
        """
        return self.turned(self.signs(pairs, y))

    def signs(self, pairs: ContrastPairs, y: Any) -> Float:
        """Return ``(...,)`` -1 where the scores of these labelled rows have AUROC < 0.5, else 1."""
        scores = self.score(pairs)
        _, truth = labels(y, scores[..., None], f"{type(self).__name__}.resolve_sign")
        return np.where(np.ma.getdata(auroc(scores, truth)) < 0.5, -1.0, 1.0)

    def turned(self, flip: Float) -> LinearPairProbe:
        """Return the probe with its score times ``flip`` ``(...,)``, its sign now from labels."""
        return replace(
            self,
            on_positive=self.on_positive * flip[..., None],
            on_negative=self.on_negative * flip[..., None],
            bias=self.bias * flip,
            sign="labels",
        )

    def __repr__(self) -> str:
        shape = f"{_shape(self.bias)}{self.on_positive.shape[-1]} channels"
        return f"{type(self).__name__}({shape}, sign from {self.sign})"


def pair_rows(
    pairs: ContrastPairs, *, width: int | None = None, least: int = 1
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return both sides of the pairs, checked as `rows` does."""
    if not isinstance(pairs, ContrastPairs):
        raise InputError(
            f"this probe reads contrast pairs and was given {type(pairs).__name__}; "
            "give ContrastPairs(positive, negative)."
        )
    positive = rows(pairs.positive, "the positive sides", width=width, least=least)
    negative = rows(pairs.negative, "the negative sides", width=width, least=least)
    return positive, negative


def project(x: NDArray[Any], direction: Float) -> Float:
    """Return ``(..., n)`` products of ``x`` ``(..., n, d)`` with ``direction``, in float64."""
    try:
        lead = np.broadcast_shapes(x.shape[:-2], direction.shape[:-1])
    except ValueError:
        raise InputError(
            f"the scored activations have leading axes {x.shape[:-2]} and the probe was fitted "
            f"on {direction.shape[:-1]}; give the same sites and members."
        ) from None
    along = np.broadcast_to(direction, (*lead, direction.shape[-1]))
    scores = np.empty((*lead, x.shape[-2]))
    for index, values in over(lead, x):
        scores[index] = values @ along[index]
    return scores


def fit_each(
    lead: Index,
    x: NDArray[Any],
    y: Bool,
    fit_one: Callable[[Float, Bool], tuple[Float, float]],
) -> LinearProbe:
    """Fit ``fit_one(x (n, d), y (n,)) -> (direction, bias)`` at every leading index."""
    direction = np.empty((*lead, x.shape[-1]))
    bias = np.empty(lead)
    for index, values in over(lead, x):
        direction[index], bias[index] = fit_one(values, y[index])
    return LinearProbe(direction, bias)


def unsigned_pair_probe(
    direction: Float, pairs: tuple[NDArray[Any], NDArray[Any]], lead: Index
) -> LinearPairProbe:
    """Return half the difference of the sides along ``direction``, each side's mean at 0.

    The sign is made reproducible (largest component positive) and stays "unresolved".
    """
    largest = np.take_along_axis(direction, np.abs(direction).argmax(-1)[..., None], -1)
    half = direction * np.where(largest < 0, -0.5, 0.5)
    centre = pairs[0].mean(-2, dtype=np.float64) - pairs[1].mean(-2, dtype=np.float64)
    bias = -(half * np.broadcast_to(centre, half.shape)).sum(-1)
    return LinearPairProbe(half, -half, bias.reshape(lead), "unresolved")


def freeze(owner: Any, *names: str) -> None:
    """Replace the named arrays of a frozen dataclass by read-only float64 copies."""
    for name in names:
        value = np.array(getattr(owner, name), dtype=np.float64)
        value.flags.writeable = False
        object.__setattr__(owner, name, value)


def _shape(bias: Float) -> str:
    return f"{' x '.join(map(str, bias.shape))} probes, " if bias.shape else ""
