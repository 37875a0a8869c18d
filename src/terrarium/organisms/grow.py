"""From recipes to organisms: phases in order, shared prefixes grown once, everything stored."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from terrarium.errors import InputError
from terrarium.keys import content_key
from terrarium.organisms.build import build, load, resolved
from terrarium.organisms.compatibility import check_ranks, check_recipe
from terrarium.organisms.device import check_device
from terrarium.organisms.engine import Checkpoint, Runner, run_phase
from terrarium.organisms.feed import Turn
from terrarium.organisms.fleet import Key
from terrarium.organisms.lineage import Link, chain, make_world, phase_worlds
from terrarium.organisms.recipe import HuggingFaceModel, Phase, Recipe, Strand
from terrarium.organisms.sampled import grown_network, sampled_world
from terrarium.organisms.searched import searched_world
from terrarium.progress import Progress
from terrarium.store import Store, load_checkpoint, save_checkpoint

__all__ = ["KIND", "Organism", "find", "fleet_size", "grow", "make_world", "phase_worlds"]

KIND = "organism"
"""The kind under which a phase's outcome is stored."""

TOKENS_PER_STEP = 4096
"""On a CPU stacking stops paying once a step holds about this many tokens (benchmarks/growing)."""


@dataclass(frozen=True)
class Organism:
    """What has been grown: where it lies, how it came to be, whether it arose at all.

    ``status`` is ``"grown"`` or ``"diverged"`` (then ``reason`` says when); ``folder`` is in
    Hugging Face layout where the model is a language model.
    """

    recipe: Recipe
    seed: int
    key: str
    folder: Path
    status: str
    reason: str
    steps: tuple[int, ...]

    def __repr__(self) -> str:
        """Say what it is and whether it arose; the recipe itself is in ``recipe``."""
        told = self.status if self.status == "grown" else f"{self.status}, {self.reason}"
        phases = zip(self.recipe.phases, self.steps, strict=False)
        steps = ", ".join(f"{phase.name} {count} steps" for phase, count in phases)
        return f"Organism({self.recipe.name}, seed {self.seed}: {told}; {steps}; key {self.key})"

    @property
    def identity(self) -> tuple[str, int]:
        """What it is, whatever code has grown it: random numbers that follow it are keyed by this.

        ``key`` has the code in it, so that a changed comment would draw other answers.  Names of
        recipes and phases are no part of it.
        """
        return content_key(_nameless(self.recipe.model_dump(mode="json"))), self.seed

    def network(self) -> Any:
        """Load the weights as a fleet of one."""
        return load(self.model, [self.folder])

    @property
    def model(self) -> Any:
        """The model's spec with nothing left open."""
        return resolved(self.recipe.model, make_world(self.recipe.phases[0].sources[0]))

    @property
    def world(self) -> Any:
        """The world of the last phase, in the model's own tokens."""
        return phase_worlds(self.recipe.phases[-1], self.recipe.model)[0]

    def history(self) -> list[dict[str, float]]:
        """Return the last phase's losses and measurements by step."""
        told = json.loads((self.folder / "phase.json").read_text(encoding="utf-8"))
        rows: list[dict[str, float]] = told["history"]
        return rows

    def snapshots(self) -> dict[int, Path]:
        """Return the last phase's kept steps and their folders."""
        found = (self.folder / "snapshots").glob("*")
        return {int(path.name): path for path in sorted(found, key=lambda p: int(p.name))}


def _nameless(told: Any) -> Any:
    """Return a dumped recipe without its name and those of its phases, at any depth."""
    if isinstance(told, list):
        return [_nameless(part) for part in told]
    if not isinstance(told, dict):
        return told
    named = "phases" in told or "steps" in told
    return {k: _nameless(v) for k, v in told.items() if not (named and k == "name")}


