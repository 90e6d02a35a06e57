"""What a receiver must know of each artifact: what goes in, what comes out, how to run it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from slide_deploy import registry
from slide_deploy.artifacts.manifest import Artifact, Manifest
from slide_deploy.packaging.classifier import PROBABILITIES, Conclusion
from slide_deploy.packaging.examples import example_code, examples_for
from slide_deploy.packaging.preprocessing import Preprocessing
from slide_deploy.report.text import (
    FIDELITY_MEANING,
    VERDICT_WORD,
    accuracy_text,
    cost_text,
    gate_text,
    size_text,
    top1_text,
)
from slide_deploy.types import TensorSpec
from slide_deploy.verification.record import Check, Report

__all__ = ["Handout", "handouts"]

FEW_LABELS = 20


@dataclass(frozen=True)
class Handout:
    """One artifact: `facts` are pairs of a term and a text, `examples` of a language and code."""

    path: str
    facts: tuple[tuple[str, str], ...]
    examples: tuple[tuple[str, str], ...]


def handouts(manifest: Manifest, report: Report) -> tuple[Handout, ...]:
    """One for each artifact of the manifest whose target is installed; `report` has the verdicts of
    those that it checked."""
    checks = {(check.path, check.sha256): check for check in report.checks}
    return tuple(
        Handout(
            path=own.path,
            facts=tuple(_facts(own, checks.get((own.path, own.sha256)))),
            examples=_examples(own),
        )
        for own in manifest.artifacts
        if own.target in registry.target_names()
    )


def _facts(own: Artifact, check: Check | None) -> Iterator[tuple[str, str]]:
    exporter = registry.exporter(own.target)
    yield "Format", f"{exporter.title}, {own.precision}, {size_text(own.size_bytes)}"
    yield "Verdict", _verdict(check)
    if check and check.gates:
        error, cost = f"error {gate_text(check)}", cost_text(check) or top1_text(check)
        agreement = (error, cost, accuracy_text(check))
        yield "Compared with PyTorch", "; ".join(filter(None, agreement))
    if check and check.fidelity:
        yield "Ran on", f"{check.runtime}; {FIDELITY_MEANING[check.fidelity]}"
    for spec in own.inputs:
        yield f"Input {spec.name}", _input(spec, exporter.picture)
    if own.preprocessing and own.inputs[0].is_picture:
        yield "Before", _before(own.preprocessing)
        yield "Inside", _inside(own.preprocessing)
    for spec in own.outputs:
        yield f"Output {spec.name}", _output(spec, own, exporter.probabilities)
    if own.next_step:
        yield "Device", own.next_step.not_compiled
        if own.next_step.samples:
            yield "Calibration set", f"{own.next_step.samples}, for the vendor's quantizer"
    if own.labels:
        yield "Labels", _labels(own.labels)
    yield "SHA-256", own.sha256


def _verdict(check: Check | None) -> str:
    if check is None:
        return "of an earlier export, not checked in this one: slide-deploy verify checks it"
    advice = "" if check.verdict == "pass" else ": do not ship it, see report.html"
    return f"{VERDICT_WORD[check.verdict]}{advice}"


def _input(spec: TensorSpec, picture: str) -> str:
    if spec.is_picture and picture:
        return f"{picture}, {spec.shape[2]} pixels wide and {spec.shape[1]} high"
    shape = f"{spec.dtype} ({', '.join(map(str, spec.shape))})"
    if spec.is_picture:
        return f"{shape}: batch, rows, columns and channels in RGB; pixels are 0 to 255"
    if spec.value_range:
        return f"{shape}: {spec.value_range[0]} to {spec.value_range[1]}"
    image = len(spec.shape) == 4 and spec.shape[1] == 3
    return f"{shape}{': batch, channels, rows, columns; normalised as in training' * image}"


def _before(way: Preprocessing) -> str:
    """What is left to the application."""
    steps = ["rotate by EXIF"]
    if isinstance(way.resize, tuple):
        steps.append(f"resize to {way.resize[1]} × {way.resize[0]} pixels")
    elif way.resize:
        rounding = "down" if way.rounding == "down" else "to the nearest pixel"
        steps.append(
            f"resize the shortest side to {way.resize} pixels, the other rounded {rounding}"
        )
    if way.resize:
        steps[-1] += f" ({way.interpolation}, as Pillow does, with antialiasing)"
    if way.crop:
        steps.append(f"crop {way.crop[1]} × {way.crop[0]} pixels at the centre")
    return f"the application's part: {'; '.join(steps)}"


def _inside(way: Preprocessing) -> str:
    inverse = 1 / way.scale
    whole = math.isclose(inverse, round(inverse), rel_tol=1e-9)
    scaled = f"pixel / {round(inverse)}" if whole else f"pixel × {way.scale:.6g}"
    mean, std = (", ".join(f"{v:g}" for v in values) for values in (way.mean, way.std))
    return (
        f"the artifact's part: ({scaled} − mean) / standard deviation, mean {mean}, standard "
        f"deviation {std} in {way.colour_order}; do not normalise before"
    )


def _output(spec: TensorSpec, own: Artifact, probabilities: str) -> str:
    shape = f"{spec.dtype} ({', '.join(map(str, spec.shape))})"
    if spec.name == PROBABILITIES and _classifies(own):
        what = probabilities or f"{shape}: the probability of each class"
        return f"{what}; do not apply softmax"
    scores = len(spec.shape) == 2 and (own.labels or spec.name == "logits")
    return f"{shape}{': a score for each class; softmax gives probabilities' if scores else ''}"


def _classifies(own: Artifact) -> bool:
    return own.conclusion is not Conclusion.SCORES


def _labels(labels: tuple[str, ...]) -> str:
    shown = ", ".join(f"{number} {label}" for number, label in enumerate(labels[:FEW_LABELS]))
    rest = len(labels) - FEW_LABELS
    return f"{shown}, and {rest} more, all in manifest.json" if rest > 0 else shown


def _examples(own: Artifact) -> tuple[tuple[str, str], ...]:
    about = (own.path, own.inputs, own.outputs, own.preprocessing, own.labels)
    examples, classifies = registry.exporter(own.target).examples, _classifies(own)
    chosen = examples_for(examples, own.inputs, classifies=classifies)
    made = tuple((example.language, example_code(example, *about)) for example in chosen)
    if own.next_step is None:
        return made
    return (*made, ("Shell, with the vendor's tools", "\n".join(own.next_step.commands)))
