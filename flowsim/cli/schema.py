"""The JSON schema of experiments: every key of every section with its type and description."""

from __future__ import annotations

import inspect
import re
from typing import Any

from flowsim.cli.experiment import ExperimentFile, NetworkSection, ProblemSection
from flowsim.cli.registry import FUNCTIONS, documented, parameters_of

#: JSON types of Python annotations; an argument of any other type cannot be set from a file.
_KINDS = {
    "float": "number",
    "int": "integer",
    "bool": "boolean",
    "str": "string",
    "Clock": "string",
    "Seed": "integer",
    "Mapping": "object",
    "ArrayLike": "array",
    "Sequence": "array",
}
#: Names of annotations that stand for several.
_SHORT = {"Alpha": "float str", "ArrayLike": "ArrayLike float", "GivenWeights": "Mapping"}


def experiment_schema() -> dict[str, Any]:
    """The schema in draft 2020-12."""
    schema = ExperimentFile.model_json_schema()
    sections = {"problem": ProblemSection.model_json_schema(), "network": NetworkSection.model_json_schema()}
    properties = schema["properties"]
    for name, section in sections.items():
        properties[name] = {
            **section,
            "description": properties[name]["description"],
            "default": properties[name]["default"],
        }
    schema["allOf"] = [
        {
            "if": {"properties": {"function": {"const": function}}},
            "then": {"properties": _of_function(function, sections, properties)},
        }
        for function in FUNCTIONS
    ]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "flowsim experiment", **schema}


def _of_function(function: str, sections: dict[str, Any], properties: dict[str, Any]) -> dict[str, Any]:
    """The sections whose keys are the function's arguments."""
    own = parameter_schema(function)
    point = {**own, **{name: _object(section["properties"]) for name, section in sections.items()}}
    lists = {**_lists(own), **{name: _object(_lists(section["properties"])) for name, section in sections.items()}}
    return {
        "parameters": _object(own, properties["parameters"]["description"]),
        "grid": _object(lists, properties["grid"]["description"]),
        "points": {
            "type": "array",
            "minItems": 1,
            "items": _object(point),
            "description": properties["points"]["description"],
        },
    }


def parameter_schema(function: str) -> dict[str, Any]:
    """Each argument of a function that an experiment may set."""
    told = documented(function)
    found = {}
    for name, parameter in parameters_of(function).items():
        words = " ".join(_SHORT.get(word, word) for word in re.findall(r"\w+", str(parameter.annotation))).split()
        kinds = sorted({_KINDS[word] for word in words if word in _KINDS})
        entry: dict[str, Any] = {"description": told[name]}
        if kinds:
            entry["type"] = kinds[0] if len(kinds) == 1 else kinds
        if isinstance(parameter.default, bool | int | float | str):
            entry["default"] = parameter.default
        elif parameter.default is inspect.Parameter.empty:
            entry["description"] += " (needed)"
        found[name] = entry
    return found


def _object(properties: dict[str, Any], description: str = "") -> dict[str, Any]:
    made = {"type": "object", "additionalProperties": False, "properties": properties}
    return {**made, "description": description} if description else made


def _lists(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        name: {"type": "array", "minItems": 1, "items": entry, "description": entry.get("description", "")}
        for name, entry in properties.items()
    }
