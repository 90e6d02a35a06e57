"""Evaluate a Core ML `.mlpackage`, as written to disk, on machines without a Core ML runtime."""

from slide_deploy.validators._mil.evaluation import Observer, evaluate
from slide_deploy.validators._mil.limits import violations
from slide_deploy.validators._mil.program import (
    Constant,
    Feature,
    Operation,
    Program,
    Shape,
    TensorType,
    Value,
    histogram,
)
from slide_deploy.validators._mil.reader import read_package

__all__ = [
    "Constant",
    "Feature",
    "Observer",
    "Operation",
    "Program",
    "Shape",
    "TensorType",
    "Value",
    "evaluate",
    "histogram",
    "read_package",
    "violations",
]
