"""Every error a user can meet; each says what is wrong, and the way out.

SlideDeployError
├── UsageError              exit 2  an option or argument that makes no sense
│   └── UnknownName         exit 2  a target, family or lowering that does not exist
├── CheckpointError         exit 2  the model file
│   ├── UnsafeCheckpoint    exit 2  unpickling it would run code
│   ├── ArchitectureError   exit 2  weights and architecture do not fit each other
│   └── AmbiguousModel      exit 2  a size that the file does not tell; names the option
├── OutputError             exit 2  the output folder or file cannot be written
├── ConversionError         exit 1  a converter refused or broke the model
├── ArtifactError           exit 1  an artifact that cannot be read back
│   └── NotSupported        exit 1  its runtime here lacks something that it needs
└── MissingLibrary          exit 3  a package that is not installed; gives the command
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import ClassVar

__all__ = [
    "AmbiguousModel",
    "ArchitectureError",
    "ArtifactError",
    "CheckpointError",
    "ConversionError",
    "MissingLibrary",
    "NotSupported",
    "OutputError",
    "SlideDeployError",
    "UnknownName",
    "UnsafeCheckpoint",
    "UsageError",
]


class SlideDeployError(Exception):
    """What went wrong in one line (`message`) and the way out (`hint`); `details` is what a
    converter or runner left of its failure, shown with --debug only."""

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
    """An option or argument that makes no sense."""


class UnknownName(UsageError):
    """A name that is not among the known ones; the nearest is offered."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        known, name = sorted(known), name[:80]
        near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
        super().__init__(f"unknown {kind} {name!r}", hint)


class CheckpointError(SlideDeployError):
    """The model file is missing, unreadable or not a checkpoint."""


class UnsafeCheckpoint(CheckpointError):
    """Unpickling the file would look up something that is not plain data."""


class ArchitectureError(CheckpointError):
    """Weights and architecture do not fit each other."""

    def __init__(self, message: str, hint: str = "do config and weights belong together?") -> None:
        super().__init__(message, hint)


class AmbiguousModel(CheckpointError):
    """The file leaves a size open; the hint names the option that gives it."""


class OutputError(SlideDeployError):
    """The output folder or file cannot be written."""


class ConversionError(SlideDeployError):
    """A converter refused the model."""

    exit_code = 1


class ArtifactError(SlideDeployError):
    """An artifact is missing parts, truncated or otherwise unreadable."""

    exit_code = 1


class NotSupported(ArtifactError):
    """What runs artifacts here lacks something that this one rightly uses: it is `not_run`."""


class MissingLibrary(SlideDeployError):
    """A package that is not installed."""

    exit_code = 3

    def __init__(self, needed_for: str, packages: Iterable[str], extra: str) -> None:
        names = ", ".join(packages)
        super().__init__(
            f"{needed_for} needs {names}, not installed here",
            f"pip install 'slide-deploy[{extra}]'",
        )
