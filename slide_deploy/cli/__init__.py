"""The command line."""

from slide_deploy.cli.app import app, main

__all__ = ["app", "main"]
