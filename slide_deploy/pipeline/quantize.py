"""Quantizes artifacts, with the settings and the parts in float that a given accuracy needs."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

from slide_deploy import registry
from slide_deploy.artifacts.manifest import Artifact
from slide_deploy.artifacts.prepare import Prepare, PreparedModel
from slide_deploy.artifacts.search_cache import load_search, save_search, search_file
from slide_deploy.artifacts.write import quantize_artifact, write_artifact
from slide_deploy.loading.loader import Model
from slide_deploy.parity.cost import precision_costs
from slide_deploy.pipeline.labelled import Labelled
from slide_deploy.quantization.calibration import CalibrationSet
from slide_deploy.quantization.catalog import scheme_named
from slide_deploy.quantization.program import SMOOTH, program_precision
from slide_deploy.quantization.search import Goal, Search, Trial, kinds_of, parts_of, search
from slide_deploy.types import Options
from slide_deploy.verification.judge import Progress, Reference
from slide_deploy.verification.runner import run_expected

__all__ = ["Quantizer", "program_folder"]

# Names of products, by that of a part or of a kind.
Groups = Mapping[str, tuple[str, ...]]

# Of SmoothQuant: Xiao et al. take 0.5 for most models, NNCF 0.95 for products and 0.15 for
# convolutions of transformers.
STRENGTHS = ("0.15", "0.5", "0.95")


def program_folder(programs: Path, smooth: float) -> Path:
    """The folder of the float artifacts with SmoothQuant of this strength."""
    return programs / f"{SMOOTH}-{smooth:g}"


@dataclass(frozen=True)
class Quantizer:
    """What the artifacts of a model are quantized with; `programs` is the folder of the float ones
    that they are made from. `labelled` are the images on which accuracy counts in a search."""

    model: Model
    prepare: Prepare
    calibration: CalibrationSet
    programs: Path
    reference: Reference
    labelled: Labelled | None
    progress: Progress

    def write(self, target: str, folder: Path, options: Options) -> tuple[Artifact, PreparedModel]:
        """Write the quantized artifact into `folder`; returns its manifest entry, and the model
        that it was made from.

        Where `options` ask for an accuracy, the settings and the parts that stay in float are found
        by a search, which is part of the entry.
        """
        choices, options = _choices(target, options), _with_settings(options, {})
        programs = cache(partial(self._program, target, options))

        def quantize(own: Options, names: frozenset[str], into: Path) -> Artifact:
            program, prepared = programs(own.smooth)
            made_from = program_folder(self.programs, own.smooth or 0.0)
            about = (self.calibration, made_from, into, own, names)
            return quantize_artifact(program, prepared.capture, *about)

        program, prepared = programs(options.smooth)
        if not options.searches:
            return quantize(options, frozenset(), folder), prepared

        @cache
        def groups(smooth: float | None) -> tuple[Groups, Groups]:
            return self._groups(programs(smooth)[0], program_folder(self.programs, smooth or 0.0))

        def settled(settings: Mapping[str, str], kept: Sequence[str], into: Path) -> Artifact:
            own = _with_settings(options, settings)
            parts, kinds = groups(own.smooth)
            names = frozenset(name for group in kept for name in {**parts, **kinds}[group])
            return quantize(own, names, into)

        last: dict[tuple[object, ...], tuple[Artifact, Path]] = {}

        def start(trial: Trial) -> tuple[Artifact, Path]:
            self.progress(f"searching for {_goal_text(options)}: {_trial_text(trial)}")
            into = Path(tempfile.mkdtemp(prefix="trial-", dir=self.programs))
            return settled(trial.settings, trial.kept, into), into

        def finish(trial: Trial, made: Artifact, into: Path) -> Trial:
            """The artifact is kept until the next one runs."""
            for _, earlier in last.values():
                shutil.rmtree(earlier)
            last.clear()
            last[_key(trial)] = made, into
            return self._measured(trial, target, into / made.path, options)

        data = self.labelled.data.sha256 if self.labelled else ""
        parts, kinds = groups(options.smooth)
        known = (*parts, *kinds)
        cached = search_file(program, self.calibration, known, choices, options, data)
        found = load_search(cached)
        if found is None:
            measure = partial(_overlapped, start, finish)
            found = search(parts, kinds, choices, measure, self._goal(options))
            save_search(cached, found)
        if _key(found) in last:
            record, made_in = last[_key(found)]
            shutil.move(made_in / record.path, folder / record.path)
        else:
            record = settled(found.settings, found.kept, folder)
        prepared = programs(_with_settings(options, found.settings).smooth)[1]
        return replace(record, search=found), prepared

    def _program(
        self, target: str, options: Options, smooth: float | None
    ) -> tuple[Artifact, PreparedModel]:
        """The float artifact that is quantized."""
        strength = smooth or 0.0
        prepared, folder = self.prepare(target, strength), program_folder(self.programs, strength)
        folder.mkdir(exist_ok=True)
        precision = program_precision(scheme_named(options.precision), registry.exporter(target))
        plain = replace(
            options, precision=precision, calibration=None, min_snr=None, max_drop=None, smooth=None
        )
        return write_artifact(target, self.model.name, prepared.capture, folder, plain), prepared

    def _groups(self, program: Artifact, folder: Path) -> tuple[Groups, Groups]:
        """The products of each part and of each kind, which can stay in float; empty for targets
        without `products`."""
        products = registry.exporter(program.target).products
        if products is None:
            return {}, {}
        found = products(folder / program.path)
        return parts_of(found, self.model.block_names(self.model.module)), kinds_of(found)

    def _goal(self, options: Options) -> Goal:
        if options.max_drop is None or self.labelled is None:
            return Goal(options.min_snr)
        return Goal(options.min_snr, self.labelled.top1 - options.max_drop)

    def _measured(self, trial: Trial, target: str, path: Path, options: Options) -> Trial:
        """The trial with the signal-to-noise ratio of the worst output on the calibration set, and
        the accuracy where it counts."""
        expected = self.reference.expect(options.dynamic_axes, options.precision)
        outputs = run_expected(target, path, expected).outputs
        ratio = min(float(cost.snr_db) for cost in precision_costs(expected, outputs, ()))
        top1 = self.labelled.top1_of(path) if self.labelled else None
        return replace(trial, snr_db=ratio, top1=top1)


def _overlapped(
    start: Callable[[Trial], tuple[Artifact, Path]],
    finish: Callable[[Trial, Artifact, Path], Trial],
    trials: Sequence[Trial],
) -> list[Trial]:
    """Finish each trial, where one artifact runs while the next is made."""
    with ThreadPoolExecutor(1) as running:
        found = [running.submit(finish, trial, *start(trial)) for trial in trials]
        return [own.result() for own in found]


def _choices(target: str, options: Options) -> dict[str, tuple[str, ...]]:
    """The settings that the user left open, and the values of each beside the usual one."""
    if not scheme_named(options.precision).needs_calibration:
        return {}
    smooth = {SMOOTH: STRENGTHS} if options.smooth is None else {}
    own = {o.name: o.alternatives for o in registry.exporter(target).options if o.alternatives}
    return smooth | {n: values for n, values in own.items() if n not in options.of_targets}


def _with_settings(options: Options, settings: Mapping[str, str]) -> Options:
    """The options with what a search chose."""
    own = {name: value for name, value in settings.items() if name != SMOOTH}
    smooth = float(settings.get(SMOOTH, options.smooth or 0.0))
    options = replace(options, smooth=smooth)
    return options.with_target_options({**options.of_targets, **own})


def _key(found: Trial | Search) -> tuple[object, ...]:
    return (found.kept, tuple(found.settings.items()))


def _goal_text(options: Options) -> str:
    ratio = None if options.min_snr is None else f"{options.min_snr:g} dB"
    drop = None if options.max_drop is None else f"at most {options.max_drop:g} points less"
    return " and ".join(filter(None, (ratio, drop)))


def _trial_text(trial: Trial) -> str:
    kept = f"{len(trial.kept)} parts" if len(trial.kept) > 1 else "".join(trial.kept) or "no part"
    return ", ".join([f"{kept} in float", *(f"{n} {v}" for n, v in trial.settings.items())])
