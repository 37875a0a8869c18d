"""Laws of operands: how large the numbers are, exactly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]
OperandLaw = Literal["log_uniform", "uniform"]


class Operands(Protocol):
    """A law of one operand, an integer in ``[lowest, highest]``."""

    @property
    def lowest(self) -> int:
        """The smallest operand."""

    @property
    def highest(self) -> int:
        """The largest operand."""

    def draw(self, uniforms: NDArray[np.float64]) -> Integers:
        """Return operands for numbers uniform in [0, 1), of the same shape."""

    def cdf(self, x: Integers) -> NDArray[np.float64]:
        """Return P(operand <= x)."""


@dataclass(frozen=True)
class LogUniform:
    """``floor(10 ** (digits * u))``: P(x) = log10(1 + 1/x) / digits for 1 <= x < 10 ** digits.

    The published law (Mallen et al. 2023, arXiv 2312.01037).
    """

    digits: int

    @property
    def lowest(self) -> int:
        """1."""
        return 1

    @property
    def highest(self) -> int:
        """The largest number of ``digits`` digits."""
        return int(10**self.digits) - 1

    def draw(self, uniforms: NDArray[np.float64]) -> Integers:
        """Return operands for numbers uniform in [0, 1), of the same shape."""
        power = np.exp(uniforms * (self.digits * np.log(10.0)))
        # rounding could reach 10 ** digits where u is the last float below 1
        return np.asarray(np.minimum(power.astype(np.int64), self.highest))

    def cdf(self, x: Integers) -> NDArray[np.float64]:
        """Return P(operand <= x)."""
        return np.asarray(np.log10(np.clip(x, 0, self.highest) + 1.0) / self.digits)


@dataclass(frozen=True)
class Uniform:
    """Every integer in ``[0, count)`` alike."""

    count: int

    @property
    def lowest(self) -> int:
        """0."""
        return 0

    @property
    def highest(self) -> int:
        """``count - 1``."""
        return self.count - 1

    def draw(self, uniforms: NDArray[np.float64]) -> Integers:
        """Return operands for numbers uniform in [0, 1), of the same shape."""
        return (uniforms * self.count).astype(np.int64)

    def cdf(self, x: Integers) -> NDArray[np.float64]:
        """Return P(operand <= x)."""
        return (np.clip(x, -1, self.highest) + 1.0) / self.count


def operand_law(law: OperandLaw, digits: int | None, modulus: int | None) -> Operands:
    """Return the law of operands of at most ``digits`` digits, or below ``modulus`` without them.

    Raises ``ValueError`` if both are None.
    """
    if digits is not None:
        return LogUniform(digits) if law == "log_uniform" else Uniform(10**digits)
    if modulus is None:
        raise ValueError("operands need digits or a modulus")
    return Uniform(modulus)


def smallest(law: Operands, holds: float, of: int) -> int:
    """Return the smallest x with P(the least of ``of`` independent operands <= x) >= ``holds``."""
    x = np.arange(law.lowest, law.highest + 1)
    return int(x[np.searchsorted(1 - (1 - law.cdf(x)) ** of, holds - 1e-12)])


def largest(law: Operands, holds: float, of: int) -> int:
    """Return the largest x with P(the least of ``of`` independent operands >= x) >= ``holds``."""
    x = np.arange(law.lowest, law.highest + 1)
    return int(x[np.flatnonzero((1 - law.cdf(x - 1)) ** of >= holds - 1e-12)[-1]])
