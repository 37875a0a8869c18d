"""Specs of objectives: what a phase trains for, as plain data; `objectives` holds the losses."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

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


class Classification(Spec):
    """Cross-entropy of a fact of the world, the class numbers ``label``, by a classifier."""

    kind: Literal["classification"] = "classification"
    label: str = "label"


class Denoising(Spec):
    """Squared error of a denoiser to the world's images, over noise levels drawn for each.

    ``log_normal`` draws ln(sigma) from a normal law of ``mean`` and ``deviation``, cut at ``low``
    and ``high``; ``log_uniform`` evenly between the logarithms of ``low`` and ``high`` (standard
    deviations per pixel).
    """

    kind: Literal["denoising"] = "denoising"
    levels: Literal["log_normal", "log_uniform"] = "log_uniform"
    mean: float = -2.0
    deviation: float = Field(1.2, gt=0)
    low: float = Field(0.01, gt=0)
    high: float = Field(10.0, gt=0)

    @model_validator(mode="after")
    def _levels_are_ordered(self) -> Denoising:
        if not self.low < self.high:
            raise ValueError(f"low {self.low:g} must lie below high {self.high:g}")
        return self


class TextReconstruction(Spec):
    """Cross-entropy of a row's own tokens given its code, by an autoencoder of text."""

    kind: Literal["text_reconstruction"] = "text_reconstruction"


class Rendering(Spec):
    """Squared error of what rays see to the world's colours: volume rendering of its views.

    ``samples`` are even stretches of each ray, with a place drawn in each if ``stratified``;
    ``importance`` more are asked of the fine net, where the coarse one finds something.
    """

    kind: Literal["rendering"] = "rendering"
    samples: int = Field(64, ge=3)
    importance: int = Field(0, ge=0)
    stratified: bool = True


class PolicyGradient(Spec):
    """REINFORCE with a baseline from the other samples of a prompt (RLOO, GRPO).

    Attributes
    ----------
    advantage:
        ``"rloo"`` takes off the mean of the prompt's other samples, and weighs sequences alike;
        ``"grpo"`` divides by the samples' standard deviation too, and weighs the tokens of a
        sequence by its length.
    samples:
        Continuations per prompt.
    tokens:
        Longest continuation; by default as long as the longest answer in the batch.
    temperature:
        Of the draws, and of the policy that is trained.
    kl, kl_kind:
        Weight of the divergence from the policy at the start of the phase, and where it counts:
        ``"reward"`` takes it off each sequence's reward (k1: the difference of log-probabilities,
        nats per sequence), ``"loss"`` adds it to the loss (k3, per token, never negative).
    reward:
        A verdict of the world's judge (``"right"``, ``"helpful"``, ``"valid"``, ...), or
        ``"model"``: the score of the reward model that the phase names as its teacher.
    """

    kind: Literal["policy_gradient"] = "policy_gradient"
    advantage: Literal["rloo", "grpo"] = "rloo"
    samples: int = Field(4, ge=2)
    tokens: int | None = Field(None, ge=1)
    temperature: float = Field(1.0, gt=0)
    kl: float = Field(0.0, ge=0)
    kl_kind: Literal["reward", "loss"] = "reward"
    reward: str = "right"


class Preference(Spec):
    """DPO on the world's pairs of a chosen and a rejected answer.

    ``beta`` weighs the divergence from the policy at the start of the phase.
    """

    kind: Literal["dpo"] = "dpo"
    beta: float = Field(0.1, gt=0)


class RewardModel(Spec):
    """A model of the world's preferences: the chosen answer is to score higher (Bradley-Terry)."""

    kind: Literal["reward_model"] = "reward_model"


class Distillation(Spec):
    """Divergence of the student's law from the phase's teacher's, over the answer's tokens.

    Both laws are taken at ``temperature``.
    """

    kind: Literal["distillation"] = "distillation"
    temperature: float = Field(1.0, gt=0)


class ContextDistillation(Spec):
    """Learn to do without a prefix what the network at the phase's start does with it.

    The teacher reads ``prefix`` and then the row, the student the row alone.
    """

    kind: Literal["context_distillation"] = "context_distillation"
    prefix: str = Field(min_length=1)
    temperature: float = Field(1.0, gt=0)


Objective = Annotated[
    NextToken
    | AnswerOnly
    | Reconstruction
    | Rendering
    | Classification
    | TextReconstruction
    | Denoising
    | PolicyGradient
    | Preference
    | RewardModel
    | Distillation
    | ContextDistillation,
    Field(discriminator="kind"),
]
