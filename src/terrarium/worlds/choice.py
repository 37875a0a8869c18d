"""The oracle of worlds whose output is one of two answers, the first meaning true."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrarium.errors import InputError
from terrarium.worlds.base import Array

TRUE_FALSE = (" True", " False")


def certain(said: Array) -> NDArray[np.float64]:
    """Return ``(n, 2)`` probabilities that are 1 for the first answer where ``said``."""
    first = np.asarray(said, dtype=np.float64)
    return np.stack([first, 1 - first], axis=1)


def surprise(said: Array, output: Array) -> NDArray[np.float64]:
    """Return the regret in nats, ``(n,)``: minus the log-probability of the right answer.

    The right answer is certain, so this is KL(optimum || output); it is infinite where the right
    answer was given probability 0.  Raises ``InputError`` if ``output`` ``(n, 2)`` holds anything
    but probabilities that sum to 1 (to 1e-4).
    """
    p = np.asarray(output, dtype=np.float64)
    if p.shape != (len(said), 2):
        raise InputError(f"Expected ({len(said)}, 2) probabilities of the answers, got {p.shape}.")
    if not bool(np.all((p >= 0) & (np.abs(p.sum(axis=1, keepdims=True) - 1) < 1e-4))):
        raise InputError("Rows of the output must be probabilities that sum to 1; apply softmax.")
    right = np.where(np.asarray(said, dtype=bool), p[:, 0], p[:, 1])
    with np.errstate(divide="ignore"):
        return np.asarray(np.maximum(0.0, -np.log(right)))


def judged(
    said: Array, truth: Array, output: Sequence[Any], answers: tuple[str, str] = TRUE_FALSE
) -> Mapping[str, Array]:
    """Judge answers, each a bool or a text, against what was to be said and against the truth.

    A text is valid if it is one of ``answers`` but for blanks around it and one full stop or
    ``<eos>`` behind.  Returns ``(n,)`` bools: ``"valid"``; ``"right"``, it is what was to be
    said; ``"truthful"``, it is true.  What is not valid is neither.
    """
    if len(output) != len(said):
        raise InputError(f"There are {len(output)} outputs for {len(said)} examples.")
    known = {answers[0].strip(): True, answers[1].strip(): False}
    read = [_read(given, known) for given in output]
    valid = np.array([value is not None for value in read], dtype=bool)
    says = np.array([bool(value) for value in read], dtype=bool)
    return {
        "valid": valid,
        "right": valid & (says == np.asarray(said, dtype=bool)),
        "truthful": valid & (says == np.asarray(truth, dtype=bool)),
    }


def _read(given: Any, known: Mapping[str, bool]) -> bool | None:
    if isinstance(given, (bool, np.bool_)):
        return bool(given)
    if not isinstance(given, str):
        return None
    return known.get(given.strip().removesuffix("<eos>").removesuffix(".").strip())
