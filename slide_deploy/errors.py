"""All errors that are shown to users. Each has a message and a hint how to proceed.

SlideDeployError
├── UsageError              exit 2  an invalid option or argument
│   └── UnknownName         exit 2  a target, family or lowering that does not exist
├── CheckpointError         exit 2  the model file
│   ├── UnsafeCheckpoint    exit 2  unpickling it would run code
│   ├── ArchitectureError   exit 2  weights and architecture do not match
│   └── AmbiguousModel      exit 2  a size cannot be inferred; names the option
├── OutputError             exit 2  the output folder or file cannot be written
├── ConversionError         exit 1  a converter refused the model
├── ArtifactError           exit 1  an artifact cannot be read or run
│   ├── NotSupported        exit 1  its runtime here lacks something that it needs
│   └── DifferentProgram    exit 1  it has other operations than the one it is compared with
└── MissingLibrary          exit 3  a package is not installed; names the install command
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import ClassVar

__all__ = [
    "AmbiguousModel",
    "ArchitectureError",
    "ArtifactError",
    "CheckpointError",
    "ConversionError",
    "DifferentProgram",
    "MissingLibrary",
    "NotSupported",
    "OutputError",
    "SlideDeployError",
    "UnknownName",
    "UnsafeCheckpoint",
    "UsageError",
]


class SlideDeployError(Exception):
    """`message` and `hint` are one line each. `details`, the traceback or standard error of a
    converter or runner, are shown with --debug only."""

    exit_code: ClassVar[int] = 2

    def __init__(self, message: str, hint: str = "", details: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details = details
        if details:
            self.add_note(details)  # part of the traceback that --debug prints

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class UsageError(SlideDeployError):
    """An option or argument is invalid."""


class UnknownName(UsageError):
    """A name is unknown; the hint suggests the nearest known one, and lists `all_of`."""

    def __init__(
        self, kind: str, name: str, known: Iterable[str], all_of: Sequence[str] = ()
    ) -> None:
        known, name = sorted(known), name[:80]
        near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.5)
        listed = f"known: {', '.join(all_of or known)}"
        hint = f"did you mean {near[0]!r}?{f' {listed}' if all_of else ''}" if near else listed
        super().__init__(f"unknown {kind} {name!r}", hint)


class CheckpointError(SlideDeployError):
    """The model file is missing, unreadable or not a checkpoint."""


class UnsafeCheckpoint(CheckpointError):
    """Unpickling the file would import something other than plain data."""


class ArchitectureError(CheckpointError):
    """Weights and architecture do not match."""

    def __init__(self, message: str, hint: str = "check that config and weights match") -> None:
        super().__init__(message, hint)


class AmbiguousModel(CheckpointError):
    """The file does not determine a size; the hint names the option that sets it."""


class OutputError(SlideDeployError):
    """The output folder or file cannot be written."""


class ConversionError(SlideDeployError):
    """A converter refused the model."""

    exit_code = 1


class ArtifactError(SlideDeployError):
    """An artifact is missing parts, truncated or otherwise unreadable."""

    exit_code = 1


class NotSupported(ArtifactError):
    """The runtime here lacks something that a valid artifact uses: the check is `not_run`."""


class DifferentProgram(ArtifactError):
    """An artifact has other operations than the one that it is compared with."""


class MissingLibrary(SlideDeployError):
    """A required package is not installed."""

    exit_code = 3

    def __init__(
        self, needed_for: str, packages: Iterable[str], extra: str, command: str = ""
    ) -> None:
        names = ", ".join(packages)
        super().__init__(
            f"{needed_for} needs {names}, which is not installed",
            command or f"pip install 'slide-deploy[{extra}]'",
        )
