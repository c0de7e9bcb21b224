"""Holds manifests to the types of the Kubernetes API, as its Python client has them. Run by a Python that has that client.

    kubernetes_models.py FILE…      prints a problem a line, and how many objects were read: JSON

Every key must be one that the type knows, every value of the type that it says, and what is required must be there.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
from pathlib import Path
from typing import Any

from kubernetes.client import models

yaml: Any = importlib.import_module("yaml")
"""Not imported by name: mypy would ask for its stubs, which deploy/setup does not install."""
SCALARS: dict[str, type] = {"str": str, "int": int, "bool": bool, "float": float}


def problems(value: Any, kind: str, path: str) -> list[str]:
    """What is wrong with `value`, which is to be of the client's type `kind`."""
    if listed := re.fullmatch(r"[Ll]ist\[(.+)\]", kind):
        if not isinstance(value, list):
            return [f"{path}: expected a list"]
        return [found for index, item in enumerate(value) for found in problems(item, listed[1], f"{path}[{index}]")]
    if mapped := re.fullmatch(r"[Dd]ict[\[(]str, ?(.+)[\])]", kind):
        if not isinstance(value, dict):
            return [f"{path}: expected an object"]
        wrong = [f"{path}: the key {key!r} is no text" for key in value if not isinstance(key, str)]
        return wrong + [found for key, item in value.items() for found in problems(item, mapped[1], f"{path}.{key}")]
    if kind in SCALARS:
        # Of Python's types, bool is an int.
        right = isinstance(value, SCALARS[kind]) and (kind == "bool" or not isinstance(value, bool))
        return [] if right else [f"{path}: expected {kind}, found {value!r}"]
    if kind == "object":
        return [] if isinstance(value, (int, str)) else [f"{path}: expected a number or text"]
    model = getattr(models, kind, None)
    if model is None:
        return [f"{path}: unknown type {kind}"]
    if not isinstance(value, dict):
        return [f"{path}: expected {kind}"]
    required = {name for name, field in model.model_fields.items() if field.is_required()}
    attributes = {key: name for name, key in model.attribute_map.items()}
    found = [f"{path}.{key}: {kind} has no such field" for key in value if key not in attributes]
    for key, name in attributes.items():
        if key in value:
            found += problems(value[key], model.openapi_types[name], f"{path}.{key}")
        elif name in required:
            found.append(f"{path}.{key}: {kind} requires it")
    return found


def main() -> None:
    found: list[str] = []
    objects: list[dict[str, Any]] = []
    for file in sys.argv[1:]:
        for document in yaml.safe_load_all(Path(file).read_text()):
            objects.append(document)
            kind = document.get("kind")
            if document.get("apiVersion") != "v1" or not isinstance(kind, str):
                found.append(f"{file}: {document.get('apiVersion')} {kind} is not known here")
                continue
            found += problems(document, f"V1{kind}", f"{Path(file).name}: {kind}")
    print(json.dumps({"problems": found, "objects": objects}))


main()
