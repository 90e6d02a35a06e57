"""`python -m slide_deploy`, for where the command is not on the path."""

from slide_deploy.cli import main

__all__: list[str] = []

main()
