"""Renders predictions as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from slide_deploy.utils.text import one_line

if TYPE_CHECKING:
    from slide_deploy.evaluation.prediction import Prediction, Predictions

__all__ = ["predictions_table"]

# Of more pictures, only the best class has a row of its own.
FEW = 5
BAR = 20


def predictions_table(found: Predictions) -> RenderableType:
    """The best classes of each picture, then what ran and the agreement with the checkpoint."""
    table = Table(title=Text(one_line(found.artifact)), title_justify="left")
    few = len(found.predictions) <= FEW
    for column in ("picture", "class", "probability", "" if few else "next"):
        table.add_column(column, justify="right" if column == "probability" else "left")
    for own in found.predictions:
        for row in _rows(own) if few or own.problem else [_row(own)]:
            table.add_row(*row)
        if few:
            table.add_section()
    ran = f"{found.artifact} ran on {found.runtime} ({found.fidelity}) in {found.precision}."
    lines = [ran, *found.notes, *_agreement(found)]
    return Group(table, *(Text(one_line(line), style="dim") for line in lines))


def _rows(own: Prediction) -> list[tuple[Text, ...]]:
    image = Text(one_line(own.image))
    if own.problem:
        return [(image, Text(one_line(own.problem), style="bold red"), Text(), Text())]
    return [
        (
            image if rank == 0 else Text(),
            _class(guess.label, own, first=rank == 0),
            Text(f"{100 * guess.probability:.1f} %"),
            Text("█" * round(BAR * guess.probability)),
        )
        for rank, guess in enumerate(own.guesses)
    ]


def _row(own: Prediction) -> tuple[Text, ...]:
    best, *others = own.guesses
    following = ", ".join(f"{g.label} {100 * g.probability:.1f} %" for g in others[:2])
    return (
        Text(one_line(own.image)),
        _class(best.label, own, first=True),
        Text(f"{100 * best.probability:.1f} %"),
        Text(one_line(following), style="dim"),
    )


def _class(label: str, own: Prediction, *, first: bool) -> Text:
    differs = first and own.agrees is False
    return Text(
        one_line(label) + (" ≠ checkpoint" if differs else ""), style="red" if differs else ""
    )


def _agreement(found: Predictions) -> list[str]:
    if not found.reference:
        return []
    compared = [own.agrees for own in found.predictions if own.agrees is not None]
    return [f"The best class is that of {found.reference} for {sum(compared)} of {len(compared)}."]
