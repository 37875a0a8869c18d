"""A public suite for detectors: run it on your own.

    from terrarium.instruments.check_detector import check_detector
    check_detector(MyDetector())

or, one test for each check::

    @pytest.mark.parametrize("check", DETECTOR_CHECKS.values(), ids=DETECTOR_CHECKS)
    def test_my_detector(check):
        check(MyDetector())

What a detector promises beyond `terrarium.instruments.base.Detector` it says in two attributes:
``transductive`` (a row's score depends on the batch it is scored in; False if absent) and
``invariant_to`` (any of ``"translation"``, ``"rotation"``: same scores; ``"scale"``: same order;
none if absent).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from terrarium.errors import InputError
from terrarium.instruments.base import Detector

Float = NDArray[np.float64]
_WIDTH = 6


def check_detector(detector: Detector) -> None:
    """Run every check on ``detector``; raises ``AssertionError`` that lists all that fail.

    Takes about fifteen fits on at most 300 rows of width 6.  Parameters that fit such rows should
    be set in the constructor.
    """
    failures = []
    for name, check in DETECTOR_CHECKS.items():
        try:
            check(detector)
        except Exception as error:  # the author wants all failures, whatever their kind
            failures.append(f"- {name}: {type(error).__name__}: {error}")
    if failures:
        listed = "\n".join(failures)
        raise AssertionError(
            f"{detector!r} fails {len(failures)} of {len(DETECTOR_CHECKS)} checks:\n{listed}"
        )


def _rows(n: int, seed: int) -> Float:
    """Return correlated Gaussian rows ``(n, 6)``, standard deviations from 3 to 0.3, mean 5."""
    rng = np.random.default_rng((20, seed))
    return 5.0 + rng.standard_normal((n, _WIDTH)) * np.geomspace(3.0, 0.3, _WIDTH) @ _turn().T


def _turn() -> Float:
    """Return a fixed rotation; its last column is the direction in which `_rows` vary least."""
    rng = np.random.default_rng(7)
    turn: Float = np.linalg.qr(rng.standard_normal((_WIDTH, _WIDTH)))[0]
    return turn


def _planted(n: int, seed: int) -> Float:
    """Return anomalies: rows shifted far in the direction in which trusted rows vary least."""
    return _rows(n, seed) + 30.0 * _turn()[:, -1]


def _auroc(ordinary: Float, odd: Float) -> float:
    ranks = rankdata(np.concatenate([ordinary, odd]))[len(ordinary) :]
    return float((ranks.mean() - (len(odd) + 1) / 2) / len(ordinary))


def _transductive(detector: Detector) -> bool:
    return bool(getattr(detector, "transductive", False))


def _promises(detector: Detector, what: str) -> bool:
    return what in getattr(detector, "invariant_to", ())


def _close(found: Any, expected: Any, message: str) -> None:
    scale = max(float(np.abs(expected).max()), 1e-12)
    difference = float(np.abs(np.asarray(found) - np.asarray(expected)).max())
    assert difference <= 1e-7 * scale, f"{message} (largest difference {difference:.3g})"


def _refuses(action: Callable[[], Any], what: str) -> None:
    try:
        action()
    except InputError:
        return
    except Exception as error:
        raise AssertionError(
            f"{what} must raise InputError, not {type(error).__name__}: {error}"
        ) from error
    raise AssertionError(f"{what} must raise InputError and was accepted")


def check_output(detector: Detector) -> None:
    """Scores are finite float64 ``(n,)`` whatever the input's float dtype."""
    for dtype in (np.float64, np.float32):
        fitted = detector.fit(_rows(120, 0).astype(dtype))
        scores = fitted.score(_rows(30, 1).astype(dtype))
        assert scores.shape == (30,), f"30 rows gave scores of shape {scores.shape}"
        assert scores.dtype == np.float64, f"scores are {scores.dtype}, not float64"
        assert np.isfinite(scores).all(), "scores are not finite"


def check_determinism(detector: Detector) -> None:
    """Fitting and scoring again gives the same numbers to the bit, whatever happened between."""
    trusted, rows = _rows(120, 0), _rows(30, 1)
    fitted = detector.fit(trusted)
    first = fitted.score(rows).copy()
    assert np.array_equal(first, fitted.score(rows)), "scoring twice gave different scores"
    assert np.array_equal(first, detector.fit(trusted).score(rows)), "fitting twice differs"


def check_fitted_is_separate(detector: Detector) -> None:
    """A fitted detector keeps its scores when the detector is fitted on something else."""
    rows = _rows(30, 1)
    fitted = detector.fit(_rows(120, 0))
    before = fitted.score(rows).copy()
    detector.fit(100.0 + 9.0 * _rows(120, 2))
    assert np.array_equal(before, fitted.score(rows)), "a second fit changed the first one's scores"


def check_leading_axes(detector: Detector) -> None:
    """All sites and members at once give what a loop over them gives."""
    trusted = np.stack([_rows(120, seed) * (1 + seed) for seed in range(4)]).reshape(2, 2, 120, -1)
    rows = np.stack([_rows(20, 9 + seed) for seed in range(4)]).reshape(2, 2, 20, -1)
    together = detector.fit(trusted).score(rows)
    assert together.shape == (2, 2, 20), f"rows (2, 2, 20, d) gave {together.shape}"
    for index in np.ndindex(2, 2):
        alone = detector.fit(trusted[index]).score(rows[index])
        _close(together[index], alone, f"leading index {index} differs from its own fit")


