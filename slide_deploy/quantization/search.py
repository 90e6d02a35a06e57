"""Finds the settings, and the fewest parts of a model in float, that reach a given accuracy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from slide_deploy.protocols import Product
from slide_deploy.utils.records import Figure

__all__ = ["Goal", "Search", "Trial", "kinds_of", "parts_of", "search"]

Settings = Mapping[str, str]


@dataclass(frozen=True)
class Trial:
    """The signal-to-noise ratio of the artifact on the calibration set where the parts `kept` (or
    one kind of product) stay in float and all others are quantized, with these `settings` beside
    those of the user; and its top-1 accuracy in percent, where there are labelled images."""

    kept: tuple[str, ...]
    snr_db: Figure
    settings: Settings = field(default_factory=dict)
    top1: Figure | None = None


@dataclass(frozen=True)
class Goal:
    """What an artifact must have: a signal-to-noise ratio in dB, or a top-1 accuracy in percent."""

    min_snr_db: float | None = None
    min_top1: float | None = None

    def met_by(self, trial: Trial) -> bool:
        enough = self.min_snr_db is None or float(trial.snr_db) >= self.min_snr_db
        right = self.min_top1 is None or float(trial.top1 or 0.0) >= self.min_top1
        return enough and right


@dataclass(frozen=True)
class Search:
    """A finished search: `kept` of the `parts`, or one of the `kinds` of products, stay in float,
    and `settings` are used, for `min_snr_db` or `min_top1`.

    The first of the `trials` quantizes every part. If that is not enough, other settings are tried.
    If these are not enough, one trial for each part and each kind follows, in which it alone stays
    in float, and then trials of the parts that gain the most.
    """

    min_snr_db: Figure | None
    parts: tuple[str, ...]
    kept: tuple[str, ...]
    snr_db: Figure
    trials: tuple[Trial, ...]
    settings: Settings = field(default_factory=dict)
    min_top1: Figure | None = None
    top1: Figure | None = None
    kinds: tuple[str, ...] = ()

    @property
    def reached(self) -> bool:
        """Whether the goal was reached."""
        found = Trial(self.kept, self.snr_db, self.settings, self.top1)
        return Goal(self.min_snr_db, self.min_top1).met_by(found)

    @property
    def gains(self) -> dict[str, float]:
        """What each part, and each kind of product, gains in dB if it alone stays in float; empty
        if none had to."""
        own = [trial for trial in self.trials if trial.settings == self.settings]
        plain = next(float(trial.snr_db) for trial in own if not trial.kept)
        alone = {trial.kept[0]: float(trial.snr_db) for trial in own if len(trial.kept) == 1}
        return {part: ratio - plain for part, ratio in alone.items()}


def search(
    parts: Mapping[str, Sequence[str]],
    kinds: Mapping[str, Sequence[str]],
    choices: Mapping[str, Iterable[str]],
    measure: Callable[[Sequence[Trial]], Sequence[Trial]],
    goal: Goal,
) -> Search:
    """Find a small set of products to keep in float that meets the goal.

    `parts` and `kinds` are the same products, grouped by block and by kind. `measure` fills in the
    figures of trials. `choices` are other values of settings than the usual ones: each setting in
    turn takes the value with the highest signal-to-noise ratio, until the goal is met. Then parts
    are kept in the order of what each alone gains: one, two, four and so on, until they are enough,
    and their number is found by bisection. More parts in float are taken to be more accurate. If
    all of them are not enough, all are kept. Where one kind alone is enough and has fewer products
    than these parts, it is kept instead.
    """
    trials: list[Trial] = []

    def tried(settings: Settings, kept: Sequence[str] = ()) -> Trial:
        same = (t for t in trials if t.settings == settings and set(t.kept) == set(kept))
        found = next(same, None)
        if found is None:
            [found] = measure([Trial(tuple(kept), 0.0, settings)])
            trials.append(found)
        return found

    best = tried({})
    for name, values in choices.items():
        if goal.met_by(best):
            break
        rivals = measure([Trial((), 0.0, {**best.settings, name: value}) for value in values])
        trials += rivals
        best = max([best, *rivals], key=lambda trial: float(trial.snr_db))
    if not goal.met_by(best):
        settings = best.settings
        alone = measure([Trial((name,), 0.0, settings) for name in (*parts, *kinds)])
        trials += alone
        gains = {trial.kept[0]: float(trial.snr_db) for trial in alone}
        ordered = sorted(parts, key=lambda part: gains[part], reverse=True)
        fewest, most = 1, min(1, len(ordered))
        while most < len(ordered) and not goal.met_by(tried(settings, ordered[:most])):
            fewest, most = most + 1, min(2 * most, len(ordered))
        while fewest < most:
            middle = (fewest + most) // 2
            if goal.met_by(tried(settings, ordered[:middle])):
                most = middle
            else:
                fewest = middle + 1
        best = tried(settings, ordered[:most])
        rivals = [t for t in alone if t.kept[0] in kinds and goal.met_by(t)]
        groups = {**parts, **kinds}
        best = min([best, *rivals], key=lambda t: sum(len(groups[name]) for name in t.kept))
    return Search(
        min_snr_db=goal.min_snr_db,
        parts=tuple(parts),
        kept=best.kept,
        snr_db=best.snr_db,
        trials=tuple(trials),
        settings=best.settings,
        min_top1=goal.min_top1,
        top1=best.top1,
        kinds=tuple(kinds),
    )


def parts_of(products: Mapping[str, Product], blocks: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The names of the products of each block of the model, in the order of the products.

    A product without a path belongs to the part of the one before it; one outside of all blocks is
    a part of its own.
    """
    parts: dict[str, list[str]] = {}
    last = ""
    for name, product in products.items():
        path = product.path
        found = next((block for block in blocks if f"{path}.".startswith(f"{block}.")), "")
        last = found or (path if path else last) or name
        parts.setdefault(last, []).append(name)
    return {part: tuple(names) for part, names in parts.items()}


def kinds_of(products: Mapping[str, Product]) -> dict[str, tuple[str, ...]]:
    """The names of the products of each kind; none where all are of one."""
    kinds: dict[str, list[str]] = {}
    for name, product in products.items():
        kinds.setdefault(str(product.kind), []).append(name)
    return {kind: tuple(names) for kind, names in kinds.items()} if len(kinds) > 1 else {}
