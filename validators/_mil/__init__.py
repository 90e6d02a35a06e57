"""Evaluate a Core ML `.mlpackage`, as written to disk, on machines without a Core ML runtime."""

from slide_deploy.validators._mil.dtypes import dtype_named
from slide_deploy.validators._mil.evaluation import evaluate, new_state
from slide_deploy.validators._mil.execution import Observer, is_implemented
from slide_deploy.validators._mil.images import COLOURED, as_image, pictures
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
    walk,
)
from slide_deploy.validators._mil.reader import read_package
from slide_deploy.validators._mil.requirements import SYSTEMS, first_opset, requirements
from slide_deploy.validators._mil.variants import VARIANTS, Variant

__all__ = [
    "COLOURED",
    "SYSTEMS",
    "VARIANTS",
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
    "Variant",
    "as_image",
    "dtype_named",
    "evaluate",
    "first_opset",
    "histogram",
    "is_implemented",
    "new_state",
    "pictures",
    "read_package",
    "requirements",
    "violations",
    "walk",
]
