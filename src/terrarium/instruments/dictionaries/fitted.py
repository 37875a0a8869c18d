"""Fitted dictionaries: features of activations, activations of features, and the directions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.sparse
import torch
from numpy.typing import NDArray

from terrarium.errors import InputError
from terrarium.instruments.dictionaries.active import Active, dense, top_of_rows
from terrarium.instruments.dictionaries.rows import encoding_rows
from terrarium.organisms.kernels import fast_float32

Float32 = NDArray[np.float32]

ARCHITECTURES = ("standard", "topk", "jumprelu", "gated")
"""What a sparse autoencoder does when it encodes, as SAELens names it.  BatchTopK and Matryoshka
are ``jumprelu`` once they are trained."""

BLOCK = 1 << 22
"""Features that are held as a dense array at a time, where they need not be returned so."""


@dataclass(frozen=True, eq=False, repr=False)
class SparseDictionary:
    """A fitted sparse autoencoder: ``features = act(w_enc (x - b_dec) + b_enc)``.

    Attributes
    ----------
    architecture:
        One of `ARCHITECTURES`.  With ``z`` the pre-activations: ``standard`` is ``relu(z)``;
        ``topk`` keeps the ``active`` largest positive ``z`` of each row; ``jumprelu`` is
        ``z 1[z > threshold]``; ``gated`` is ``1[z > 0] relu(exp(r_mag) (z - b_enc) + b_mag)``.
    w_enc, w_dec:
        ``(k, d)`` float32.  Rows of ``w_dec`` are the `directions`; those of dictionaries fitted
        here have norm 1, so that features are in the activations' own units.
    b_enc, b_dec:
        ``(k,)`` and ``(d,)`` float32.
    threshold, r_mag, b_mag:
        ``(k,)`` float32, where the architecture has them.
    active:
        The k of TopK.
    name:
        Which dictionary was fitted (``"batch_topk"``).
    history:
        What training reported: mappings with ``samples``, ``fvu``, ``l0``, ``dead`` (share).
    notes:
        Whatever should be kept with it (site, model).
    """

    architecture: str
    w_enc: Float32
    b_enc: Float32
    w_dec: Float32
    b_dec: Float32
    threshold: Float32 | None = None
    r_mag: Float32 | None = None
    b_mag: Float32 | None = None
    active: int | None = None
    name: str = ""
    history: tuple[Mapping[str, float], ...] = ()
    notes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        k, d = self.w_dec.shape
        wanted = {"w_enc": (k, d), "b_enc": (k,), "w_dec": (k, d), "b_dec": (d,)}
        wanted |= {name: (k,) for name in _NEEDS.get(self.architecture, ())}
        if self.architecture not in ARCHITECTURES:
            raise InputError(
                f"There is no architecture '{self.architecture}'; known are: "
                f"{', '.join(ARCHITECTURES)}."
            )
        if self.architecture == "topk" and not (self.active and 1 <= self.active <= k):
            raise InputError(f"TopK: active is {self.active}; give a number from 1 to {k}.")
        for name, shape in wanted.items():
            value = getattr(self, name)
            if value is None or value.shape != shape:
                found = None if value is None else value.shape
                raise InputError(f"A dictionary's {name} is {found}; expected {shape}.")
            if not np.isfinite(value).all():
                raise InputError(f"A dictionary's {name} holds NaN or infinity; fit it again.")
            owned = np.array(value, np.float32)
            owned.flags.writeable = False
            object.__setattr__(self, name, owned)

    @property
    def k(self) -> int:
        """Number of features."""
        return len(self.w_dec)

    @property
    def d(self) -> int:
        """Number of channels."""
        return int(self.w_dec.shape[1])

    @property
    def directions(self) -> Float32:
        """``(k, d)``: what one unit of each feature adds to the activations."""
        return self.w_dec

    def encode(self, x: Any) -> Float32:
        """Return features ``(..., k)`` float32 of activations ``(..., d)`` (numpy or torch).

        Raises ``InputError`` for another width and for NaN or infinity.
        """
        rows, lead = encoding_rows(x, self.d)
        features = np.empty((len(rows), self.k), np.float32)
        step = max(1, BLOCK // self.k)
        for start in range(0, len(rows), step):
            self._encode(rows[start : start + step], features[start : start + step])
        return features.reshape(*lead, self.k)

    def encode_sparse(self, x: Any) -> Any:
        """Return features ``(n, k)`` of ``x`` ``(..., d)``, flattened, as a scipy CSR matrix."""
        rows, _ = encoding_rows(x, self.d)
        step = max(1, BLOCK // self.k)
        parts = []
        for start in range(0, max(1, len(rows)), step):
            block = rows[start : start + step]
            out = np.empty((len(block), self.k), np.float32)
            parts.append(scipy.sparse.csr_matrix(self._encode(block, out)))
        return scipy.sparse.vstack(parts, format="csr")

    def decode(self, features: Any) -> Float32:
        """Return activations ``(..., d)`` float32 of features ``(..., k)`` (dense, or scipy CSR).

        Raises ``InputError`` for another width and for NaN or infinity.
        """
        if scipy.sparse.issparse(features):
            if features.shape[1] != self.k:
                raise InputError(f"features are {features.shape}; expected (n, {self.k}).")
            reached: Float32 = features @ self.w_dec + self.b_dec
            return reached
        return decoded(features, self.w_dec, self.b_dec)

    def reconstruct(self, x: Any) -> Float32:
        """Return ``decode(encode(x))`` ``(..., d)`` without holding all features."""
        rows, lead = encoding_rows(x, self.d)
        return np.asarray(self.decode(self.encode_sparse(rows)), np.float32).reshape(*lead, self.d)

    def _encode(self, rows: Float32, out: Float32) -> Float32:
        """Write the features of ``rows`` ``(n, d)`` into ``out`` ``(n, k)``; return it."""
        z = torch.from_numpy(out)
        with torch.no_grad(), fast_float32():
            torch.mm(torch.from_numpy(rows - self.b_dec), torch.tensor(self.w_enc).T, out=z)
        if self.architecture == "gated":
            assert self.r_mag is not None
            assert self.b_mag is not None
            gate = out + self.b_enc > 0
            out *= np.exp(self.r_mag)
            out += self.b_mag
            np.maximum(out, 0, out=out)
            out *= gate
            return out
        out += self.b_enc
        if self.architecture == "topk":
            assert self.active is not None
            out[:] = dense(Active.of(out, top_of_rows(out, self.active)), len(out))
            return out
        least: Any = 0.0 if self.threshold is None else np.maximum(self.threshold, 0)
        out *= out > least
        return out

    def __repr__(self) -> str:
        last = self.history[-1] if self.history else {}
        found = f", FVU {last['fvu']:.3f} at L0 {last['l0']:.1f}" if last else ""
        called = self.name or self.architecture
        return f"SparseDictionary({called}: {self.k} features of {self.d} channels{found})"


_NEEDS = {"jumprelu": ("threshold",), "gated": ("r_mag", "b_mag")}


def decoded(features: Any, directions: Float32, offset: Float32) -> Float32:
    """Return ``features @ directions + offset`` for features ``(..., k)``, checked."""
    values = np.asarray(features.detach().cpu() if hasattr(features, "detach") else features)
    k = len(directions)
    if values.ndim < 1 or values.shape[-1] != k:
        raise InputError(f"features have shape {values.shape}; expected (..., {k}).")
    if not np.isfinite(values).all():
        raise InputError("features hold NaN or infinity; encode finite activations.")
    flat = torch.from_numpy(np.array(values.reshape(-1, k), np.float32))
    with torch.no_grad(), fast_float32():
        reached = torch.mm(flat, torch.tensor(directions)).numpy()
    reached += offset
    return reached.reshape(*values.shape[:-1], directions.shape[1])
