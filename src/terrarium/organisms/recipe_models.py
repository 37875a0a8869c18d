"""Specs of models: what architecture a recipe grows, as plain data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Spec(BaseModel):
    """Base of all specs: frozen; unknown keys, NaN and infinity are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


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


class HashGrid(Spec):
    """A multiresolution hash grid: how many levels, and how fine (Müller et al. 2022, section 3).

    Sides grow geometrically from ``coarsest`` to ``finest``.  All entries are parameters.
    """

    levels: int = Field(8, ge=1, le=32)
    features: Literal[1, 2, 4, 8] = Field(2, description="channels of each level")
    table: int = Field(2**14, ge=2, description="most entries of a level, a power of two")
    coarsest: int = Field(16, ge=1, description="cells a side of the first level")
    finest: int = Field(256, ge=1, description="cells a side of the last level")

    @model_validator(mode="after")
    def _makes_sense(self) -> HashGrid:
        if self.table & (self.table - 1):
            raise ValueError(f"table {self.table} must be a power of two")
        if self.finest < self.coarsest:
            raise ValueError(f"finest {self.finest} must not be below coarsest {self.coarsest}")
        if self.levels == 1 and self.finest != self.coarsest:
            raise ValueError("a single level has one side; make finest equal to coarsest")
        return self


class CoordinateModel(Spec):
    """A coordinate network: an MLP on encoded ``inputs`` coordinates.

    Attributes
    ----------
    encoding, frequencies, scale, grid:
        ``"fourier"``: sines and cosines of ``frequencies`` random projections (0 of them is none),
        drawn with standard deviation ``scale``, in periods per unit.  ``"hash"``: the hash grid
        ``grid``.  ``"none"``: the coordinates themselves.
    activation, omega_first, omega_hidden:
        ``"sine"`` is a SIREN: each layer computes the sine of omega times its linear map.
    skips:
        Hidden layers (from 1) that are given the encoding once more.
    box:
        Lower and upper corner, in the world's units, of where the inputs lie; they are mapped to
        [-1, 1] before the encoding.  None takes the world's own ``box`` where it states one, and
        else leaves inputs as they are.
    output_offset, output_scale:
        What the last layer gives is multiplied by the scale, and the offset added: the world's
        units again.
    """

    kind: Literal["coordinate"] = "coordinate"
    inputs: int = Field(2, ge=1)
    outputs: int = Field(1, ge=1)
    layers: int = Field(2, ge=1)
    width: int = Field(32, ge=2)
    frequencies: int = Field(8, ge=0, description="random Fourier features; 0 for none")
    scale: float = Field(2.0, gt=0, description="standard deviation of the frequencies")
    encoding: Literal["none", "fourier", "hash"] = "fourier"
    activation: Literal["relu", "sine"] = "relu"
    omega_first: float = Field(30.0, gt=0)
    omega_hidden: float = Field(30.0, gt=0)
    grid: HashGrid = HashGrid()
    skips: tuple[Annotated[int, Field(ge=1)], ...] = ()
    box: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    output_offset: float = 0.0
    output_scale: float = Field(1.0, gt=0)

    @model_validator(mode="after")
    def _fits_together(self) -> CoordinateModel:
        if self.encoding == "hash" and self.inputs > 7:
            raise ValueError(f"a hash grid takes at most 7 inputs, and there are {self.inputs}")
        if any(layer >= self.layers for layer in self.skips):
            raise ValueError(f"skips {self.skips} must name hidden layers below {self.layers}")
        if self.box is not None:
            low, high = self.box
            if not len(low) == len(high) == self.inputs:
                raise ValueError(f"box must have two corners of {self.inputs} numbers each")
            if not all(a < b for a, b in zip(low, high, strict=True)):
                raise ValueError("box must have its lower corner below its upper one")
        return self


class AutoencoderModel(Spec):
    """A convolutional autoencoder of square images.

    Attributes
    ----------
    width, stages, blocks:
        Each of ``stages`` strided convolutions halves the sides; ``width`` channels leave the
        first, twice as many each next; ``blocks`` residual blocks follow each.
    latent, code:
        The code is a ``"vector"`` of ``latent`` numbers, or a ``"map"`` of ``latent`` channels
        with sides ``side / 2**stages``.
    """

    kind: Literal["autoencoder"] = "autoencoder"
    channels: int = Field(1, ge=1)
    side: int = Field(8, ge=4, le=64, multiple_of=4, description="rows and columns, pixels")
    width: int = Field(8, ge=1)
    stages: int = Field(1, ge=1, le=5)
    blocks: int = Field(0, ge=0, le=8)
    latent: int = Field(4, ge=1)
    code: Literal["vector", "map"] = "vector"

    @model_validator(mode="after")
    def _sides_halve(self) -> AutoencoderModel:
        _check_halving(self.side, self.stages)
        return self


class ClassifierModel(Spec):
    """A convolutional classifier of square images; its trunk is that of `AutoencoderModel`.

    ``latent`` units lie between the trunk and the logits of ``classes``.
    """

    kind: Literal["classifier"] = "classifier"
    channels: int = Field(1, ge=1)
    side: int = Field(8, ge=4, le=64, multiple_of=4, description="rows and columns, pixels")
    width: int = Field(8, ge=1)
    stages: int = Field(1, ge=1, le=5)
    blocks: int = Field(0, ge=0, le=8)
    latent: int = Field(4, ge=1)
    classes: int = Field(2, ge=2)

    @model_validator(mode="after")
    def _sides_halve(self) -> ClassifierModel:
        _check_halving(self.side, self.stages)
        return self


