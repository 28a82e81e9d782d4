"""Derivation of a network from its formulas, as SymPy objects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, overload

from numpy.typing import ArrayLike

from flowsim.arrays import Array
from flowsim.network import DiagonalNetwork, LinearNetwork
from flowsim.plain_numbers import count
from flowsim.symbolic.chapters import steps
from flowsim.symbolic.coordinate_derivation import CoordinateDerivation
from flowsim.symbolic.coordinates import INVARIANT_DEGREE
from flowsim.symbolic.linear_derivation import LinearDerivation
from flowsim.symbolic.render import Rendered, Step
from flowsim.symbolic.sharpness import minimal_trace


@overload
def derive(net: DiagonalNetwork, *, degree: int = INVARIANT_DEGREE) -> Derivation: ...
@overload
def derive(net: LinearNetwork, *, degree: int = INVARIANT_DEGREE) -> LinearDerivation: ...
def derive(net: DiagonalNetwork | LinearNetwork, *, degree: int = INVARIANT_DEGREE) -> Derivation | LinearDerivation:
    r"""Derive a network's equations from its formula.

    .. math:: \dot\theta_i = -\big( g_i \nabla m_i + \tfrac12 \sigma_i^2 \nabla V_i \big), \qquad
              m_i = \mathrm{E}\,\varphi_i(\theta_i + \xi_i), \quad V_i = \mathrm{Var}\,\varphi_i(\theta_i + \xi_i)

    Parameters
    ----------
    net : DiagonalNetwork or LinearNetwork
    degree : int
        Conserved polynomials of a diagonal network are searched up to this degree.

    Returns
    -------
    Derivation, or LinearDerivation for a LinearNetwork
        Attributes are computed on first access; renders itself in notebooks and terminals.

    References
    ----------
    arXiv:2503.11891 (noise), arXiv:2304.00488 and arXiv:2607.12332 (thresholds).

    Examples
    --------
    >>> import flowsim as fs
    >>> derivation = fs.derive(fs.DiagonalNetwork("2*u**2 - v**2"))
    >>> derivation.invariants, derivation.thresholds.plus, derivation.thresholds.minus
    ((u*v**2,), 1/4, 1/2)
    """
    if isinstance(net, LinearNetwork):
        return LinearDerivation(net)
    if not isinstance(net, DiagonalNetwork):
        raise ValueError(f"`net` must be a DiagonalNetwork or LinearNetwork; received {type(net).__name__}.")
    degree = count("degree", degree)
    return Derivation(
        net, tuple(CoordinateDerivation(formula, net.noise, degree, net.weight_decay) for formula in net.distinct)
    )


def _each(name: str, doc: str) -> Any:
    """A property: the attribute of the formula's derivation, or a tuple of those of several formulas."""

    def read(self: Derivation) -> Any:
        values = tuple(getattr(each, name) for each in self.coordinates)
        return values[0] if len(values) == 1 else values

    return property(read, doc=doc)


@dataclass(frozen=True, eq=False, repr=False)
class Derivation(Rendered):
    """The result of :func:`derive` for a diagonal network.

    For a network of one formula the attributes are that formula's own; for a mixed network they are tuples, one
    entry for each of ``net.distinct``.
    """

    net: DiagonalNetwork
    coordinates: tuple[CoordinateDerivation, ...]  #: one for each distinct formula

    mean = _each("mean", "``m = E phi(w + xi)``.")
    variance = _each("variance", "``V = Var phi(w + xi)``.")
    loss = _each("loss", "The contribution of the coordinate to the expected loss, ``L(m) + sigma^2/2 V``.")
    field = _each("field", "Weight -> its velocity, ``-(g dm/dw + sigma^2/2 dV/dw)``.")
    jacobian = _each(
        "jacobian", "The coordinate's block of the Jacobian at fixed g; the rest is ``-dm_i/dw_a Sigma_ij dm_j/dw_b``."
    )
    invariants = _each("invariants", "Functionally independent conserved polynomials of the noise-free flow.")
    invariant_basis = _each("invariant_basis", "A basis of all conserved polynomials up to the requested degree.")
    laws = _each("laws", "The evolution of the invariants under noise and weight decay.")
    sharpness = _each("sharpness", "Hessian of the loss, its trace, average sharpness.")
    thresholds = _each("thresholds", "Growth thresholds at vanishing initialisation.")

    @property
    def remarks(self) -> tuple[str, ...]:
        """Remarks on peculiarities of the formulas."""
        return tuple(remark for each in self.coordinates for remark in each.remarks)

    def minimal_trace(self, beta: ArrayLike) -> Array:
        """Weights (k, d) of least Hessian trace with the predictor beta (d,)."""
        return minimal_trace(self.net, beta)

    def chapters(self) -> list[tuple[str, list[Step]]]:
        """One heading per formula, with its steps."""
        return [(str(each.formula), steps(each)) for each in self.coordinates]
