"""Evaluate a Core ML `.mlpackage`, as written to disk, on machines without a Core ML runtime."""

from slide_deploy.validators._mil.evaluation import evaluate, new_state
from slide_deploy.validators._mil.execution import Observer
from slide_deploy.validators._mil.images import as_image
from slide_deploy.validators._mil.limits import violations
from slide_deploy.validators._mil.program import (
    Block,
    Constant,
    Feature,
    Operation,
    Program,
    Shape,
    TensorType,
    Unsupported,
    Value,
    histogram,
)
from slide_deploy.validators._mil.reader import read_package

__all__ = [
    "Block",
    "Constant",
    "Feature",
    "Observer",
    "Operation",
    "Program",
    "Shape",
    "TensorType",
    "Unsupported",
    "Value",
    "as_image",
    "evaluate",
    "histogram",
    "new_state",
    "read_package",
    "violations",
]
