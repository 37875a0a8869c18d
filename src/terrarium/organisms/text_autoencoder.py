"""An autoencoder of token rows: a causal encoder, one vector, a decoder that sees it alone.

The decoder is given no token: it writes all positions at once from the code and their places, so
that its best output is its input and whatever is lost is lost in the code (unlike an
autoregressive decoder, which can leave the code unused: Bowman et al. 2016, section 3.1).  Blocks
are those of `terrarium.organisms.transformer`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from terrarium.organisms.fleet import Fleet, Key, multiply, normal, per_member
from terrarium.organisms.network import Site
from terrarium.organisms.plain import save_plain
from terrarium.organisms.recipe import TextAutoencoderModel
from terrarium.organisms.transformer import Block, Embedding, rms_norm, rotation

PAD = 0
"""The token that fills rows up on the right in every closed vocabulary; no row ends with it."""

ROPE_BASE = 10_000.0


class TextAutoencoder(Fleet):
    """A fleet of autoencoders of text: tokens ``(member, n, t)`` to logits of the same places.

    ``network(tokens)`` gives float32 ``(member, n, t, vocabulary)``, where ``[..., j, :]`` is the
    law of the token at place j given the code of the whole row.  Encoder and decoder are causal:
    padding (token `PAD`) on the right changes nothing, and the code of a row is read at its last
    token; before it stand the codes of the row's beginnings.

    Attributes
    ----------
    whole_rows:
        Tells `terrarium.readings.read.read` that rows must run to their end.
    """

    whole_rows = True

    def __init__(self, spec: TextAutoencoderModel, keys: Sequence[Key]) -> None:
        if spec.vocabulary is None:
            raise ValueError("the vocabulary must be set before an autoencoder of text is built")
        super().__init__(spec, _shapes(spec), lambda key: _initial(spec, key), keys)
        self.embedding = Embedding(self)
        blocks = [Block(self, i) for i in range(2 * spec.layers)]
        self.encoder = nn.ModuleList(blocks[: spec.layers])
        self.decoder = nn.ModuleList(blocks[spec.layers :])
        self.latent = Code(self)
        self.eval()

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits ``(member, n, t, vocabulary)``."""
        codes = self.encode(tokens)
        last = row_lengths(tokens).sub(1)[..., None, None]
        code = codes.gather(2, last.expand(-1, -1, 1, codes.shape[3])).squeeze(2)
        return self.decode(code, tokens.shape[2])

    def encode(self, tokens: Tensor) -> Tensor:
        """Return ``(member, n, t, latent)``: at each token the code of the row up to it."""
        x: Tensor = self.embedding(tokens)
        rotary = rotation(x.shape[2], self.spec.width // self.spec.heads, ROPE_BASE, x.device)
        for block in self.encoder:
            x = block(x, rotary)
        codes: Tensor = self.latent(rms_norm(x, self.weights["encoder.norm"]))
        return codes

    def decode(self, code: Tensor, length: int) -> Tensor:
        """Return logits ``(member, n, length, vocabulary)`` of codes ``(member, n, latent)``."""
        said = multiply(code, self.matrix("expand.weight"))
        said = said + per_member(self.weights["expand.bias"], said)
        x = said[:, :, None] + places(length, self.spec.width, code.device)
        rotary = rotation(length, self.spec.width // self.spec.heads, ROPE_BASE, code.device)
        for block in self.decoder:
            x = block(x, rotary)
        return multiply(rms_norm(x, self.weights["decoder.norm"]), self.weights["unembed"])

    def sites(self) -> Mapping[str, Site]:
        """Return ``embed``, ``encoder.*[i]``, ``latent`` and ``decoder.*[i]``.

        In each block ``mlp.act[i]`` and ``resid.post[i]`` as in a language model, with the part's
        name before them.  ``latent`` holds a code at each token; the decoder is given the last.
        """
        found = {"embed": Site(self.embedding)}
        for part, blocks in (("encoder", self.encoder), ("decoder", self.decoder)):
            for i, block in enumerate(blocks):
                assert isinstance(block, Block)
                found[f"{part}.mlp.act[{i}]"] = Site(block.mlp.hidden)
                found[f"{part}.resid.post[{i}]"] = Site(block)
            if part == "encoder":
                found["latent"] = Site(self.latent)
        return found

    def save(self, member: int, folder: Path, tokenizer_json: str | None = None) -> None:
        """Write ``config.json``, ``model.safetensors`` and, where given, ``tokenizer.json``."""
        save_plain(self.spec, self.member_state(member), folder)
        if tokenizer_json is not None:
            (folder / "tokenizer.json").write_text(tokenizer_json, encoding="utf-8")


class Code(nn.Module):
    """The bottleneck: a linear map of the residual stream to ``latent`` numbers."""

    def __init__(self, network: TextAutoencoder) -> None:
        super().__init__()
        self._network = (network,)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(member, n, t, latent)``."""
        network = self._network[0]
        out = multiply(x, network.matrix("latent.weight"))
        return out + per_member(network.weights["latent.bias"], out)


def row_lengths(tokens: Tensor) -> Tensor:
    """Return how many tokens each row has, ``(member, n)`` int64, at least 1; the rest is `PAD`."""
    place = torch.arange(1, tokens.shape[-1] + 1, device=tokens.device)
    return torch.where(tokens == PAD, 0, place).amax(dim=-1).clamp_min(1)


def places(length: int, width: int, device: torch.device) -> Tensor:
    """Return sines and cosines of the places, ``(length, width)`` (Vaswani et al. 2017, 3.5)."""
    rate = ROPE_BASE ** (-torch.arange(0, width, 2, device=device) / width)
    angle = torch.arange(length, device=device)[:, None] * rate
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


def _shapes(spec: TextAutoencoderModel) -> dict[str, tuple[int, ...]]:
    d, m, v = spec.width, spec.mlp, spec.vocabulary or 0
    shapes: dict[str, tuple[int, ...]] = {"embed": (v, d)}
    for layer in range(2 * spec.layers):
        at = f"blocks.{layer}"
        shapes |= {f"{at}.norm1": (d,), f"{at}.qkv": (d, 3 * d), f"{at}.out": (d, d)}
        shapes |= {f"{at}.norm2": (d,), f"{at}.gate_up": (d, 2 * m), f"{at}.down": (m, d)}
    shapes |= {"encoder.norm": (d,), "latent.weight": (d, spec.latent)}
    shapes |= {"latent.bias": (spec.latent,), "expand.weight": (spec.latent, d)}
    return shapes | {"expand.bias": (d,), "decoder.norm": (d,), "unembed": (d, v)}


def _initial(spec: TextAutoencoderModel, key: Key) -> dict[str, Tensor]:
    """Draw first weights as the transformer's: 1/sqrt(fan-in), residual branches by 1/sqrt(2L)."""
    state = {}
    for name, shape in _shapes(spec).items():
        if len(shape) == 1:
            state[name] = torch.zeros(shape) if name.endswith(".bias") else torch.ones(shape)
            continue
        scale = 0.3 if name == "embed" else 1 / math.sqrt(shape[0])
        if name.endswith((".out", ".down")):
            scale /= math.sqrt(2 * spec.layers)
        state[name] = normal(key, name, shape, scale)
    return state
