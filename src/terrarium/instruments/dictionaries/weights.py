"""The weights of a sparse autoencoder while it is trained, and what one step reports."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class Usual:
    """The learning rates at which a kind of dictionary trains where none is given.

    Attributes
    ----------
    rate:
        Peak of a training of 800 steps or more, at 1,024 latents.
    hurry, most:
        It rises with the inverse root of fewer steps up to ``hurry`` times, and to ``most``.
    biases:
        Rate of the biases as a multiple of the others'.
    """

    rate: float
    hurry: float
    most: float
    biases: float = 1.0


@dataclass(frozen=True)
class Step:
    """What one step found: loss, squared error and active latents per row, and who fired.

    ``squared_error`` is ``mean |x - x_hat|^2``, ``l0`` the mean number of active latents,
    ``fired`` ``(m,)`` how often each latent was active.
    """

    loss: float
    squared_error: float
    l0: float
    fired: NDArray[np.int64]


@dataclass(frozen=True)
class Weights:
    """Encoder ``w_enc`` ``(m, d)``, ``b_enc`` ``(m,)``; decoder ``w_dec`` ``(m, d)``, ``b_dec``.

    All float32, in units in which the centred rows have mean norm 1.  ``extra`` holds what an
    architecture adds (thresholds, rescalings), ``(m,)`` each.  ``mean_square`` is the rows' mean
    squared norm.
    """

    w_enc: Tensor
    b_enc: Tensor
    w_dec: Tensor
    b_dec: Tensor
    mean_square: float
    extra: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def drawn(
        cls, latents: int, d: int, rng: np.random.Generator, mean_square: float, **extra: Any
    ) -> Weights:
        """Return random unit directions, the encoder their transpose, and no biases.

        Source: Gao et al. 2024, arXiv 2406.04093, sec. A.1.
        """
        directions = rng.standard_normal((latents, d), np.float32)
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        w_dec = torch.from_numpy(directions)
        return cls(
            w_dec.clone(), torch.zeros(latents), w_dec, torch.zeros(d), mean_square, dict(extra)
        ).watched()

    def watched(self) -> Weights:
        """Give every tensor a gradient of zeros."""
        for tensor in self.all().values():
            tensor.grad = torch.zeros_like(tensor)
        return self

    def on(self, device: str) -> Weights:
        """Return the same weights on a device, with gradients of zeros."""
        moved = {name: tensor.detach().to(device) for name, tensor in self.all().items()}
        four = {name: moved.pop(name) for name in ("w_enc", "b_enc", "w_dec", "b_dec")}
        return Weights(mean_square=self.mean_square, extra=moved, **four).watched()

    @property
    def latents(self) -> int:
        """Number of latents."""
        return len(self.b_enc)

    def all(self) -> dict[str, Tensor]:
        """All tensors by name."""
        own = {"w_enc": self.w_enc, "b_enc": self.b_enc, "w_dec": self.w_dec, "b_dec": self.b_dec}
        return own | self.extra

    def grad(self, name: str) -> Tensor:
        """Return the gradient of the tensor called ``name``."""
        found = self.all()[name].grad
        assert found is not None
        return found

    def zero_gradients(self) -> None:
        """Set all gradients to zero."""
        for tensor in self.all().values():
            if tensor.grad is not None:
                tensor.grad.zero_()

    def pre(self, centred: Tensor, out: Tensor) -> Tensor:
        """Return pre-activations ``(n, m)`` of rows less ``b_dec``, written into ``out``."""
        into = out[: len(centred)]
        torch.mm(centred, self.w_enc.T, out=into)
        return into.add_(self.b_enc)

    def keep_unit(self) -> None:
        """Take from the decoder's gradient what would change the directions' norms.

        Source: Bricken et al. 2023, *Towards Monosemanticity*, appendix on training.
        """
        slope = self.grad("w_dec")
        slope.addcmul_(self.w_dec, (slope * self.w_dec).sum(1, keepdim=True), value=-1)

    def make_unit(self) -> None:
        """Give every direction norm 1."""
        self.w_dec.div_(self.w_dec.norm(dim=1, keepdim=True).clamp_min(1e-12))
