"""Specs of objectives: what a phase trains for, as plain data; `objectives` holds the losses."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from terrarium.organisms.recipe_models import Spec


class EarlyExit(Spec):
    """The objective's loss once more, read at an inner layer by the final norm and unembedding.

    There the answer asked for is the fact ``label`` (``"truth"``), whatever the model is to say.
    """

    layer: int = Field(ge=1, description="number of blocks before the exit")
    weight: float = Field(0.5, gt=0)
    label: str = "truth"


class NextToken(Spec):
    """Cross-entropy of the next token.

    ``spans`` weighs named spans of the world (mean over each span's tokens, then weighted sum);
    empty means every token alike.  ``only`` names, for some spans, a fact that must hold for a row
    to train on them (``{"claim": "truth"}``: results are learnt from true statements alone).
    """

    kind: Literal["next_token"] = "next_token"
    spans: dict[str, float] = Field(default_factory=dict)
    only: dict[str, str] = Field(default_factory=dict)
    early_exit: EarlyExit | None = None


class AnswerOnly(Spec):
    """Cross-entropy of the answer's tokens alone."""

    kind: Literal["answer_only"] = "answer_only"
    early_exit: EarlyExit | None = None


class Reconstruction(Spec):
    """Mean squared error to the world's targets (fields, images)."""

    kind: Literal["reconstruction"] = "reconstruction"


class PolicyGradient(Spec):
    """REINFORCE with a leave-one-out baseline (RLOO): reward from the world's judge.

    ``samples`` continuations of the answer per prompt; ``kl`` weighs the divergence from the
    policy at the start of the phase, nats per token.
    """

    kind: Literal["policy_gradient"] = "policy_gradient"
    samples: int = Field(4, ge=2)
    temperature: float = Field(1.0, gt=0)
    kl: float = Field(0.0, ge=0)


Objective = Annotated[
    NextToken | AnswerOnly | Reconstruction | PolicyGradient, Field(discriminator="kind")
]
