"""Conversion of values to JSON types."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


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
