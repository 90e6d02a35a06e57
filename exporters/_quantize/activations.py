"""The option of quantizers for the ranges of activations."""

from __future__ import annotations

from slide_deploy.errors import UsageError
from slide_deploy.protocols import TargetOption
from slide_deploy.types import Options

__all__ = ["ACTIVATIONS", "is_symmetric"]

KINDS = ("asymmetric", "symmetric")


def _parse(value: object) -> str:
    if value not in KINDS:
        raise UsageError(
            f"there are no {str(value)[:20]!r} ranges of activations", f"known: {', '.join(KINDS)}"
        )
    return str(value)


ACTIVATIONS = TargetOption(
    name="activations",
    help="Ranges of quantized activations: from the smallest to the largest value, or symmetric "
    "around zero.",
    parse=_parse,
    default=KINDS[0],
    alternatives=KINDS[1:],
)


def is_symmetric(options: Options) -> bool:
    """Whether an export asks for symmetric ranges of activations."""
    return options.target_options.get(ACTIVATIONS.name, ACTIVATIONS.default) == KINDS[1]
