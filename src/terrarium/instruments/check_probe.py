"""The suite that every probe must pass; third parties run it on theirs.

from terrarium.instruments.check_probe import check_probe
check_probe(MyProbe())
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrarium.errors import InputError
from terrarium.instruments.base import ContrastPairs
from terrarium.instruments.metrics import auroc, optional

Array = NDArray[Any]
Data = Any  # rows (..., n, d), or ContrastPairs of them


@dataclass(frozen=True)
class Planted:
    """Rows or pairs, their labels, and the unit direction along which the classes lie apart."""

    x: Data
    y: NDArray[np.bool_]
    direction: NDArray[np.float64]


def check_probe(probe: Any) -> list[str]:
    """Check a probe against the contract in `terrarium.instruments.base`; return the checks' names.

    Raises ``AssertionError`` naming the first check that fails and what was found.

    Parameters
    ----------
    probe:
        An unfitted probe.  ``supervised`` says whether it needs labels (an unsupervised one may
        use them for its sign).  Optional attributes: ``on_pairs`` (it reads `ContrastPairs`;
        default False), ``rotation_equivariant`` (rotating the activations changes no score;
        default False, then not checked).

    What is checked: the same data give the same scores; leading axes give what a loop over them
    gives; the order of rows does not matter; the scores have the right shape and are finite;
    a row's score depends on that row alone; a planted direction is found, in scores and (where
    the fitted probe has ``direction``) in angle; labels that have nothing to do with the
    rows give AUROC 0.5 on new rows; rotations change nothing where promised; NaN, wrong shapes
    and single classes raise ``InputError``; fitting changes neither its input nor, later, depends
    on it; the fitted object is frozen.
    """
    for check in CHECKS:
        try:
            check(probe)
        except AssertionError as failure:
            name = check.__name__.removeprefix("check_")
            raise AssertionError(f"{type(probe).__name__} fails '{name}': {failure}") from failure
    return [check.__name__.removeprefix("check_") for check in CHECKS]


def planted(
    on_pairs: bool, n: int = 240, d: int = 6, seed: int = 0, strength: float = 2.0
) -> Planted:
    """Return balanced rows (or pairs) whose classes lie ``2 strength`` deviations apart.

    The noise is isotropic with deviation 1, off the origin, so every sound linear probe should
    find the same direction.
    """
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(np.random.default_rng(99).standard_normal((d, d)))[0]
    direction = axes[:, 0]
    y = rng.permutation(np.arange(n) % 2 == 0)
    sign = np.where(y, strength, -strength)[:, None]
    offset = np.linspace(-2, 2, d)
    one = rng.standard_normal((n, d)) + offset + sign * direction
    if not on_pairs:
        return Planted(one, y, direction)
    other = rng.standard_normal((n, d)) - offset - sign * direction
    return Planted(ContrastPairs(one, other), y, direction)


def check_is_deterministic(probe: Any) -> None:
    """The same data give the same scores, bit for bit."""
    new = _data(probe, seed=1)
    twins = (_data(probe), _data(probe))  # two copies: what a fit writes into is checked elsewhere
    first, second = (probe.fit(data.x, data.y).score(new.x) for data in twins)
    assert np.array_equal(first, second), "two fits on the same data score differently"


def check_scores(probe: Any) -> None:
    """Scores are finite float64 of shape (n,), also for a single row."""
    data = _data(probe)
    fitted = probe.fit(data.x, data.y)
    scores = fitted.score(data.x)
    assert scores.shape == data.y.shape, f"scores have shape {scores.shape}, not {data.y.shape}"
    assert scores.dtype == np.float64, f"scores are {scores.dtype}, not float64"
    assert bool(np.isfinite(scores).all()), "some scores are not finite"
    assert fitted.score(_take(data.x, slice(0, 1))).shape == (1,), "one row must score too"


def check_leading_axes_equal_a_loop(probe: Any) -> None:
    """A stack of problems gives what each gives by itself."""
    parts = [[_data(probe, seed=3 * i + j) for j in range(3)] for i in range(2)]
    stack = _map(lambda *rows: np.stack(rows), *[_stack(row) for row in parts])
    y = np.stack([np.stack([part.y for part in row]) for row in parts])
    together = probe.fit(stack, y).score(stack)
    assert together.shape == y.shape, f"stacked scores have shape {together.shape}, not {y.shape}"
    for i, row in enumerate(parts):
        for j, part in enumerate(row):
            alone = probe.fit(part.x, part.y).score(part.x)
            _close(together[i, j], alone, "a problem in a stack and by itself")


def check_row_order_does_not_matter(probe: Any) -> None:
    """Shuffling the training rows changes no score."""
    data = _data(probe)
    order = np.random.default_rng(5).permutation(len(data.y))
    shuffled = probe.fit(_take(data.x, order), data.y[order])
    _close(shuffled.score(data.x), probe.fit(data.x, data.y).score(data.x), "rows in another order")


def check_a_score_depends_on_its_row_alone(probe: Any) -> None:
    """Scoring fewer rows, or beside other rows, gives each the same score."""
    data, fresh = _data(probe), _data(probe, seed=1)
    fitted = probe.fit(data.x, data.y)
    scores = fitted.score(fresh.x)
    few = np.flatnonzero(fresh.y)[:7]  # of one class: a batch statistic would shift
    _close(fitted.score(_take(fresh.x, few)), scores[few], "rows scored among others and by few")


def check_a_planted_direction_is_found(probe: Any) -> None:
    """New rows are ranked by the planted truth, and the direction points along it."""
    data, fresh = _data(probe), _data(probe, seed=1)
    fitted = probe.fit(data.x, data.y)
    reached = optional(auroc(fitted.score(fresh.x), fresh.y))
    assert reached is not None
    assert reached > 0.9, f"AUROC {reached:.3f} on new rows with a planted direction"
    if hasattr(fitted, "direction"):
        direction = np.asarray(fitted.direction)
        cosine = float(direction @ data.direction / np.linalg.norm(direction))
        assert cosine > 0.75, f"cosine {cosine:.3f} with the planted direction"


def check_chance_on_unrelated_labels(probe: Any) -> None:
    """Fitted on shuffled labels, a probe is at chance on new rows with those same labels."""
    n = 2000
    data, fresh = _data(probe, n=n), _data(probe, n=n, seed=2)
    shuffled = np.random.default_rng(7).permutation(data.y)
    reached = optional(auroc(probe.fit(data.x, shuffled).score(fresh.x), shuffled))
    assert reached is not None
    ones = int(shuffled.sum())
    deviation = math.sqrt((n + 1) / (12 * ones * (n - ones)))
    found = f"AUROC {reached:.3f} on labels unrelated to the rows"
    assert abs(reached - 0.5) < 4 * deviation, found


def check_rotation_changes_nothing_where_promised(probe: Any) -> None:
    """Rotating all activations leaves every score as it is (if ``rotation_equivariant``)."""
    if not getattr(probe, "rotation_equivariant", False):
        return
    data = _data(probe)
    d = data.direction.size
    turn = np.linalg.qr(np.random.default_rng(11).standard_normal((d, d)))[0]
    turned = _map(lambda rows: rows @ turn, data.x)
    after = probe.fit(turned, data.y).score(turned)
    _close(after, probe.fit(data.x, data.y).score(data.x), "rotated activations")


def check_refuses_bad_input(probe: Any) -> None:
    """NaN, infinity, wrong shapes, missing or single-class labels raise ``InputError``."""
    data = _data(probe)
    fitted = probe.fit(data.x, data.y)
    supervised = bool(probe.supervised)
    for bad in (np.nan, np.inf):
        spoilt = _spoilt(data.x, bad)
        _refuses(partial(probe.fit, spoilt, data.y), f"fitting on {bad}")
        _refuses(partial(fitted.score, spoilt), f"scoring {bad}")
    narrow = _map(lambda rows: rows[:, :-1], data.x)
    _refuses(lambda: fitted.score(narrow), "scoring rows of another width")
    _refuses(lambda: probe.fit(_map(lambda rows: rows[:, 0], data.x), data.y), "one axis of data")
    _refuses(lambda: probe.fit(data.x, data.y[:-1]), "fewer labels than rows")
    _refuses(lambda: probe.fit(data.x, np.where(data.y, 2, 7)), "labels other than 0 and 1")
    if supervised:
        _refuses(lambda: probe.fit(data.x, None), "fitting without labels")
        _refuses(lambda: probe.fit(data.x, np.ones_like(data.y)), "a single class")


def check_leaves_its_input_alone(probe: Any) -> None:
    """Fitting and scoring change no input, and changing the input later changes no score."""
    data, fresh = _data(probe), _data(probe, seed=1)
    x, y = _map(np.copy, data.x), data.y.copy()
    fitted = probe.fit(x, y)
    before = fitted.score(fresh.x)
    same = [np.array_equal(a, b) for a, b in zip(_sides(x), _sides(data.x), strict=True)]
    assert all(same), "fitting changed the activations it was given"
    assert np.array_equal(y, data.y), "fitting changed the labels it was given"
    for side in _sides(x):
        side[...] = 0
    y[...] = ~y
    assert np.array_equal(fitted.score(fresh.x), before), "the fitted probe still reads its input"
    probe.fit(fresh.x, ~fresh.y)
    assert np.array_equal(fitted.score(fresh.x), before), "a second fit changed the first probe"


def check_the_fitted_probe_is_frozen(probe: Any) -> None:
    """The attributes of a fitted probe can be neither set nor written into."""
    data = _data(probe)
    fitted = probe.fit(data.x, data.y)
    names = [f.name for f in fields(fitted)] if is_dataclass(fitted) else list(vars(fitted))
    for name in names or ["direction"]:
        try:
            setattr(fitted, name, None)
        except AttributeError:
            pass
        else:
            raise AssertionError(f"its attribute '{name}' can be set after fitting")
        value = getattr(fitted, name, None)
        writeable = isinstance(value, np.ndarray) and value.flags.writeable
        assert not writeable, f"its array '{name}' can be written into"


CHECKS: tuple[Callable[[Any], None], ...] = (
    check_scores,
    check_is_deterministic,
    check_leading_axes_equal_a_loop,
    check_row_order_does_not_matter,
    check_a_score_depends_on_its_row_alone,
    check_a_planted_direction_is_found,
    check_chance_on_unrelated_labels,
    check_rotation_changes_nothing_where_promised,
    check_refuses_bad_input,
    check_leaves_its_input_alone,
    check_the_fitted_probe_is_frozen,
)
"""All checks, in order; each takes an unfitted probe and raises ``AssertionError``."""


def _data(probe: Any, n: int = 240, seed: int = 0) -> Planted:
    return planted(bool(getattr(probe, "on_pairs", False)), n=n, seed=seed)


def _sides(x: Data) -> list[Array]:
    return [x.positive, x.negative] if isinstance(x, ContrastPairs) else [x]


def _map(change: Callable[..., Array], *data: Data) -> Data:
    """Apply ``change`` to rows, or to each side of pairs."""
    sides = [change(*parts) for parts in zip(*map(_sides, data), strict=True)]
    return ContrastPairs(*sides) if len(sides) == 2 else sides[0]


def _stack(parts: list[Planted]) -> Data:
    return _map(lambda *rows: np.stack(rows), *[part.x for part in parts])


def _take(x: Data, rows: Any) -> Data:
    return _map(lambda side: side[rows], x)


def _spoilt(x: Data, bad: float) -> Data:
    spoilt = _map(np.copy, x)
    for side in _sides(spoilt):
        side[3] = bad
    return spoilt


def _close(found: Array, wanted: Array, what: str) -> None:
    scale = float(np.std(wanted)) or 1.0
    apart = float(np.abs(found - wanted).max()) / scale
    assert apart < 1e-4, f"{what}: scores differ by {apart:.2g} standard deviations"


def _refuses(act: Callable[[], Any], what: str) -> None:
    try:
        act()
    except InputError:
        return
    except Exception as error:
        raise AssertionError(f"{what} raises {type(error).__name__}, not InputError") from error
    raise AssertionError(f"{what} raises nothing; InputError is wanted")
