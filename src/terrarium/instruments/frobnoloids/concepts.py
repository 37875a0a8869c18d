"""The vocabulary: computable concepts as arrays, by name, from which any can be held out.

A concept is a function of images ``(n, channels, rows, columns)`` and of the world's known maps; it
returns ``(n, rows, columns)`` or, for concepts of several numbers, one axis more.  Floats are
numbers, integers and booleans categories.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrarium.errors import InputError, did_you_mean
from terrarium.instruments.frobnoloids import filters
from terrarium.worlds.base import Batch

Array = NDArray[Any]
Concept = Callable[[Array, Mapping[str, Array]], Array]


@dataclass(frozen=True)
class Vocabulary:
    """Named concepts, each in a family (``"curvature"``, ``"gabor"``, ...).

    Attributes
    ----------
    concepts:
        Name to function.
    family:
        Name to family; whole families can be held out.
    needs:
        Name to the known map without which a concept cannot be computed.
    """

    concepts: Mapping[str, Concept] = field(repr=False)
    family: Mapping[str, str] = field(repr=False)
    needs: Mapping[str, str] = field(default_factory=dict, repr=False)

    def __repr__(self) -> str:
        families = ", ".join(dict.fromkeys(self.family.values()))
        return f"Vocabulary({len(self.concepts)} concepts: {families})"

    def without(self, *held_out: str) -> Vocabulary:
        """Return the vocabulary less the named concepts and families.

        Raises ``InputError`` with a did-you-mean for names that are not in it.
        """
        return self._kept(lambda name, out: not out, held_out)

    def only(self, *names: str) -> Vocabulary:
        """Return the named concepts and families alone."""
        return self._kept(lambda name, out: out, names)

    def _kept(self, keep: Callable[[str, bool], bool], names: Sequence[str]) -> Vocabulary:
        known = {*self.concepts, *self.family.values()}
        for name in names:
            if name not in known:
                raise InputError(f"There is no concept '{name}'{did_you_mean(name, known)}")
        chosen = [c for c in self.concepts if keep(c, c in names or self.family[c] in names)]
        return replace(
            self,
            concepts={c: self.concepts[c] for c in chosen},
            family={c: self.family[c] for c in chosen},
            needs={c: self.needs[c] for c in chosen if c in self.needs},
        )

    def joined(self, concepts: Mapping[str, Concept], family: str) -> Vocabulary:
        """Return the vocabulary with concepts of your own."""
        return replace(
            self,
            concepts={**self.concepts, **concepts},
            family={**self.family, **dict.fromkeys(concepts, family)},
        )

    def maps(
        self, images: Array, known: Mapping[str, Array] | None = None
    ) -> dict[str, NDArray[Any]]:
        """Return every concept's maps; those whose known map is not given are left out.

        Parameters
        ----------
        images:
            ``(n, channels, rows, columns)``, values in [0, 1].
        known:
            The world's own maps ``(n, rows, columns)`` by name (``distance``, ``curvature``, ...).

        Raises ``InputError`` for images or maps of other shapes.
        """
        pictures = np.asarray(images, np.float64)
        if pictures.ndim != 4 or not np.isfinite(pictures).all():
            raise InputError(
                f"The vocabulary needs images (n, channels, rows, columns), got {pictures.shape}."
            )
        given = {name: np.asarray(value) for name, value in (known or {}).items()}
        lead = (len(pictures), *pictures.shape[2:])
        for name, value in given.items():
            if value.shape[:3] != lead:
                raise InputError(f"The known map '{name}' is {value.shape}; give {lead} in front.")
        return {
            name: np.asarray(concept(pictures, given))
            for name, concept in self.concepts.items()
            if name not in self.needs or self.needs[name] in given
        }


def image_vocabulary(
    *,
    known: Iterable[str] = (),
    strides: Sequence[int] = (2, 4),
    frequencies: Sequence[tuple[float, float]] = (),
    gabor_orientations: int = 4,
    gabor_wavelengths: Sequence[float] = (3.0, 6.0, 12.0),
    scales: Sequence[float] = (1.0, 2.0, 4.0),
) -> Vocabulary:
    """Return the vocabulary of images.

    Parameters
    ----------
    known:
        Names of known maps of the world that are concepts of their own (``curvature``, ...).
    strides:
        Of the network's layers, in pixels: the phase of each grid is a concept.
    frequencies:
        Input frequencies of the network, ``(cycles per width in x, in y)``: with their first
        harmonics, and the beats (sums and differences) of every two.
    gabor_orientations, gabor_wavelengths, scales:
        Of the Gabor filters (wavelengths in pixels), and of edges and local statistics (standard
        deviations of the Gaussian, in pixels).
    """
    families: dict[str, dict[str, Concept]] = {
        "coordinates": filters.coordinates(),
        "polynomial": filters.polynomials(),
        "border": filters.borders(),
        "grid": filters.grids(strides),
        "colour": filters.colours(),
        "opponent": filters.opponents(),
        "luminance": {"luminance": lambda images, _: filters.luminance(images)},
        "edges": filters.edges(scales),
        "gabor": filters.gabors(gabor_orientations, gabor_wavelengths),
        "local": filters.local_statistics(scales),
        "harmonics": filters.harmonics(frequencies),
        "beats": filters.beats(frequencies),
    }
    concepts = {name: c for members in families.values() for name, c in members.items()}
    family = {name: f for f, members in families.items() for name in members}
    vocabulary = Vocabulary(concepts, family)
    for name in known:
        passed = {name: lambda _, maps, name=name: maps[name]}
        vocabulary = vocabulary.joined(passed, name)
    needs = {name: name for name in known}
    for source, derived in (("distance", filters.of_distance()), ("mask", filters.of_mask())):
        for name, concept in derived.items():
            if name not in vocabulary.concepts:
                vocabulary = vocabulary.joined({name: concept}, name)
                needs[name] = source
    return replace(vocabulary, needs=needs)


def point_concepts(
    points: Array,
    known: Mapping[str, Array] | None = None,
    frequencies: Array | None = None,
    beats: int = 32,
) -> dict[str, Array]:
    """Return concepts of coordinates ``(n, d)``: for networks of coordinates.

    Coordinates, their products, the radius, the known quantities of the scene (``(n,)`` or
    ``(n, c)`` by name: distance, normals, curvature, parts, colour), and of ``frequencies``
    ``(d, f)``, in cycles per unit, the harmonics and the first ``beats`` sums and differences.
    """
    x = np.asarray(points, np.float64)
    if x.ndim != 2:
        raise InputError(f"Points are (n, d) coordinates, got {x.shape}.")
    names = [f"axis {i}" for i in range(x.shape[1])]
    found: dict[str, Array] = {name: x[:, i] for i, name in enumerate(names)}
    found["radius"] = np.linalg.norm(x, axis=1)
    for i, first in enumerate(names):
        for j in range(i, len(names)):
            found[f"{first} x {names[j]}"] = x[:, i] * x[:, j]
    found.update({name: np.asarray(value) for name, value in (known or {}).items()})
    if frequencies is None:
        return found
    f = np.asarray(frequencies, np.float64)
    pairs = [(i, j) for i in range(f.shape[1]) for j in range(i)][:beats]
    waves = {f"harmonic {i}": f[:, i] for i in range(f.shape[1])}
    waves |= {f"beat {i} + {j}": f[:, i] + f[:, j] for i, j in pairs}
    waves |= {f"beat {i} - {j}": f[:, i] - f[:, j] for i, j in pairs}
    for name, wave in waves.items():
        angle = 2 * np.pi * (x @ wave)
        found[name] = np.stack([np.sin(angle), np.cos(angle)], 1)
    return found


def text_concepts(batch: Batch, positions: NDArray[np.int64]) -> dict[str, Array]:
    """Return concepts of tokens at ``positions`` ``(n, p)``, as ``(n * p, ...)`` rows.

    The world's own labels (facts of each example; numbers with more than 24 values count as
    numbers), the token, the one before, the position, its distance to the end, and in which spans
    it lies.  Rows run over positions first; ``np.repeat(groups, p)`` fits.  Raises ``InputError``
    for a batch without tokens, or positions outside.
    """
    if batch.lengths is None or positions.ndim != 2 or len(positions) != len(batch):
        raise InputError("Concepts of text need a batch of tokens and positions (n, p).")
    if positions.min() < 0 or bool((positions >= batch.lengths[:, None]).any()):
        raise InputError("A position lies outside its example; choose rows that have it.")
    n, p = positions.shape
    rows = np.arange(n)[:, None]
    before = np.where(positions > 0, batch.inputs[rows, positions - 1], -1)
    found: dict[str, Array] = {
        "token": batch.inputs[rows, positions].reshape(-1),
        "token before": before.reshape(-1),
        "position": positions.reshape(-1).astype(np.float64),
        "to the end": (batch.lengths[:, None] - positions).reshape(-1).astype(np.float64),
    }
    for name, span in batch.spans.items():
        inside = (positions >= span[:, :1]) & (positions < span[:, 1:])
        found[f"in {name}"] = inside.reshape(-1)
    for name, fact in batch.facts.items():
        values = np.asarray(fact)
        if values.ndim != 1 or values.dtype.kind not in "biufUS":
            continue
        if values.dtype.kind in "iu" and len(np.unique(values)) > 24:
            values = values.astype(np.float64)
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            continue
        found[name] = np.repeat(values, p)
    return found
