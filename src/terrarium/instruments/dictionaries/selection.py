"""What objectives that keep the largest pre-activations share: parameters and learning rates."""

from __future__ import annotations

from dataclasses import dataclass

from terrarium.instruments.dictionaries.weights import Usual, Weights


@dataclass
class Selection:
    """What dictionaries that keep the largest pre-activations are trained for.

    Parameters
    ----------
    active:
        Latents kept per row (TopK), or on average over a batch (BatchTopK).
    by_batch:
        Whether the largest are taken over the whole batch.
    prefixes:
        Sizes of the nested dictionaries, ascending, the last the whole one; one size is the plain
        loss.  The loss is the mean over prefixes of the squared error of the reconstruction by
        the latents before each (Bussmann et al. 2025, arXiv 2503.17547, eq. 4).
    auxiliary:
        Weight of the loss that lets dead latents reconstruct the residual (Gao et al. 2024,
        arXiv 2406.04093, sec. A.2): ``|e - e_hat|^2 / |e|^2`` over the batch, in units of the
        rows' mean square; ``e`` has no gradient.  0 for none.
    auxiliary_latents:
        Dead latents that take part in it for each row, at most.
    """

    weights: Weights
    active: int
    by_batch: bool
    prefixes: tuple[int, ...]
    auxiliary: float
    auxiliary_latents: int

    @property
    def usual(self) -> Usual:
        """The rates where none is given; biases are slower by ``sqrt(d)``.

        Rows of mean norm 1 make pre-activations smaller by as much than coordinates of variance 1
        would, and Adam's steps do not follow: at the full rate biases outrun them, and latents
        die (decision 018).
        """
        return Usual(3.5e-3, hurry=3.0, most=1e-2, biases=self.weights.b_dec.numel() ** -0.5)
