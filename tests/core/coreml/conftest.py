"""Packages for the tests of `slide_deploy.coreml`."""

from __future__ import annotations

from tests.targets.mil.conftest import edit, write

__all__ = ["edit", "write"]