def _check_halving(side: int, stages: int) -> None:
    if side % 2**stages:
        raise ValueError(f"side {side} cannot be halved {stages} times")


class TextAutoencoderModel(Spec):
    """An autoencoder of token rows: a row to ``latent`` numbers, and back to all of its tokens.

    ``vocabulary`` is filled in from the first phase's world where it is None; see
    `terrarium.organisms.text_autoencoder`.
    """

    kind: Literal["text_autoencoder"] = "text_autoencoder"
    layers: int = Field(2, ge=1, le=16, description="blocks of the encoder, and of the decoder")
    width: int = Field(64, ge=8, multiple_of=2)
    heads: int = Field(4, ge=1)
    mlp: int = Field(128, ge=8)
    latent: int = Field(16, ge=1)
    vocabulary: int | None = Field(None, ge=2)

    @model_validator(mode="after")
    def _heads_divide(self) -> TextAutoencoderModel:
        if self.width % self.heads or (self.width // self.heads) % 2:
            raise ValueError(
                f"width {self.width} must split into {self.heads} heads of an even size"
            )
        return self


class DenoiserModel(Spec):
    """A small U-Net that takes noise off square images, at any noise level.

    Attributes
    ----------
    width, hidden:
        Channels of the first maps (the inner ones have twice as many), and hidden units of the
        dense block.
    code:
        Numbers by which the blocks are told the noise level.
    centre, sigma_data:
        Mean of the world's pixels and their standard deviation about it, roughly: they set the
        scaling and the weights.
    level:
        Noise level (standard deviation per pixel) that counts where none is told, as in readings.
    """

    kind: Literal["denoiser"] = "denoiser"
    channels: int = Field(1, ge=1)
    side: int = Field(16, ge=8, le=64, multiple_of=4, description="rows and columns, pixels")
    width: int = Field(16, ge=2)
    hidden: int = Field(128, ge=2)
    code: int = Field(32, ge=2)
    centre: float = 0.5
    sigma_data: float = Field(0.2, gt=0)
    level: float = Field(0.2, gt=0)


class Encoding(Spec):
    """Sines and cosines of each coordinate times 2^i, i below ``frequencies``."""

    frequencies: int = Field(10, ge=0, le=24)
    identity: bool = Field(True, description="the coordinates themselves come first")
    pi: bool = Field(False, description="angles are multiplied by pi")

    @model_validator(mode="after")
    def _holds_something(self) -> Encoding:
        if not self.frequencies and not self.identity:
            raise ValueError("no frequencies and no identity leave nothing; keep one of them")
        return self

    @property
    def width(self) -> int:
        """Channels that three coordinates become."""
        return 3 * (self.identity + 2 * self.frequencies)


class RadianceModel(Spec):
    """A radiance field (NeRF): points and directions to density and colour.

    Points pass the trunk, then the feature layer; then the encoded direction is appended for the
    layers of ``direction_widths``, and last comes the colour.
    """

    kind: Literal["radiance"] = "radiance"
    position: Encoding = Encoding(frequencies=6)
    direction: Encoding | None = Encoding(frequencies=2)
    widths: tuple[Annotated[int, Field(ge=1)], ...] = Field((64, 64), min_length=1)
    activations: tuple[Literal["relu", "softplus", "none"], ...] = Field(
        (), description="of each layer of the trunk; empty for ReLU after all"
    )
    skips: tuple[int, ...] = Field((), description="layers that are given the encoded point again")
    skip_last: bool = Field(True, description="there it comes after the hidden units, not before")
    feature: int | None = Field(64, ge=1, description="width of the layer before the direction")
    feature_activation: Literal["relu", "none"] = "relu"
    density_after_feature: bool = Field(False, description="read after the feature layer")
    density_activation: Literal["relu", "softplus", "exponential"] = "softplus"
    direction_widths: tuple[Annotated[int, Field(ge=1)], ...] = (32,)
    coarse: bool = Field(False, description="a net of its own decides where the fine one looks")
    near: float = Field(2.0, ge=0, description="where rays begin, in lengths of their direction")
    far: float = Field(6.0, gt=0, description="where rays end")
    background: tuple[
        Annotated[float, Field(ge=0, le=1)],
        Annotated[float, Field(ge=0, le=1)],
        Annotated[float, Field(ge=0, le=1)],
    ] = (1.0, 1.0, 1.0)
    fov_rad: float = Field(0.6911, gt=0, lt=3.14, description="horizontal, of its own cameras")

    @model_validator(mode="after")
    def _fits(self) -> RadianceModel:
        if self.far <= self.near:
            raise ValueError(f"far {self.far} must lie beyond near {self.near}")
        if self.activations and len(self.activations) != len(self.widths):
            raise ValueError(
                f"{len(self.widths)} layers need as many activations, got {len(self.activations)}"
            )
        if any(not 0 < i < len(self.widths) for i in self.skips):
            raise ValueError(f"skips {self.skips} must be layers from 1 to {len(self.widths) - 1}")
        if self.density_after_feature and self.feature is None:
            raise ValueError("without a feature layer the density is read from the trunk")
        return self


Model = Annotated[
    TransformerModel
    | HuggingFaceModel
    | CoordinateModel
    | AutoencoderModel
    | RadianceModel
    | ClassifierModel
    | TextAutoencoderModel
    | DenoiserModel,
    Field(discriminator="kind"),
]
