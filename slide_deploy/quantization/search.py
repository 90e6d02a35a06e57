"""Finds the fewest parts of a model that must stay in float for a given accuracy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from slide_deploy.utils.records import Figure

__all__ = ["Search", "Trial", "parts_of", "search"]


@dataclass(frozen=True)
class Trial:
    """The signal-to-noise ratio of the artifact on the calibration set where the parts `kept` stay
    in float and all others are quantized."""

    kept: tuple[str, ...]
    snr_db: Figure


@dataclass(frozen=True)
class Search:
    """A finished search: `kept` of the `parts` stay in float for `min_snr_db`.

    The first of the `trials` quantizes every part. If that is not enough, one trial for each part
    follows, in which it alone stays in float, and then trials of the parts that gain the most.
    """

    min_snr_db: Figure
    parts: tuple[str, ...]
    kept: tuple[str, ...]
    snr_db: Figure
    trials: tuple[Trial, ...]

    @property
    def gains(self) -> dict[str, float]:
        """What each part alone gains in dB if it stays in float; empty if none had to."""
        plain = float(self.trials[0].snr_db)
        return {
            trial.kept[0]: float(trial.snr_db) - plain
            for trial in self.trials[1 : 1 + len(self.parts)]
        }


def search(
    parts: Sequence[str], measure: Callable[[tuple[str, ...]], float], min_snr_db: float
) -> Search:
    """Keep the fewest of `parts` in float for which `measure` gives at least `min_snr_db`.

    Parts are kept in the order of what each alone gains, and their number is found by bisection:
    more parts in float are taken to be more accurate. If all of them are not enough, all are kept.
    """
    trials: list[Trial] = []

    def tried(kept: Sequence[str]) -> float:
        found = next((t for t in trials if set(t.kept) == set(kept)), None)
        if found is None:
            trials.append(found := Trial(tuple(kept), measure(tuple(kept))))
        return float(found.snr_db)

    kept: Sequence[str] = ()
    if tried(kept) < min_snr_db:
        gains = {part: tried((part,)) for part in parts}
        ordered = sorted(parts, key=lambda part: gains[part], reverse=True)
        fewest, most = 1, len(ordered)
        while fewest < most:
            middle = (fewest + most) // 2
            if tried(ordered[:middle]) >= min_snr_db:
                most = middle
            else:
                fewest = middle + 1
        kept = ordered[:most]
    return Search(min_snr_db, tuple(parts), tuple(kept), tried(kept), tuple(trials))


def parts_of(products: Mapping[str, str], blocks: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The products of each block of the model, by its name, in the order of the products.

    `products` maps names of products to paths of modules or tensors. A product without a path
    belongs to the part of the one before it; one outside of all blocks is a part of its own.
    """
    parts: dict[str, list[str]] = {}
    last = ""
    for name, path in products.items():
        found = next((block for block in blocks if f"{path}.".startswith(f"{block}.")), "")
        last = found or (path if path else last) or name
        parts.setdefault(last, []).append(name)
    return {part: tuple(names) for part, names in parts.items()}
