"""The suite that every dictionary must pass; third parties run it on theirs.

from terrarium.instruments.check_dictionary import check_dictionary
check_dictionary(MyDictionary(features=24))
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrarium.errors import InputError

Float32 = NDArray[np.float32]

CHANNELS, PLANTED = 8, 12


def check_dictionary(dictionary: Any) -> list[str]:
    """Check a dictionary against the contract in `terrarium.instruments.base`; return the names.

    Raises ``AssertionError`` naming the first check that fails and what was found.  Fits several
    times on 1,500 rows of 8 channels: hand in one that is small and trains for seconds.

    What is checked: features and reconstructions have the right shapes and are finite, whatever
    the leading axes; decoding is linear along ``directions``; the same data give the same
    features; a row's features depend on that row alone; planted sparse activations are
    reconstructed on new rows; NaN, wrong shapes and rows that are all the same raise
    ``InputError``; fitting changes neither its input nor, later, depends on it; the fitted object
    is frozen.
    """
    for check in CHECKS:
        try:
            check(dictionary)
        except AssertionError as failure:
            name = check.__name__.removeprefix("check_")
            kind = type(dictionary).__name__
            raise AssertionError(f"{kind} fails '{name}': {failure}") from failure
    return [check.__name__.removeprefix("check_") for check in CHECKS]


def planted_features(n: int = 1500, seed: int = 0) -> Float32:
    """Return rows ``(n, 8)``: sums of few of 12 fixed directions, off the origin."""
    directions = np.random.default_rng(99).standard_normal((PLANTED, CHANNELS))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    rng = np.random.default_rng(seed)
    strength = (rng.random((n, PLANTED)) < 0.12) * rng.gamma(4.0, 0.25, (n, PLANTED))
    return (strength @ directions + np.linspace(-1, 1, CHANNELS)).astype(np.float32)


def check_shapes(dictionary: Any) -> None:
    """Features are (..., k), reconstructions (..., d), finite, for any leading axes."""
    x = planted_features()
    fitted = dictionary.fit(x)
    k = fitted.k
    assert fitted.d == CHANNELS, f"d is {fitted.d}, not {CHANNELS}"
    assert fitted.directions.shape == (k, CHANNELS), f"directions are {fitted.directions.shape}"
    features = fitted.encode(x)
    assert features.shape == (len(x), k), f"features are {features.shape}, not {(len(x), k)}"
    assert bool(np.isfinite(features).all()), "some features are not finite"
    assert fitted.decode(features).shape == x.shape, "reconstructions lost their shape"
    assert fitted.encode(x[:1]).shape == (1, k), "one row must encode too"
    maps = x[:60].reshape(3, 4, 5, CHANNELS)
    _close(fitted.encode(maps).reshape(60, k), features[:60], "maps and the same rows")
    one, two = dictionary.fit(maps), dictionary.fit(x[:60])
    _close(one.encode(x), two.encode(x), "fits on maps and on the same rows")


def check_decoding_is_linear(dictionary: Any) -> None:
    """One unit of a feature adds its direction, whatever else is there."""
    fitted = dictionary.fit(planted_features())
    nothing = fitted.decode(np.zeros((1, fitted.k), np.float32))
    added = fitted.decode(np.eye(fitted.k, dtype=np.float32)) - nothing
    _close(added, fitted.directions, "what features add and their directions")


def check_is_deterministic(dictionary: Any) -> None:
    """The same data give the same features, bit for bit."""
    new = planted_features(seed=1)
    one, two = (dictionary.fit(planted_features()).encode(new) for _ in range(2))
    assert np.array_equal(one, two), "two fits on the same data encode differently"


def check_features_depend_on_their_row_alone(dictionary: Any) -> None:
    """Encoding fewer rows gives each the same features."""
    fitted, new = dictionary.fit(planted_features()), planted_features(seed=1)
    few = np.array([3, 700, 41, 8])
    _close(fitted.encode(new[few]), fitted.encode(new)[few], "rows encoded among others and by few")


def check_planted_activations_are_reconstructed(dictionary: Any) -> None:
    """On new rows less than 60 % of the variance is left."""
    fitted, new = dictionary.fit(planted_features()), planted_features(seed=1)
    left = np.square(new - fitted.decode(fitted.encode(new))).sum()
    share = float(left / np.square(new - new.mean(0)).sum())
    assert share < 0.6, f"{share:.0%} of the variance of planted sparse rows is unexplained"


def check_refuses_bad_input(dictionary: Any) -> None:
    """NaN, infinity, wrong shapes, rows that are all the same raise ``InputError``."""
    x = planted_features()
    fitted = dictionary.fit(x)
    for bad in (np.nan, np.inf):
        spoilt = x.copy()
        spoilt[3, 2] = bad
        _refuses(partial(dictionary.fit, spoilt), f"fitting on {bad}")
        _refuses(partial(fitted.encode, spoilt), f"encoding {bad}")
    _refuses(lambda: fitted.encode(x[:, :-1]), "encoding rows of another width")
    _refuses(lambda: fitted.decode(np.zeros((2, fitted.k + 1))), "decoding too many features")
    _refuses(lambda: dictionary.fit(x[:, 0]), "one axis of data")
    _refuses(lambda: dictionary.fit(x[None]), "three axes, such as several members")
    _refuses(lambda: dictionary.fit(np.ones((50, CHANNELS))), "rows that are all the same")
    _refuses(lambda: dictionary.fit(x[:0]), "no rows")


def check_leaves_its_input_alone(dictionary: Any) -> None:
    """Fitting and encoding change no input, and changing it later changes no features."""
    x, new = planted_features(), planted_features(seed=1)
    fitted = dictionary.fit(x)
    before = fitted.encode(new)
    assert np.array_equal(x, planted_features()), "fitting changed the activations it was given"
    assert np.array_equal(new, planted_features(seed=1)), "encoding changed its input"
    x[...] = 0
    assert np.array_equal(fitted.encode(new), before), "the fitted dictionary reads its input"
    dictionary.fit(new)
    assert np.array_equal(fitted.encode(new), before), "a second fit changed the first dictionary"


def check_the_fitted_dictionary_is_frozen(dictionary: Any) -> None:
    """The attributes of a fitted dictionary can be neither set nor written into."""
    fitted = dictionary.fit(planted_features())
    names = [f.name for f in fields(fitted)] if is_dataclass(fitted) else list(vars(fitted))
    for name in names or ["directions"]:
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
    check_is_deterministic,
    check_shapes,
    check_decoding_is_linear,
    check_features_depend_on_their_row_alone,
    check_planted_activations_are_reconstructed,
    check_refuses_bad_input,
    check_leaves_its_input_alone,
    check_the_fitted_dictionary_is_frozen,
)
"""All checks, in order; each takes an unfitted dictionary and raises ``AssertionError``."""


def _close(found: Any, wanted: Any, what: str) -> None:
    scale = float(np.std(wanted)) or 1.0
    apart = float(np.abs(found - wanted).max()) / scale
    assert apart < 1e-3, f"{what}: they differ by {apart:.2g} standard deviations"


def _refuses(act: Callable[[], Any], what: str) -> None:
    try:
        act()
    except InputError:
        return
    except Exception as error:
        raise AssertionError(f"{what} raises {type(error).__name__}, not InputError") from error
    raise AssertionError(f"{what} raises nothing; InputError is wanted")
