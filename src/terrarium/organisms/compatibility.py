"""Whether a recipe's worlds, model and objectives fit together; asked before anything is grown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from terrarium.errors import InputError
from terrarium.organisms.lineage import make_world
from terrarium.organisms.recipe import LoRA, Phase, Recipe, Source, Strand
from terrarium.randomness import generator
from terrarium.worlds.base import Batch

_TEXT = ("transformer", "huggingface")
_IMAGES = ("autoencoder", "classifier", "denoiser")

_TRAINED_BY: Mapping[str, tuple[str, ...]] = {
    "next_token": _TEXT,
    "answer_only": _TEXT,
    "policy_gradient": _TEXT,
    "dpo": _TEXT,
    "reward_model": _TEXT,
    "distillation": _TEXT,
    "context_distillation": _TEXT,
    "text_reconstruction": ("text_autoencoder",),
    "classification": ("classifier",),
    "denoising": ("denoiser",),
    "rendering": ("radiance",),
    "reconstruction": ("coordinate", "autoencoder", "denoiser"),
}
"""Which kinds of model each objective has a loss for."""

_NUMBERS = {"radiance": 6}
"""Numbers of an example that a kind of model takes, whatever its spec."""


def check_recipe(recipe: Recipe) -> None:
    """Raise ``InputError`` where a phase's worlds, its objective and the model do not fit.

    One example of each world that holds no text is drawn to see its shape; recipes of teachers and
    writers are looked at, too.
    """
    seen: list[Source] = []
    for phase in recipe.phases:
        for turn in phase.turns:
            where = f"Recipe '{recipe.name}', phase '{phase.name}'"
            _check_objective(where, recipe.model.kind, turn)
            for source in turn.sources:
                if source.writer is not None:
                    check_recipe(source.writer)
                if source not in seen:
                    seen.append(source)
                    _check_world(where, recipe.model, source)
            if turn.teacher is not None:
                check_recipe(turn.teacher.recipe)


def _check_objective(where: str, kind: str, turn: Phase | Strand) -> None:
    able = _TRAINED_BY.get(turn.objective.kind, (kind,))
    if kind not in able:
        raise InputError(
            f"{where}: the objective '{turn.objective.kind}' trains {_joined(able)}, and the model "
            f"is '{kind}'; change one of them."
        )


def _check_world(where: str, model: Any, source: Source) -> None:
    world = make_world(source)
    reads = model.kind in (*_TEXT, "text_autoencoder")
    written = hasattr(world, "tokenizer_json")
    if not written:
        example = _example(world, source.split)
        written = example.inputs.dtype.kind == "i"
    if written or reads:
        if written != reads:
            wants = "rows of tokens" if reads else "no text"
            gives = "text" if written else "no text"
            raise InputError(
                f"{where}: the world '{source.world}' gives {gives}, and the model "
                f"'{model.kind}' takes {wants}; choose another world or model."
            )
        return
    given = example.inputs.shape[1:]
    taken = _shape_of(model)
    if tuple(given) != taken:
        raise InputError(
            f"{where}: the world '{source.world}' gives {_words(given)}, and the model "
            f"'{model.kind}' takes {_words(taken)}; {_mend(model.kind, given, taken)}."
        )


def _example(world: Any, split: str) -> Batch:
    # one example needs no finite set of them, whose answers take time to work out
    world = getattr(world, "inner", world)
    drawn: Batch = world.sample(1, generator("example"), split)
    return drawn


def _shape_of(model: Any) -> tuple[int, ...]:
    """Return the shape of an example that the model takes."""
    if model.kind in _IMAGES:
        return (model.channels, model.side, model.side)
    return (_NUMBERS.get(model.kind) or model.inputs,)


def _words(shape: Sequence[int]) -> str:
    sides = " x ".join(map(str, shape))
    if len(shape) == 1:
        return f"{sides} numbers"
    return f"images of {sides} (channels, rows, columns)"


def _mend(kind: str, given: Sequence[int], taken: Sequence[int]) -> str:
    if len(given) == len(taken) and kind in _IMAGES:
        return "set the channels and side of one of them"
    if len(given) == len(taken) and kind == "coordinate":
        return f"set inputs to {given[0]}"
    return "choose another world or model"


def _joined(kinds: Sequence[str]) -> str:
    quoted = [f"'{kind}'" for kind in kinds]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} or {quoted[-1]}"


def check_ranks(network: Any, recipe: Recipe) -> None:
    """Raise ``InputError`` where an adapter's rank exceeds the smaller side of its matrix.

    No change of a matrix has a higher rank, so that the rest would only cost time and memory.
    """
    for phase in recipe.phases:
        if phase.lora is None:
            continue
        sides = {name: min(shape) for name, shape in _adapted(network, phase.lora).items()}
        name = min(sides, key=lambda one: sides[one], default="")
        if name and phase.lora.rank > sides[name]:
            raise InputError(
                f"Recipe '{recipe.name}', phase '{phase.name}': LoRA's rank {phase.lora.rank} "
                f"exceeds the smaller side of '{name}', {sides[name]}; lower rank to at most that, "
                "or name larger matrices in targets."
            )


def _adapted(network: Any, lora: LoRA) -> dict[str, tuple[int, ...]]:
    """Return names and shapes of the matrices that get adapters."""
    if hasattr(network, "weights"):
        shapes = {n: tuple(s.shape) for n, s in network.weights.slots.items()}
        matrices = {n: shape for n, shape in shapes.items() if len(shape) == 2}
        blocks = {n: shape for n, shape in matrices.items() if n.startswith("blocks.")}
        found = matrices if lora.targets else blocks or matrices
    else:
        linear = {
            name: module.weight.shape
            for name, module in network.model.named_modules()
            if type(module).__name__ in ("Linear", "Conv1D")
            and module is not network.model.get_output_embeddings()
        }
        found = {name: tuple(shape) for name, shape in linear.items()}
    return {
        name: shape
        for name, shape in found.items()
        if not lora.targets or name.rsplit(".", 1)[-1] in lora.targets
    }
