"""Specs of models: what architecture a recipe grows, as plain data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Spec(BaseModel):
    """Base of all specs: frozen, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class TransformerModel(Spec):
    """A compact decoder of the Llama shape (RMSNorm, rotary positions, SwiGLU, no biases).

    ``vocabulary`` and ``context`` (tokens) are filled in from the first phase's world where they
    are None.  Exported as ``LlamaForCausalLM``.
    """

    kind: Literal["transformer"] = "transformer"
    layers: int = Field(4, ge=1, le=64)
    width: int = Field(64, ge=8, multiple_of=2, description="channels of the residual stream")
    heads: int = Field(4, ge=1)
    mlp: int = Field(176, ge=8, description="hidden units of each SwiGLU block")
    vocabulary: int | None = Field(None, ge=2)
    context: int | None = Field(None, ge=2, description="longest sequence, tokens")
    rope_base: float = Field(10_000.0, gt=1)

    @model_validator(mode="after")
    def _heads_divide(self) -> TransformerModel:
        if self.width % self.heads or (self.width // self.heads) % 2:
            raise ValueError(
                f"width {self.width} must split into {self.heads} heads of an even size"
            )
        return self


class HuggingFaceModel(Spec):
    """Any causal language model in a folder of Hugging Face layout; grown as a fleet of one."""

    kind: Literal["huggingface"] = "huggingface"
    folder: str
    dtype: Literal["float32", "bfloat16", "float16", "auto"] = "float32"
    device_map: str | None = Field(None, description="passed to accelerate, e.g. 'auto'")

    @property
    def path(self) -> Path:
        """The folder; ``~`` is the home."""
        return Path(self.folder).expanduser()


class CoordinateModel(Spec):
    """A coordinate network: MLP on Fourier features of ``inputs`` coordinates."""

    kind: Literal["coordinate"] = "coordinate"
    inputs: int = Field(2, ge=1)
    outputs: int = Field(1, ge=1)
    layers: int = Field(2, ge=1)
    width: int = Field(32, ge=2)
    frequencies: int = Field(8, ge=0, description="random Fourier features; 0 for none")
    scale: float = Field(2.0, gt=0, description="standard deviation of the frequencies")


class AutoencoderModel(Spec):
    """A small convolutional autoencoder of square images."""

    kind: Literal["autoencoder"] = "autoencoder"
    channels: int = Field(1, ge=1)
    side: int = Field(8, ge=4, multiple_of=4, description="rows and columns, pixels")
    width: int = Field(8, ge=1)
    latent: int = Field(4, ge=1)


Model = Annotated[
    TransformerModel | HuggingFaceModel | CoordinateModel | AutoencoderModel,
    Field(discriminator="kind"),
]
