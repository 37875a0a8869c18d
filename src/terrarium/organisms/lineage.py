"""Who descends from whom: the phases of an organism with their keys, and what they learn from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from terrarium.keys import code_closure, code_fingerprint, content_key
from terrarium.organisms.build import ARCHITECTURES, COMPANIONS, identity, resolved
from terrarium.organisms.feed import check_feed
from terrarium.organisms.recipe import (
    HuggingFaceModel,
    Phase,
    Recipe,
    Source,
    Strand,
    parse,
)
from terrarium.organisms.retokenise import retokenised
from terrarium.worlds.base import worlds

_ENGINE = tuple(
    f"terrarium.organisms.{name}"
    for name in (
        *("engine", "feed", "kernels", "fused", "objectives"),
        *("optimizer", "parameters", "fleet", "measure"),
    )
)

SAMPLING = ("sampled", "sampling", "decoding")
"""Modules that decide what an organism writes."""

SEARCHING = ("searched", "red_team", "likelihood", *SAMPLING)
"""Modules that decide what prompts a search finds."""

_BY_OBJECTIVE = {
    "classification": ("classification",),
    "text_reconstruction": ("text_reconstruction",),
    "denoising": ("denoising",),
    "policy_gradient": ("policy", "sampling", "decoding", "likelihood", "preferences"),
    "dpo": ("preferences", "likelihood"),
    "rendering": ("rendering", "radiance_render"),
    "reward_model": ("preferences", "likelihood"),
    "distillation": ("distillation", "likelihood"),
    "context_distillation": ("distillation", "likelihood"),
}
"""Modules that decide the losses of some objectives alone."""


def modules_of(names: Iterable[str]) -> set[str]:
    """Return the full names of modules of this package."""
    return {f"terrarium.organisms.{name}" for name in names}


def make_world(source: Source) -> Any:
    """Return the source's world; raises ``InputError`` for unknown names and options."""
    return parse(worlds.get(source.world), dict(source.options), f"world '{source.world}'")


def phase_worlds(phase: Phase | Strand, model: Any) -> list[Any]:
    """Return the worlds of the sources of a phase or strand, in the model's own tokens."""
    made = [make_world(source) for source in phase.sources]
    if isinstance(model, HuggingFaceModel):
        return [retokenised(world, model.path) for world in made]
    return made


@dataclass(frozen=True)
class Link:
    """One phase of one organism: its place in the chain and its key."""

    recipe: Recipe
    seed: int
    index: int
    spec: Mapping[str, Any]
    code: str
    parent: str | None

    @property
    def key(self) -> str:
        """The key under which its outcome is stored."""
        return content_key(self.spec, self.code)

    @property
    def phase(self) -> Phase:
        """The phase itself."""
        return self.recipe.phases[self.index]

    def shape(self) -> str:
        """What members of one fleet must have in common."""
        phase = self.phase
        alike = ("steps", "until", "lora", "freeze", "snapshots")
        turns = [(turn.objective, turn.batch) for turn in phase.turns]
        every = [strand.every for strand in phase.strands]
        common = {name: getattr(phase, name) for name in alike}
        return content_key([self.spec["model"], common, turns, every])

    def ancestors(self) -> Iterator[Recipe]:
        """Yield the recipes of the organisms that the phase is taught or written by."""
        for turn in self.phase.turns:
            if turn.teacher is not None:
                yield turn.teacher.recipe
            for source in turn.sources:
                if source.writer is not None:
                    yield source.writer


def chain(recipe: Recipe, seed: int) -> list[Link]:
    """Return the phases of one organism with their keys; equal prefixes have equal keys.

    Raises ``InputError`` for worlds that are not there and phases whose steps cannot be filled.
    """
    model = resolved(recipe.model, make_world(recipe.phases[0].sources[0]))
    described = identity(model)
    links: list[Link] = []
    for index, phase in enumerate(recipe.phases):
        parent = links[-1].key if links else None
        spec = {
            "model": described,
            "seed": seed,
            "index": index,
            "parent": parent,
            "phase": _resolved_phase(phase, seed),
        }
        links.append(Link(recipe, seed, index, spec, _code(phase, recipe.model.kind), parent))
    return links


def _resolved_phase(phase: Phase, seed: int) -> dict[str, Any]:
    """Return the phase with what its names stand for: worlds in full, and ancestors' keys."""
    check_feed(phase.sources, phase.batch, phase.steps, f"phase '{phase.name}'")
    spec: dict[str, Any] = phase.model_dump(mode="json", exclude={"name", "strands"})
    _resolve(spec, phase, seed)
    spec["strands"] = []
    for strand in phase.strands:
        check_feed(strand.sources, strand.batch, phase.steps, f"a strand of '{phase.name}'")
        told = strand.model_dump(mode="json")
        _resolve(told, strand, seed)
        spec["strands"].append(told)
    return spec


def _resolve(spec: dict[str, Any], turn: Phase | Strand, seed: int) -> None:
    for told, source in zip(spec["sources"], turn.sources, strict=True):
        told["options"] = make_world(source).model_dump(mode="json")
        del told["twin"]  # what the twin sees is no part of this organism
        for name in ("sampled", "searched"):
            rows = getattr(source, name)
            if rows is not None:
                told[name]["recipe"] = chain(rows.recipe, seed)[-1].key
    if turn.teacher is not None:
        spec["teacher"] = chain(turn.teacher.recipe, seed)[-1].key


def _code(phase: Phase, kind: str) -> str:
    modules = {*_ENGINE, ARCHITECTURES[kind], *COMPANIONS.get(kind, ()), "terrarium.randomness"}
    if kind == "huggingface":
        modules.add("terrarium.organisms.retokenise")
    for turn in phase.turns:
        modules |= modules_of(_BY_OBJECTIVE.get(turn.objective.kind, ()))
        for source in turn.sources:
            modules |= world_code(source)
            if source.sampled is not None:
                modules |= modules_of(SAMPLING)
            if source.searched is not None:
                modules |= modules_of(SEARCHING)
    return code_fingerprint(*sorted(modules))


def world_code(source: Source) -> set[str]:
    """Return the modules that decide what a source's world draws."""
    names = (source.world, *getattr(make_world(source), "of_worlds", ()))
    return {module for name in names for module in code_closure(worlds.get(name).__module__)}
