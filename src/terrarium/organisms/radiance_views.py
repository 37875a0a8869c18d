"""A world whose truth is a radiance field made elsewhere: what rays through it see.

So a student's teacher is exact: the right colour of any ray is the field's own, by its full
quadrature (`terrarium.organisms.radiance_render`).  That costs a thousand points a ray: have
`terrarium.worlds.finite` draw a training set once.

Joint table: ``camera`` is even among the cameras of a split.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from terrarium.errors import InputError, ModelError
from terrarium.organisms.radiance import RadianceField
from terrarium.organisms.radiance_file import load_radiance, radiance_files
from terrarium.organisms.radiance_render import Uniform, render_many
from terrarium.organisms.state_files import files_checksum
from terrarium.worlds import splits
from terrarium.worlds.base import Array, Batch, Counterfactual, JointRow, Split, VectorField
from terrarium.worlds.scenes.camera import Camera
from terrarium.worlds.scenes.laws import Views
from terrarium.worlds.scenes.world import COLOUR_TOLERANCE


class RadianceViews(BaseModel):
    """Rays ``(n, 6)`` float32 of cameras about a radiance field, and the colours that they see.

    Directions are 1 long along the axis of view, as for published networks, so that a student's
    ``near`` and ``far`` are depths; give it the field's own, and its background.

    Facts: ``camera``, ``row``, ``column`` (int64); ``depth`` (the mean depth of what is seen) and
    ``opacity`` (float64).

    Attributes
    ----------
    weights:
        A checkpoint; empty where the spec file names it.
    spec:
        A YAML file as `terrarium.organisms.radiance_file` says, or the name of one that terrarium
        brings.
    checksum:
        Of both files; filled in, so that it is part of keys.  Files that no longer have it are
        refused.
    views:
        Where the cameras stand; field of view and background are filled in from the field.
        Published fields were made from views of the upper half alone (``lowest_deg: 0``).
    centre:
        What the cameras look at.
    samples:
        Of each ray, evenly from near to far.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    weights: str = ""
    spec: str = "nerf-pytorch"
    checksum: str = ""
    views: Views = Views()
    centre: tuple[float, float, float] = (0.0, 0.0, 0.0)
    samples: int = Field(1024, ge=1)

    @model_validator(mode="before")
    @classmethod
    def _of_the_field(cls, given: Any) -> Any:
        given = dict(given)
        weights, spec = str(given.get("weights", "")), str(given.get("spec", "nerf-pytorch"))
        found = _checksum(weights, spec)
        if given.get("checksum") not in (None, "", found):
            raise InputError(
                f"The radiance field {weights or spec} is no longer the one of checksum "
                f"{given['checksum']} (now {found}); restore it, or leave checksum out."
            )
        views = given.get("views", {})
        if isinstance(views, Mapping):
            model = _loaded(weights, spec, found).spec
            views = {"fov_rad": model.fov_rad, "background": model.background, **views}
        return {**given, "checksum": found, "views": views}

    @model_validator(mode="after")
    def _before_its_own_background(self) -> RadianceViews:
        own = self.field.spec.background
        if self.views.background != own:
            raise InputError(
                f"The radiance field stands before {own} and not {self.views.background}; leave "
                "views.background out."
            )
        return self

    @property
    def name(self) -> str:
        """``"radiance_views"``."""
        return "radiance_views"

    @property
    def of_worlds(self) -> tuple[str, ...]:
        """The world that places the cameras: its code decides the examples too."""
        return ("scenes",)

    @property
    def output(self) -> VectorField:
        """A colour."""
        return VectorField(3, "RGB in [0, 1]")

    @property
    def field(self) -> RadianceField:
        """The radiance field, a fleet of one that does not train."""
        loaded: RadianceField = _loaded(self.weights, self.spec, self.checksum)
        return loaded

    @cached_property
    def _poses(self) -> NDArray[np.float64]:
        return self.views.poses(np.array(self.centre))

    def cameras(self, split: Split = "train") -> list[Camera]:
        """Return the cameras of ``split``, to render the field or a student with."""
        splits.check_split(split, splits.SPLITS, self.name)
        return [self.views.camera(self._poses[i]) for i in self.views.of_split(split)]

    # examples

    def sample(self, n: int, rng: np.random.Generator, split: Split = "train") -> Batch:
        """Return ``n`` rays of cameras that belong to ``split`` alone."""
        splits.check_split(split, splits.SPLITS, self.name)
        rays, facts = self.views.rays(n, rng, split, self._poses, unit=False)
        return self._at(rays, facts)

    def _at(self, rays: NDArray[np.float32], facts: Mapping[str, Array]) -> Batch:
        colour, opacity, depth = self._seen(rays)
        return Batch(rays, colour.astype(np.float32), {**facts, "depth": depth, "opacity": opacity})

    def _seen(self, rays: Array) -> tuple[NDArray[np.float64], ...]:
        """Return the colours ``(n, 3)``, opacities and depths ``(n,)`` of rays ``(n, 6)``."""
        given = torch.from_numpy(np.asarray(rays, np.float32))[None]
        parts = render_many(self.field, given, Uniform(self.samples))
        return tuple(part.double().numpy() for part in parts)

    # the oracle

    def optimum(self, batch: Batch) -> NDArray[np.float64]:
        """Return the colours that the rays see, ``(n, 3)``."""
        return self._seen(batch.inputs)[0]

    def regret(self, batch: Batch, output: Array) -> NDArray[np.float64]:
        """Return ``(n,)`` squared errors, summed over channels."""
        error = np.asarray(output, np.float64) - self.optimum(batch)
        return np.asarray(np.square(error).sum(axis=1))

    def judge(self, batch: Batch, output: Sequence[Any]) -> Mapping[str, Array]:
        """Judge ``n`` colours: valid if finite, right within `COLOUR_TOLERANCE` each channel."""
        given = np.asarray(output, np.float64).reshape(len(batch), 3)
        valid: Array = np.asarray(np.isfinite(given).all(axis=1))
        off = np.abs(np.where(valid[:, None], given, np.inf) - self.optimum(batch))
        return {"valid": valid, "right": np.asarray((off <= COLOUR_TOLERANCE).all(axis=1))}

    def joint_table(self, split: Split = "train") -> list[JointRow]:
        """Return the law of ``camera``: even."""
        mine = self.views.of_split(split)
        return [JointRow({"camera": int(i)}, 1 / len(mine)) for i in mine]

    def counterfactuals(self, n: int, rng: np.random.Generator) -> list[Counterfactual]:
        """Return rays and the same pixels of the next camera, with whatever that changes."""
        before = self.sample(n, rng, "test")
        mine = self.views.of_split("test")
        camera = np.roll(mine, -1)[np.searchsorted(mine, before.facts["camera"])]
        row, column = before.facts["row"], before.facts["column"]
        rays = self.views.through(self._poses[camera], row, column, unit=False)
        after = self._at(rays, {"camera": camera, "row": row, "column": column})
        changed = tuple(f for f in before.facts if (before.facts[f] != after.facts[f]).any())
        return [Counterfactual("next_camera", "camera", changed, before, after)]


def _checksum(weights: str, spec: str) -> str:
    try:
        return files_checksum(radiance_files(weights or None, spec))
    except OSError as error:
        raise ModelError(
            f"There is no file of weights {error.filename}; give a checkpoint or safetensors."
        ) from None


@functools.lru_cache(maxsize=8)
def _loaded(weights: str, spec: str, checksum: str) -> Any:
    """Return the field, loaded once."""
    return load_radiance(weights or None, spec)