def grow(
    recipes: Sequence[tuple[Recipe, int]],
    store: Store | None = None,
    progress: Progress | None = None,
    device: str = "cpu",
) -> list[Organism]:
    """Grow ``(recipe, seed)`` pairs, or find them in the store; returned in the order asked.

    ``store`` is ``Store()`` where none is given.
    Phases that several share are grown once; members of one shape grow as one fleet as long as
    stacking pays.  An interrupted call continues from its last checkpoint.  Raises
    ``InputError`` for recipes that cannot be grown, and for a ``device`` that is not here.
    """
    store = store or Store()
    check_device(device, "grow: device")
    for _, alike in itertools.groupby(recipe for recipe, _ in recipes):
        check_recipe(next(alike))
    chains = [chain(recipe, seed) for recipe, seed in recipes]
    for index in range(max((len(c) for c in chains), default=0)):
        links = {c[index].key: c[index] for c in chains if index < len(c)}
        missing = [link for link in links.values() if not _ready(store, link)]
        before = [(recipe, link.seed) for link in missing for recipe in link.ancestors()]
        if before:
            grow(before, store, progress, device)
        for fleet in _fleets(missing, device):
            _grow_fleet(fleet, store, progress, device)
    return [_organism(store, c) for c in chains]


def find(recipe: Recipe, seed: int, store: Store) -> Organism | None:
    """Return the organism if the store holds it, without growing anything."""
    links = chain(recipe, seed)
    return _organism(store, links) if store.get(KIND, links[-1].spec, links[-1].code) else None


def _ready(store: Store, link: Link) -> bool:
    return store.get(KIND, link.spec, link.code) is not None


def _fleets(links: Sequence[Link], device: str) -> Iterator[list[Link]]:
    """Group links into fleets of one shape, as large as stacking pays."""
    groups: dict[str, list[Link]] = {}
    for link in links:
        groups.setdefault(link.shape(), []).append(link)
    for group in groups.values():
        size = fleet_size(group[0].recipe, group[0].phase, device)
        for start in range(0, len(group), size):
            yield group[start : start + size]


