"""The scale of initialisation, also far below the range of floats."""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Context, Decimal, InvalidOperation
from fractions import Fraction
from functools import lru_cache

Alpha = float | str | Decimal | Fraction

#: Decimal digits used in computing the logarithm: exponents to 10^6 use 7 of them before the point.
_CONTEXT = Context(prec=50, Emax=10**9, Emin=-(10**9))
_LARGEST_EXPONENT = 10**7


@dataclass(frozen=True)
class InitialScale:
    """alpha > 0, kept as its natural logarithm: ``gamma = ln(1/alpha)``.

    Attributes
    ----------
    text : str
        The text as given.
    log : float
        ``ln(alpha)``, correct to rounding whatever the exponent.
    """

    text: str
    log: float

    @classmethod
    def parse(cls, alpha: InitialScale | Alpha) -> InitialScale:
        """Read a float, a string such as ``"1e-1000"``, a Decimal or a Fraction.

        Raises ValueError if alpha is not a positive finite number.
        """
        if isinstance(alpha, InitialScale):
            return alpha
        # Equal Decimals may have different texts, and arrays are not hashable.
        return _remembered(alpha) if type(alpha) in (str, float) else _parse(alpha)

    @property
    def gamma(self) -> float:
        """``ln(1/alpha)``."""
        return -self.log

    @property
    def value(self) -> float:
        """alpha as a float; 0.0 on underflow."""
        return math.exp(self.log) if self.log < 709 else math.inf

    def __str__(self) -> str:
        return self.text


def _parse(alpha: Alpha) -> InitialScale:
    try:
        if isinstance(alpha, bool | complex):
            raise TypeError
        if isinstance(alpha, Fraction):
            value = _CONTEXT.divide(Decimal(alpha.numerator), Decimal(alpha.denominator))
        elif isinstance(alpha, Decimal):
            value = alpha
        elif isinstance(alpha, str):
            value = _CONTEXT.create_decimal(alpha.strip())
        else:
            value = Decimal(repr(float(alpha)))
    except (InvalidOperation, TypeError, ValueError, OverflowError):
        raise ValueError(f"`alpha` must be a positive number; received {alpha!r}.") from None
    if not value.is_finite() or value <= 0:
        remedy = (
            " Scales below the range of floats are given as text, '1e-400'."
            if isinstance(alpha, float) and not alpha
            else ""
        )
        raise ValueError(f"`alpha` must be > 0 and finite; received {alpha}.{remedy}")
    if abs(value.adjusted()) > _LARGEST_EXPONENT:
        raise ValueError(f"`alpha` must lie within 10^±{_LARGEST_EXPONENT}; received {alpha}.")
    return InitialScale(str(alpha), float(_CONTEXT.ln(value)))


_remembered = lru_cache(maxsize=1024)(_parse)
