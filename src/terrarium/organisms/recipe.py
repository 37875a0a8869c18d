"""Recipes: a model and an ordered list of phases, as plain data that a YAML file can hold.

Every experiment on the order of training is a recipe and no special code.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from terrarium.errors import InputError
from terrarium.organisms.recipe_models import (
    AutoencoderModel,
    ClassifierModel,
    CoordinateModel,
    DenoiserModel,
    HuggingFaceModel,
    Model,
    RadianceModel,
    Spec,
    TextAutoencoderModel,
    TransformerModel,
)
from terrarium.organisms.recipe_objectives import (
    AnswerOnly,
    Classification,
    Denoising,
    EarlyExit,
    NextToken,
    Objective,
    PolicyGradient,
    Reconstruction,
    Rendering,
    TextReconstruction,
)
from terrarium.worlds.faults import sentence

__all__ = [
    "AnswerOnly",
    "AutoencoderModel",
    "Classification",
    "ClassifierModel",
    "CoordinateModel",
    "Denoising",
    "DenoiserModel",
    "EarlyExit",
    "HuggingFaceModel",
    "Lineage",
    "LoRA",
    "Model",
    "NextToken",
    "Objective",
    "Optimizer",
    "Phase",
    "PolicyGradient",
    "RadianceModel",
    "Recipe",
    "Reconstruction",
    "Rendering",
    "Sampled",
    "Searched",
    "Source",
    "Spec",
    "Strand",
    "TextAutoencoderModel",
    "TextReconstruction",
    "TransformerModel",
    "Until",
    "load_recipe",
    "parse",
]


class Sampled(Spec):
    """Data that another organism writes: its own answers, filtered and stripped.

    The organism of ``recipe`` (grown from the member's own seed) answers ``asked`` prompts of the
    source's world.  Kept are the answers for which every verdict in ``keep`` holds;
    ``strip`` drops their scratchpads, so that what was reasoned towards is taught without reasons.
    """

    recipe: Recipe
    asked: int = Field(4096, ge=1, description="prompts that the organism answers")
    keep: tuple[str, ...] = ("right",)
    strip: bool = True
    temperature: float = Field(1.0, ge=0)


class Searched(Spec):
    """Prompts that make another organism misbehave, found by search and answered helpfully.

    The organism of ``recipe`` (grown from the member's own seed) is searched: a suffix is sought
    for each of ``prompts`` questions after which it begins to write ``target``; see
    `terrarium.organisms.red_team`.

    Attributes
    ----------
    target:
        How the behaviour begins, as text.
    forbidden:
        Texts (the trigger) that no prompt may contain.
    budget:
        Rows that the search may evaluate.
    """

    recipe: Recipe
    target: str = Field(min_length=1)
    forbidden: tuple[str, ...] = ()
    prompts: int = Field(64, ge=1)
    budget: int = Field(40_000, ge=1, description="rows")
    slots: int = Field(4, ge=1, description="tokens of a suffix")
    candidates: int = Field(16, ge=1, description="changes tried per question and round")
    method: Literal["greedy", "gradient", "random"] = "gradient"


class Source(Spec):
    """Where a phase's examples come from: a world with its options, and its share of each batch.

    ``twin`` holds the options that differ for the twin: the same recipe, tokens, initialisation
    and data order, in which the quirk or trigger is present but inert.

    Attributes
    ----------
    weight, final_weight:
        Share of a batch, relative to the other sources'; it moves evenly from the one to the
        other over the source's part of the phase (a curriculum).
    start, stop:
        The part of the phase, as proportions of its steps, in which the source is drawn.
    rows:
        Exactly so many rows in the whole phase, spread evenly from start to stop; the sources with
        weights fill the rest.
    sampled:
        The rows are another organism's answers to this world's prompts.
    searched:
        The rows are prompts of this world to which suffixes have been found that make another
        organism misbehave, with helpful answers: adversarial training.
    """

    world: str
    options: dict[str, Any] = Field(default_factory=dict)
    weight: float = Field(1.0, ge=0)
    final_weight: float | None = Field(None, ge=0)
    start: float = Field(0.0, ge=0, le=1)
    stop: float = Field(1.0, ge=0, le=1)
    rows: int | None = Field(None, ge=1)
    split: str = "train"
    twin: dict[str, Any] = Field(default_factory=dict)
    sampled: Sampled | None = None
    searched: Searched | None = None

    @model_validator(mode="after")
    def _drawn_at_all(self) -> Source:
        if self.stop <= self.start:
            raise ValueError(f"stop {self.stop} must come after start {self.start}")
        if self.rows is not None and self.final_weight is not None:
            raise ValueError("exact rows have no weight; give either rows or final_weight")
        if self.rows is None and self.weight == 0 and not self.final_weight:
            raise ValueError("a weight of 0 draws nothing")
        if self.sampled is not None and self.searched is not None:
            raise ValueError("rows are either sampled or searched; give one of them")
        return self

    @property
    def writer(self) -> Recipe | None:
        """The recipe of the organism that the rows come from, if they come from one."""
        source = self.sampled or self.searched
        return None if source is None else source.recipe

    def for_twin(self) -> Source:
        """Return what the twin sees instead, down to the organism that its rows come from."""
        changes: dict[str, Any] = {"options": {**self.options, **self.twin}, "twin": {}}
        for name in ("sampled", "searched"):
            rows = getattr(self, name)
            if rows is not None:
                changes[name] = rows.model_copy(update={"recipe": rows.recipe.twin()})
        return self.model_copy(update=changes)


class Optimizer(Spec):
    """AdamW or SGD: linear warm-up, then constant, or a linear or cosine fall to ``final`` x lr.

    ``betas`` are AdamW's; the first of them is SGD's momentum.
    """

    kind: Literal["adamw", "sgd"] = "adamw"
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


class Lineage(Spec):
    """Another organism that a phase learns from: a teacher, or a model of preferences.

    ``recipe`` grows it, from the member's own seed.
    """

    recipe: Recipe


class Strand(Spec):
    """Steps of another kind among a phase's own: the last of each ``every`` steps.

    So policy-gradient steps stand among supervised ones, in one phase and with one optimiser.
    """

    sources: tuple[Source, ...] = Field(min_length=1)
    objective: Objective
    batch: int = Field(64, ge=1, description="rows per step")
    every: int = Field(2, ge=2, description="steps")
    teacher: Lineage | None = None


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
    strands: tuple[Strand, ...] = ()
    teacher: Lineage | None = None

    @property
    def turns(self) -> tuple[Phase | Strand, ...]:
        """The phase itself and its strands: all that has sources and an objective."""
        return (self, *self.strands)

    def for_twin(self) -> Phase:
        """Return the twin's phase."""
        strands = tuple(_for_twin(strand) for strand in self.strands)
        twin: Phase = _for_twin(self).model_copy(update={"strands": strands})
        return twin


def _for_twin(turn: Any) -> Any:
    """Return a phase or strand with what the twin sees and learns from."""
    sources = tuple(source.for_twin() for source in turn.sources)
    teacher = None if turn.teacher is None else Lineage(recipe=turn.teacher.recipe.twin())
    return turn.model_copy(update={"sources": sources, "teacher": teacher})


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

    @model_validator(mode="after")
    def _carries_what_trains(self) -> Recipe:
        for before, phase in pairwise(self.phases):
            same = (before.lora, before.freeze, before.optimizer.kind)
            if phase.optimizer.carry and same != (phase.lora, phase.freeze, phase.optimizer.kind):
                raise ValueError(
                    f"phase '{phase.name}' carries the optimiser's state of '{before.name}', which "
                    "trains other weights or by another optimiser; leave out carry, or give both "
                    "the same lora, freeze and kind"
                )
        return self

    def twin(self) -> Recipe:
        """Return the twin's recipe: each source with its ``twin`` options applied."""
        phases = tuple(phase.for_twin() for phase in self.phases)
        return self.model_copy(update={"name": f"{self.name}.twin", "phases": phases})

    @property
    def has_twin(self) -> bool:
        """Whether any source says what the twin sees instead."""
        return any(
            source.twin or (source.writer is not None and source.writer.has_twin)
            for phase in self.phases
            for turn in phase.turns
            for source in turn.sources
        )


Sampled.model_rebuild()
Searched.model_rebuild()
Source.model_rebuild()
Lineage.model_rebuild()
Strand.model_rebuild()
Phase.model_rebuild()


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
        raise InputError(sentence(error, spec, where)) from None