def fleet_size(recipe: Recipe, phase: Phase, device: str = "cpu") -> int:
    """Return how many members to stack in one fleet."""
    if isinstance(recipe.model, HuggingFaceModel):
        return 1
    if device != "cpu":
        return 256
    world = make_world(phase.sources[0])
    example = world.sample(1, _example_rng(), phase.sources[0].split).inputs
    tokens = phase.batch * (example.shape[1] if example.dtype.kind == "i" else 1)
    return max(1, TOKENS_PER_STEP // max(1, tokens))


def _example_rng() -> Any:
    from terrarium.randomness import generator

    return generator("example")


def _grow_fleet(links: list[Link], store: Store, progress: Progress | None, device: str) -> None:
    links = sorted(links, key=lambda link: link.key)
    with contextlib.ExitStack() as held:
        for link in links:
            held.enter_context(store.lock(KIND, link.key))
        links = [link for link in links if not _ready(store, link)]
        if links:
            _run(links, store, progress, device)


def _run(links: list[Link], store: Store, progress: Progress | None, device: str) -> None:
    first = links[0]
    model = resolved(first.recipe.model, make_world(first.recipe.phases[0].sources[0]))
    network, carried, lost = _parents(links, model, store)
    for link, reason in lost:
        _write(store, link, None, Runner(link.phase, link.index, link.seed, (), "diverged", reason))
    links = [link for link in links if link not in [gone for gone, _ in lost]]
    if not links:
        return
    for link in links:
        check_ranks(network, link.recipe)
    if device != "cpu":
        network.to_device(device)
    members = [
        Runner(link.phase, link.index, link.seed, _turns(link, store, device)) for link in links
    ]
    scratch = store.scratch(KIND, content_key([link.key for link in links]))
    found = load_checkpoint(scratch, "phase")
    run_phase(
        network,
        members,
        carried=carried,
        resume=None if found is None else _read_checkpoint(found),
        save=lambda checkpoint: _save_checkpoint(scratch, checkpoint),
        progress=progress,
        task=f"{first.recipe.name}: {first.phase.name}",
    )
    for link, member in zip(links, members, strict=True):
        _write(store, link, network, member)
    store.discard_scratch(KIND, content_key([link.key for link in links]))


def _turns(link: Link, store: Store, device: str) -> list[Turn]:
    """Return what a link's phase and its strands train on, what others write included."""
    turns = []
    for turn in link.phase.turns:
        drawn = phase_worlds(turn, link.recipe.model)
        for place, source in enumerate(turn.sources):
            if source.writer is not None:
                (writer,) = grow([(source.writer, link.seed)], store, None, device)
                made = sampled_world if source.sampled is not None else searched_world
                drawn[place] = made(drawn[place], source, writer, store)
        teacher = None if turn.teacher is None else _teacher(turn, link, store, device)
        turns.append(Turn(turn.sources, drawn, turn.objective, turn.batch, teacher))
    return turns


def _teacher(turn: Phase | Strand, link: Link, store: Store, device: str) -> Any:
    assert turn.teacher is not None
    (organism,) = grow([(turn.teacher.recipe, link.seed)], store, None, device)
    network = grown_network(organism, "a teacher")
    if device != "cpu":
        network.to_device(device)
    return network.eval()


def _parents(
    links: Sequence[Link], model: Any, store: Store
) -> tuple[Any, list[dict[str, Tensor]], list[tuple[Link, str]]]:
    """Return the fleet as the phase before left it, its optimiser states, and who is lost."""
    if links[0].parent is None:
        keys: list[Key] = [("organism", link.seed) for link in links]
        return build(model, keys), [{} for _ in links], []
    folders, carried, lost = [], [], []
    for link in links:
        before = chain(link.recipe, link.seed)[link.index - 1]
        folder = store.get(KIND, before.spec, before.code)
        if folder is None:
            raise InputError(f"The phase before '{link.phase.name}' vanished from the store.")
        told = json.loads((folder / "phase.json").read_text(encoding="utf-8"))
        if told["status"] != "grown":
            lost.append((link, f"the phase before it {told['status']}: {told['reason']}"))
            continue
        folders.append(folder)
        moments = folder / "optimizer.safetensors"
        carried.append(dict(load_file(moments)) if moments.exists() else {})
    return (load(model, folders) if folders else None), carried, lost


def _write(store: Store, link: Link, network: Any, member: Runner) -> None:
    """Store what a phase has made of a member."""
    world = make_world(link.phase.sources[0])
    tokens = world.tokenizer_json() if hasattr(world, "tokenizer_json") else None
    if isinstance(link.recipe.model, HuggingFaceModel):
        tokens = None  # it keeps its own
    with store.write(KIND, link.spec, link.code) as folder:
        told = {
            "recipe": link.recipe.name,
            "phase": link.phase.name,
            "status": member.status,
            "reason": member.reason,
            "steps": member.stopped_at,
            "history": member.history,
        }
        (folder / "phase.json").write_text(json.dumps(told, indent=1), encoding="utf-8")
        if network is None:
            return
        lone = network.select([0])
        lone.merge_lora()  # states are whole already; this only drops the adapters
        for step, state in member.snapshots.items():
            lone.load_member_state(0, state)
            lone.save(0, folder / "snapshots" / str(step), tokens)
        if member.status == "grown":
            lone.load_member_state(0, member.final)
            lone.save(0, folder, tokens)
            if member.moments:
                save_file(member.moments, folder / "optimizer.safetensors")


def _organism(store: Store, links: Sequence[Link]) -> Organism:
    told = []
    folder: Path | None = None
    for link in links:
        folder = store.get(KIND, link.spec, link.code)
        if folder is None:
            raise InputError(f"'{link.recipe.name}' (seed {link.seed}) is not in the store.")
        told.append(json.loads((folder / "phase.json").read_text(encoding="utf-8")))
    assert folder is not None  # a recipe has at least one phase
    last = links[-1]
    return Organism(
        last.recipe,
        last.seed,
        last.key,
        folder,
        told[-1]["status"],
        told[-1]["reason"],
        tuple(int(t["steps"]) for t in told),
    )


def _save_checkpoint(scratch: Path, checkpoint: Checkpoint) -> None:
    def fill(folder: Path) -> None:
        tensors = {name: tensor.detach().cpu() for name, tensor in checkpoint.tensors.items()}
        save_file(tensors, folder / "tensors.safetensors")
        (folder / "data.json").write_text(json.dumps(checkpoint.data), encoding="utf-8")

    save_checkpoint(scratch, "phase", fill)


def _read_checkpoint(folder: Path) -> Checkpoint:
    data = json.loads((folder / "data.json").read_text(encoding="utf-8"))
    return Checkpoint(load_file(folder / "tensors.safetensors"), data)
