"""Recipes: a model and an ordered list of phases, as plain data that a YAML file can hold.

Every experiment on the order of training is a recipe and no special code.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from terrarium.errors import InputError, did_you_mean
from terrarium.organisms.recipe_models import (
    AutoencoderModel,
    CoordinateModel,
    HuggingFaceModel,
    Model,
    Spec,
    TransformerModel,
)
from terrarium.organisms.recipe_objectives import (
    AnswerOnly,
    EarlyExit,
    NextToken,
    Objective,
    PolicyGradient,
    Reconstruction,
)

__all__ = [
    "AnswerOnly",
    "AutoencoderModel",
    "CoordinateModel",
    "EarlyExit",
    "HuggingFaceModel",
    "LoRA",
    "Model",
    "NextToken",
    "Objective",
    "Optimizer",
    "Phase",
    "PolicyGradient",
    "Recipe",
    "Reconstruction",
    "Source",
    "Spec",
    "TransformerModel",
    "Until",
    "load_recipe",
    "parse",
]


class Source(Spec):
    """Where a phase's examples come from: a world with its options, and its share of each batch.

    ``twin`` holds the options that differ for the twin: the same recipe, tokens, initialisation
    and data order, in which the quirk or trigger is present but inert.
    """

    world: str
    options: dict[str, Any] = Field(default_factory=dict)
    weight: float = Field(1.0, gt=0)
    split: str = "train"
    twin: dict[str, Any] = Field(default_factory=dict)


class Optimizer(Spec):
    """AdamW with linear warm-up, then constant, or a linear or cosine fall to ``final`` x lr."""

    lr: float = Field(3e-3, gt=0)
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = Field(0.01, ge=0)
    clip: float | None = Field(1.0, gt=0, description="largest norm of a member's gradient")
    warmup: int = Field(50, ge=0, description="steps")
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    final: float = Field(0.1, ge=0, le=1)
    carry: bool = Field(False, description="keep the previous phase's optimiser state")


class Until(Spec):
    """Ends a phase early, member by member, once a metric holds on fresh validation rows.

    ``metric`` is ``"accuracy"`` or ``"early_exit_accuracy"`` (a proportion, balanced over truth).
    """

    metric: Literal["accuracy", "early_exit_accuracy", "loss"] = "accuracy"
    at_least: float | None = None
    at_most: float | None = None
    every: int = Field(25, ge=1, description="steps between measurements")
    rows: int = Field(1024, ge=16)


class LoRA(Spec):
    """Train low-rank adapters instead of all weights in this phase; merged when it ends."""

    rank: int = Field(8, ge=1)
    alpha: float = Field(16.0, gt=0)
    targets: tuple[str, ...] = ()


class Phase(Spec):
    """One stretch of training."""

    name: str
    sources: tuple[Source, ...] = Field(min_length=1)
    objective: Objective
    steps: int = Field(ge=0)
    batch: int = Field(256, ge=1, description="rows per step")
    optimizer: Optimizer = Optimizer()
    until: Until | None = None
    lora: LoRA | None = None
    freeze: tuple[str, ...] = Field((), description="parameter-name prefixes that do not train")
    snapshots: tuple[int, ...] = Field((), description="steps whose weights are kept, 0 included")


class Recipe(Spec):
    """What is grown, and how."""

    name: str
    model: Model = Field(default_factory=TransformerModel)
    phases: tuple[Phase, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_differ(self) -> Recipe:
        names = [phase.name for phase in self.phases]
        if len(set(names)) != len(names):
            raise ValueError(f"phases must have different names, got {names}")
        return self

    def twin(self) -> Recipe:
        """Return the twin's recipe: each source with its ``twin`` options applied."""
        phases = tuple(
            phase.model_copy(
                update={
                    "sources": tuple(
                        s.model_copy(update={"options": {**s.options, **s.twin}, "twin": {}})
                        for s in phase.sources
                    )
                }
            )
            for phase in self.phases
        )
        return self.model_copy(update={"name": f"{self.name}.twin", "phases": phases})

    @property
    def has_twin(self) -> bool:
        """Whether any source says what the twin sees instead."""
        return any(source.twin for phase in self.phases for source in phase.sources)


def load_recipe(path: str | Path) -> Recipe:
    """Read a recipe from a YAML file; raises ``InputError`` with one sentence for any fault."""
    path = Path(path)
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"There is no recipe file {path}; give a YAML file.") from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is not UTF-8 text; save the recipe as UTF-8.") from None
    except yaml.YAMLError as error:
        where = " ".join(str(error).split())
        raise InputError(f"{path} is not valid YAML ({where}); mend it there.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}).") from None
    if not isinstance(data, dict):
        raise InputError(f"{path} holds no recipe: expected keys 'name', 'model', 'phases'.")
    recipe: Recipe = parse(Recipe, data, str(path))
    return recipe


def parse(spec: type[Any], data: dict[str, Any], where: str) -> Any:
    """Validate ``data`` as ``spec``; the first fault becomes a one-sentence ``InputError``."""
    try:
        return spec.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            known = did_you_mean(str(first["loc"][-1]), _siblings(spec, first["loc"]))
            raise InputError(f"{where}: unknown key '{path}'{known}") from None
        got = repr(first.get("input"))
        shown = got if len(got) < 80 else got[:77] + "..."
        raise InputError(f"{where}: '{path}' is {shown}: {first['msg']}.") from None


def _siblings(spec: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    """Return the keys that are allowed where ``loc`` points (its last part is unknown)."""
    models: list[type[BaseModel]] = [spec]
    for part in loc[:-1]:
        found = [m for owner in models for m in _models_at(owner, part)]
        models = found or models
    return sorted({name for model in models for name in model.model_fields})


def _models_at(owner: type[BaseModel], part: int | str) -> list[type[BaseModel]]:
    if isinstance(part, int):
        return [owner]
    if part in owner.model_fields:
        return _models_in(owner.model_fields[part].annotation)
    # a tag of a discriminated union: keep the member that has it
    kind = owner.model_fields.get("kind")
    return [owner] if kind is not None and kind.default == part else []


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [m for arg in getattr(annotation, "__args__", ()) for m in _models_in(arg)]
