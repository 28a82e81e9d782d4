"""Conversion of values to JSON types."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from typing import Any

import numpy as np


def json_value(value: Any, *, null: bool = False) -> Any:
    """Mappings, sequences and arrays as dicts and lists; numbers that are not finite as text, or as None (`null`)."""
    if isinstance(value, Mapping):
        return {str(key): json_value(each, null=null) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [json_value(each, null=null) for each in value]
    if hasattr(value, "tolist"):
        return json_value(value.tolist(), null=null)
    if isinstance(value, float) and not math.isfinite(value):
        return None if null else str(value)
    return value


def plain(value: Any) -> Any:
    """For ``json.dumps(..., default=plain)``: arrays and their numbers as lists and numbers, all else as text."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


def typed_array(values: Any, kind: str = "f8") -> dict[str, str]:
    """Numbers in Plotly's encoding, which includes NaN and infinity."""
    raw = np.ascontiguousarray(values, dtype=f"<{kind}").tobytes()
    return {"dtype": kind, "bdata": base64.b64encode(raw).decode("ascii")}
