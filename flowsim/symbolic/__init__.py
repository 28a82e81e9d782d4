"""Derivations from a formula: moments, field, invariants, thresholds, kernels.

Read `coordinate_derivation` (one formula), `derivation` (a network) and `linear_derivation`; `expectation`,
`quadrature`, `exponential_polynomials` and `moments` are averages under noise, `invariants`, `sharpness`, `thresholds`,
`origin`, `series` and `statements` what follows, `chapters` and `render` its presentation. `kernels`, `coordinates`,
`printing`, `stable` and `codegen` generate compiled code; `loss_formula` derives a loss; `clock` is accelerated time.

Modules that import SymPy are loaded on first use: a cached kernel does not need it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from flowsim.symbolic.kernels import Kernels, kernels
from flowsim.symbolic.origin import order_at_origin

_LATER = {
    "Derivation": "flowsim.symbolic.derivation",
    "average_sharpness": "flowsim.symbolic.sharpness",
    "derive": "flowsim.symbolic.derivation",
    "hessian_trace": "flowsim.symbolic.sharpness",
    "loss_hessian": "flowsim.symbolic.sharpness",
    "minimal_trace": "flowsim.symbolic.sharpness",
}

__all__ = ["Kernels", "kernels", "order_at_origin", *_LATER]

if TYPE_CHECKING:
    from flowsim.symbolic.derivation import Derivation as Derivation
    from flowsim.symbolic.derivation import derive as derive
    from flowsim.symbolic.sharpness import average_sharpness as average_sharpness
    from flowsim.symbolic.sharpness import hessian_trace as hessian_trace
    from flowsim.symbolic.sharpness import loss_hessian as loss_hessian
    from flowsim.symbolic.sharpness import minimal_trace as minimal_trace


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'flowsim.symbolic' has no attribute {name!r}")
    value = getattr(importlib.import_module(_LATER[name]), name)
    globals()[name] = value
    return value
