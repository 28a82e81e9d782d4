"""Vectors of eight floats in compiled code: `vector`, `several` at a time, `exp`; `pointers`, with their lifetimes."""

from flowsim.solvers.simd.exp import WITHIN, exponential, exponential_beyond, exponential_within
from flowsim.solvers.simd.pointers import at_address, call, call_on_arrays, caller, pointer, view
from flowsim.solvers.simd.several import less, store_both, two_sums
from flowsim.solvers.simd.vector import (
    EIGHT,
    add_up,
    below,
    constant,
    gather,
    greater,
    largest,
    load,
    load_part,
    magnitude,
    only,
    spread,
    store,
    store_part,
    wider,
    widest,
)

__all__ = [
    "EIGHT", "WITHIN", "add_up", "at_address", "below", "call", "call_on_arrays", "caller", "constant",
    "exponential", "exponential_beyond",
    "exponential_within", "gather", "greater", "largest", "less", "load", "load_part", "magnitude", "only",
    "pointer", "spread", "store", "store_both", "store_part", "two_sums", "view", "wider", "widest",
]  # fmt: skip
