"""`python -m slide_deploy`, if the command is not on the path."""

from slide_deploy.cli import main

__all__: list[str] = []

main()
