"""All three scores of features in one call, and of plants by the same settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from terrarium.instruments.effects import Effects, exact_effects
from terrarium.instruments.frobnoloids.decide import Scores, Thresholds, calibrate
from terrarium.instruments.frobnoloids.importance import importance
from terrarium.instruments.frobnoloids.nameability import nameability
from terrarium.instruments.frobnoloids.plants import SITE, Plants, plant
from terrarium.instruments.frobnoloids.structure import Structure, matched, predictable, teachable
from terrarium.instruments.frobnoloids.students import QuickStudent, Student
from terrarium.instruments.quantities import squared_error
from terrarium.instruments.site_features import units

_SMALLEST = 8  # side of a map that has a neighbourhood


@dataclass(frozen=True)
class Scoring:
    """How features are scored: one setting for the features in question and for the plants.

    Parameters
    ----------
    points:
        Most rows (pixels, tokens) that names, matches and students see.
    draws:
        Draws of each null, 4 at least, the random directions of plants among them.
    naming_draws:
        Draws of the null of names; None: as many as ``draws``.  No decision rests on that null
        (names are held against a bar), and it is the dearest one.
    terms, knots, metric:
        Of `nameability`.
    student, neighbour:
        Of `teachable` and of `predictable`.
    key:
        Decides all that is random.
    """

    points: int = 6_000
    draws: int = 10
    terms: int = 3
    knots: int = 4
    metric: Literal["r2", "auroc"] = "r2"
    student: Student = field(default_factory=Student)
    neighbour: QuickStudent = field(default_factory=QuickStudent)
    key: tuple[str | int, ...] = ()
    naming_draws: int | None = None

    def score(
        self,
        features: NDArray[Any],
        inputs: NDArray[Any],
        concepts: Mapping[str, NDArray[Any]],
        runs: Mapping[str, Sequence[NDArray[Any]]],
        effects: Effects,
        groups: NDArray[Any] | None = None,
        *,
        effect_groups: NDArray[Any] | None = None,
        member: int = 0,
        worse: Literal["more", "less"] = "more",
    ) -> Scores:
        """Return the three scores of ``features``.

        Parameters
        ----------
        features, groups:
            ``(n, k)`` or ``(n, rows, columns, k)``, and ``(n,)`` the image, scene or text of each.
        inputs:
            What the network was given, for the student: images ``(n, channels, rows, columns)``
            for maps, ``(n, d)`` else.
        concepts:
            See `nameability`.
        runs:
            Features of other initialisations on the same inputs, 4 at least by what was
            initialised anew: ``{"dictionary": [...], "network": [...]}``.
        effects, effect_groups, member, worse:
            Of the same ``k`` features, on any examples; see `importance`.
        """
        again = {
            name: matched(
                features,
                others,
                groups,
                draws=self.draws,
                points=self.points,
                key=(*self.key, name),
            )
            for name, others in runs.items()
        }
        learnable = {
            "teachable": teachable(
                features,
                inputs,
                groups,
                student=self.student,
                draws=self.draws,
                points=self.points,
                key=self.key,
            )
        }
        shape = np.shape(features)
        if len(shape) == 4 and min(shape[1:3]) >= _SMALLEST:
            learnable["predictable"] = predictable(
                features,
                groups,
                student=self.neighbour,
                draws=self.draws,
                points=self.points // 2,
                key=self.key,
            )
        names = nameability(
            features,
            concepts,
            groups,
            terms=self.terms,
            metric=self.metric,
            permutations=self.draws if self.naming_draws is None else self.naming_draws,
            points=self.points,
            knots=self.knots,
            key=self.key,
        )
        weight = importance(effects, effect_groups, member=member, worse=worse)
        beyond = None
        if effects.varying.shape[2]:
            beyond = importance(
                effects, effect_groups, member=member, worse=worse, against="varying"
            )
        return Scores(Structure(again, learnable), weight, names, beyond)

    def of_plants(
        self, plants: Plants, images: NDArray[Any], concepts: Mapping[str, NDArray[Any]]
    ) -> Scores:
        """Return the scores of plants on the images that they were planted on."""
        k = len(plants.kind)
        effects = exact_effects(
            plants.network(),
            plants.inputs(),
            SITE,
            units(plants.readout.shape[1], range(k)),
            squared_error(plants.outputs()),
            randoms=max(8, self.draws),
            key=self.key,
        )
        runs = {"dictionary": plants.runs}
        return self.score(plants.features, images, concepts, runs, effects)

    def thresholds(
        self,
        images: NDArray[Any],
        concepts: Mapping[str, NDArray[Any]],
        held_out: Mapping[str, NDArray[Any]] | None = None,
        *,
        count: int = 16,
        key: Sequence[str | int] = ("thresholds",),
    ) -> Thresholds:
        """Return thresholds set by ``count`` plants of each kind on ``images``.

        ``held_out`` are concepts that ``concepts`` lacks; see `plant` and `calibrate`.  Test with
        plants of another ``key``.
        """
        plants = plant(images, concepts, held_out, named=count, unnamed=count, noise=count, key=key)
        scores = self.of_plants(plants, images, concepts)
        return calibrate(scores, plants.kind != "noise", plants.important, plants.kind == "named")