def check_row_order(detector: Detector) -> None:
    """Shuffling the scored rows shuffles the scores, and nothing else."""
    rows = np.concatenate([_rows(20, 1), _planted(10, 2)])
    fitted = detector.fit(_rows(120, 0))
    order = np.random.default_rng(3).permutation(len(rows))
    _close(fitted.score(rows[order]), fitted.score(rows)[order], "scores depend on the rows' order")


def check_batch_independence(detector: Detector) -> None:
    """A row's score does not depend on the rows scored with it, unless ``transductive``."""
    rows = np.concatenate([_rows(20, 1), _planted(10, 2)])
    fitted = detector.fit(_rows(120, 0))
    same = np.allclose(fitted.score(rows)[:10], fitted.score(rows[:10]), rtol=1e-7, atol=1e-12)
    if _transductive(detector):
        assert not same, "transductive is True, but scores do not depend on the batch"
    else:
        assert same, "a row's score depends on its batch; set transductive = True if it must"


def check_planted_anomalies(detector: Detector) -> None:
    """Rows far from all trusted ones score higher (AUROC at least 0.95)."""
    scores = detector.fit(_rows(200, 0)).score(np.concatenate([_rows(80, 1), _planted(40, 2)]))
    auroc = _auroc(scores[:80], scores[80:])
    assert auroc >= 0.95, f"planted anomalies are ranked at AUROC {auroc:.3f}; higher must be odder"


def check_null(detector: Detector) -> None:
    """Held-out trusted rows look like trusted rows (AUROC 0.4 to 0.6).

    Two kinds: two held-out halves, and held-out rows against those of the fit, which a detector
    that memorises its trusted rows fails.
    """
    trusted = _rows(300, 0)
    fitted = detector.fit(trusted)
    for name, ordinary in (
        ("other held-out rows", _rows(300, 1)),
        ("the rows of the fit", trusted),
    ):
        scores = fitted.score(np.concatenate([ordinary, _rows(300, 2)]))
        auroc = _auroc(scores[:300], scores[300:])
        assert abs(auroc - 0.5) <= 0.1, (
            f"held-out trusted rows against {name} give AUROC {auroc:.3f}, not about 0.5"
        )


def check_refusals(detector: Detector) -> None:
    """NaN, infinity, too few rows and shapes that don't fit raise ``InputError``."""
    trusted = _rows(120, 0)
    for bad in (np.nan, np.inf):
        spoilt = trusted.copy()
        spoilt[3, 2] = bad
        _refuses(lambda x=spoilt: detector.fit(x), f"fitting rows with {bad}")  # type: ignore[misc]
    _refuses(lambda: detector.fit(trusted[:0]), "fitting no rows")
    _refuses(lambda: detector.fit(trusted[:1]), "fitting a single row")
    _refuses(lambda: detector.fit(trusted[0]), "fitting a one-dimensional array")
    fitted = detector.fit(trusted)
    spoilt = trusted[:9].copy()
    spoilt[3, 2] = np.nan
    _refuses(lambda: fitted.score(spoilt), "scoring rows with NaN")
    _refuses(lambda: fitted.score(trusted[:9, :-1]), "scoring rows of another width")
    sites = detector.fit(np.stack([trusted, trusted[::-1]]))
    _refuses(lambda: sites.score(np.stack([trusted[:9]] * 3)), "scoring three sites after two")


def check_inputs_are_kept(detector: Detector) -> None:
    """Neither trusted nor scored rows are changed, nor kept to be changed later."""
    trusted, rows = _rows(120, 0), _rows(30, 1)
    copies = trusted.copy(), rows.copy()
    fitted = detector.fit(trusted)
    before = fitted.score(rows).copy()
    assert np.array_equal(trusted, copies[0]), "fit changed the trusted rows"
    assert np.array_equal(rows, copies[1]), "score changed the scored rows"
    trusted += 50.0
    assert np.array_equal(before, fitted.score(rows)), "changing the trusted array changes scores"


def check_invariances(detector: Detector) -> None:
    """What ``invariant_to`` promises holds: same scores, for ``"scale"`` the same order."""
    trusted, rows = _rows(120, 0), np.concatenate([_rows(30, 1), _planted(10, 2)])
    before = detector.fit(trusted).score(rows)
    if _promises(detector, "translation"):
        moved = detector.fit(trusted - 40.0).score(rows - 40.0)
        _close(moved, before, "translation changes scores")
    if _promises(detector, "rotation"):
        turned = detector.fit(trusted @ _turn()).score(rows @ _turn())
        _close(turned, before, "rotation changes scores")
    if _promises(detector, "scale"):
        after = detector.fit(7.0 * trusted).score(7.0 * rows)[np.argsort(before)]
        slack = 1e-7 * float(np.abs(after).max())
        assert (np.diff(after) >= -slack).all(), "scaling changes the order of the scores"


DETECTOR_CHECKS: Mapping[str, Callable[[Detector], None]] = MappingProxyType(
    {
        "output": check_output,
        "determinism": check_determinism,
        "fitted is separate": check_fitted_is_separate,
        "leading axes": check_leading_axes,
        "row order": check_row_order,
        "batch independence": check_batch_independence,
        "planted anomalies": check_planted_anomalies,
        "null": check_null,
        "refusals": check_refusals,
        "inputs are kept": check_inputs_are_kept,
        "invariances": check_invariances,
    }
)
"""Every check by name: a function of the detector that raises ``AssertionError``."""
