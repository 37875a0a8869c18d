"""Classifier two-sample tests: can it be told from which of two sets a text comes?

Lopez-Paz & Oquab 2017 (arXiv 1610.06545): train a classifier to tell the sets apart; where its
accuracy on rows that it has not seen exceeds one half, the sets differ.  Here logistic regression
on counts of tokens and of runs of tokens, so that what differs can be read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import betainc

from terrarium.errors import InputError
from terrarium.instruments.probes.logistic import LogisticRegression
from terrarium.randomness import generator

Tokens = Sequence[int]
Gram = tuple[int, ...]


@dataclass(frozen=True)
class TwoSample:
    """What a classifier two-sample test found.

    Attributes
    ----------
    accuracy:
        Share of held-out rows assigned to their own set, both sets weighing alike.
    p:
        Chance of so many right ones if the sets were alike; one-sided.
    n, right:
        Rows of each set, and how many of the ``2 n`` were assigned rightly.
    telling:
        The token runs that tell the sets apart best, with their weights: positive ones speak for
        the second set.
    """

    accuracy: float
    p: float
    n: int
    right: int
    telling: tuple[tuple[Gram, float], ...]


@dataclass(frozen=True)
class TwoSampleTest:
    """A classifier two-sample test on sequences of tokens.

    Both sets are cut to the size of the smaller one, at random.  Rows of one ``group`` (one prompt,
    say) lie in one fold: what comes twice could else be learnt by heart, or, where each set has it
    once, push the accuracy below one half.

    Parameters
    ----------
    grams:
        Longest run of tokens that is counted.
    features:
        So many of the most frequent runs are counted.
    folds:
        Of the cross-validation.
    permutations:
        0 takes the binomial law with one half; more shuffles the labels so often and fits again,
        which is exact also where rows depend on one another through the fit.
    C:
        Inverse strength of the penalty, as in scikit-learn.
    """

    grams: int = 2
    features: int = 256
    folds: int = 5
    permutations: int = 0
    C: float = 1.0

    def __post_init__(self) -> None:
        least = {"grams": 1, "features": 1, "folds": 2, "permutations": 0}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise InputError(f"TwoSampleTest: {name} expects at least {bound}.")

    def compare(
        self,
        first: Sequence[Tokens],
        second: Sequence[Tokens],
        groups: tuple[Sequence[object], Sequence[object]] | None = None,
        key: Sequence[str | int] = (),
    ) -> TwoSample:
        """Return whether sequences of two sets can be told apart.

        ``groups`` names each sequence's group; by default equal sequences are one.  ``key``
        decides folds and shuffles.  Raises ``InputError`` for fewer than ``folds`` rows in a set.
        """
        rng = generator("two-sample", *key)
        told = groups or ([tuple(row) for row in first], [tuple(row) for row in second])
        n = min(len(first), len(second))
        if n < self.folds:
            raise InputError(
                f"two-sample test: the smaller set has {n} rows; it takes {self.folds} at least."
            )
        sets = [rng.permutation(len(rows))[:n] for rows in (first, second)]
        rows = [[first, second][side][at] for side in (0, 1) for at in sets[side]]
        names = [told[side][at] for side in (0, 1) for at in sets[side]]
        fold = _folds(names, self.folds, rng)
        runs = frequent_runs(rows, self.grams, self.features)
        x = counts(rows, runs)
        y = np.repeat([False, True], n)
        right = self._right(x, y, fold)
        if self.permutations:
            null = [self._right(x, rng.permutation(y), fold) for _ in range(self.permutations)]
            p = (1 + sum(other >= right for other in null)) / (1 + self.permutations)
        else:
            # P(X >= right) for X ~ Binomial(2 n, 1/2)
            p = float(betainc(right, 2 * n - right + 1, 0.5)) if right else 1.0
        whole = LogisticRegression(C=self.C, standardize="none").fit(x, y)
        weight = np.asarray(whole.direction, np.float64).reshape(-1)
        order = np.argsort(-np.abs(weight) * x.std(axis=0))[:8]
        telling = tuple((runs[i], float(weight[i])) for i in order.tolist())
        return TwoSample(right / (2 * n), p, n, right, telling)

    def _right(self, x: NDArray[np.float64], y: NDArray[np.bool_], fold: NDArray[np.int64]) -> int:
        """Return how many held-out rows are assigned to their own set."""
        right = 0
        for held in range(self.folds):
            test = fold == held
            train = ~test
            if not test.any():
                continue
            if len(np.unique(y[train])) < 2:
                raise InputError("two-sample test: a fold leaves one set alone; take fewer folds.")
            fitted = LogisticRegression(C=self.C, standardize="none").fit(x[train], y[train])
            said = np.asarray(fitted.score(x[test])).reshape(-1) > 0
            right += int((said == y[test]).sum())
        return right


def frequent_runs(rows: Sequence[Tokens], longest: int, most: int) -> list[Gram]:
    """Return the runs of up to ``longest`` tokens that most rows have, at most ``most`` of them."""
    found: Counter[Gram] = Counter()
    for row in rows:
        found.update(set(_runs(row, longest)))
    ranked = sorted(found, key=lambda run: (-found[run], run))
    return ranked[:most]


def counts(rows: Sequence[Tokens], runs: Sequence[Gram]) -> NDArray[np.float64]:
    """Return ``(n, runs)`` how often each row has each run."""
    place = {run: i for i, run in enumerate(runs)}
    longest = max((len(run) for run in runs), default=1)
    table = np.zeros((len(rows), len(runs)))
    for i, row in enumerate(rows):
        for run in _runs(row, longest):
            if run in place:
                table[i, place[run]] += 1
    return table


def _runs(row: Tokens, longest: int) -> list[Gram]:
    cells = [int(token) for token in row]
    return [
        tuple(cells[i : i + k]) for k in range(1, longest + 1) for i in range(len(cells) - k + 1)
    ]


def _folds(names: Sequence[object], folds: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return each row's fold; rows of one name share it, and folds are about as large."""
    sizes = Counter(names)
    order = sorted(sizes, key=repr)
    order = [order[i] for i in rng.permutation(len(order))]
    order.sort(key=lambda name: -sizes[name])
    load, fold = [0] * folds, {}
    for name in order:
        fold[name] = load.index(min(load))
        load[fold[name]] += sizes[name]
    return np.array([fold[name] for name in names], np.int64)
