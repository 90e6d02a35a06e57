"""Core ML packages on any machine: ML programs read from disk and run in numpy.

`read` gives one function of a `.mlpackage` as a `Program`, `evaluate` runs it on arrays,
`violations` lists the limits of Core ML that it breaks. `summarize`, `check` and `residency` are
what the commands `slide-deploy coreml inspect`, `check` and `residency` show, `read_feeds` takes
arrays and pictures from files. The package may come from any converter. protobuf and scipy are
needed, neither coremltools nor torch: `pip install '.[coreml-read]'`.
"""

from slide_deploy.coreml.checking import FunctionCheck, PackageCheck, TargetCheck, check
from slide_deploy.coreml.feeds import read_feeds
from slide_deploy.coreml.residency import (
    BlockResidency,
    FunctionResidency,
    PackageResidency,
    Place,
    Placement,
    Segment,
    residency,
)
from slide_deploy.coreml.summary import FunctionSummary, PackageSummary, ValueSummary, summarize
from slide_deploy.validators._mil import (
    VARIANTS,
    Constant,
    Feature,
    Operation,
    Program,
    Unsupported,
    Value,
    Variant,
    as_image,
    evaluate,
    histogram,
    new_state,
    violations,
)
from slide_deploy.validators._mil import read_package as read

__all__ = [
    "VARIANTS",
    "BlockResidency",
    "Constant",
    "Feature",
    "FunctionCheck",
    "FunctionResidency",
    "FunctionSummary",
    "Operation",
    "PackageCheck",
    "PackageResidency",
    "PackageSummary",
    "Place",
    "Placement",
    "Program",
    "Segment",
    "TargetCheck",
    "Unsupported",
    "Value",
    "ValueSummary",
    "Variant",
    "as_image",
    "check",
    "evaluate",
    "histogram",
    "new_state",
    "read",
    "read_feeds",
    "residency",
    "summarize",
    "violations",
]
