"""Compares the inputs and outputs of an artifact with the reference and the manifest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from slide_deploy.artifacts.manifest import Artifact, SourceRecord
from slide_deploy.errors import ArtifactError
from slide_deploy.packaging.classifier import PROBABILITIES
from slide_deploy.packaging.contents import labels_in
from slide_deploy.protocols import Runtime
from slide_deploy.quantization.catalog import scheme_named
from slide_deploy.quantization.scheme import same_width
from slide_deploy.types import DynamicAxes, TensorSpec, dynamic_axes_of
from slide_deploy.utils.records import to_text
from slide_deploy.verification.runner import RunResult

__all__ = [
    "axes_of",
    "interface_problems",
    "label_problems",
    "manifest_problems",
    "metadata_problems",
    "refuse_other_inputs",
    "refuse_other_outputs",
]

Specs = tuple[TensorSpec, ...]


def axes_of(inputs: Specs, whose: str) -> DynamicAxes:
    """The dynamic axes of these inputs; ArtifactError if none has a batch dimension."""
    axes = dynamic_axes_of(inputs)
    if isinstance(axes.batch, int) and axes.batch < 1:
        raise ArtifactError(f"{whose} has no input with a batch dimension", "export again")
    return axes


def interface_problems(
    result: RunResult, inputs: Specs, outputs: Specs, axes: DynamicAxes
) -> Iterator[str]:
    """Names, shapes and types that differ from the reference."""
    for kind, found, wanted, undecided in (
        ("input", result.inputs, inputs, False),
        ("output", result.output_specs, outputs, axes.any_size),
    ):
        if [spec.name for spec in found] != [spec.name for spec in wanted]:
            names = ", ".join(spec.name for spec in found)
            yield f"{kind}s are named {names}, not {', '.join(spec.name for spec in wanted)}"
            continue
        for have, want in zip(found, wanted, strict=True):
            if not _agree(have, want, undecided=undecided):
                yield (
                    f"{kind} {have.name} is {have.dtype}{list(have.shape)}, "
                    f"not {want.dtype}{list(want.shape)}"
                )


def refuse_other_inputs(found: RunResult, wanted: Specs) -> None:
    """ArtifactError where one of artifact and reference takes a picture, the other a tensor."""
    for have, want in zip(found.inputs, wanted, strict=False):
        if have.is_picture != want.is_picture:
            raise ArtifactError(
                f"input {have.name} is {have.dtype}{list(have.shape)}, not "
                f"{want.dtype}{list(want.shape)}",
                "pass --preprocess as for its export, which a manifest beside it would tell",
            )


def refuse_other_outputs(found: RunResult, wanted: Specs) -> None:
    """ArtifactError where one of artifact and reference gives probabilities, the other scores."""
    have, want = ([spec.name for spec in specs] for specs in (found.output_specs, wanted))
    if have != want and PROBABILITIES in (*have[:1], *want[:1]):
        raise ArtifactError(
            f"outputs are {', '.join(have)}, not {', '.join(want)}",
            "verify with --classifier and --keep-logits as for its export, which a manifest beside "
            "it would tell",
        )


def manifest_problems(record: Artifact, runtime: Runtime, result: RunResult) -> Iterator[str]:
    """Entries of the manifest that contradict the file."""
    if record.target != runtime.target:
        yield f"the manifest says {record.target}, the file is {runtime.target}"
    if not same_width(scheme_named(record.precision).weights, result.weight_type):
        yield f"the manifest says {record.precision}, the file is {result.weight_type}"
    for name in ("preprocessing", "labels", "conclusion"):
        said = getattr(record, name)
        if said and result.metadata.get(name, to_text(said)) != to_text(said):
            yield f"{name}: the manifest and the file differ"
    any_size = dynamic_axes_of(record.inputs).any_size
    for kind, have, said, undecided in (
        ("inputs", result.inputs, record.inputs, False),
        ("outputs", result.output_specs, record.outputs, any_size),
    ):
        if [s.name for s in have] != [s.name for s in said] or not all(
            _agree(*pair, undecided=undecided) for pair in zip(have, said, strict=True)
        ):
            yield f"the {kind} in the manifest differ from those of the file"


def label_problems(result: RunResult, labels: tuple[str, ...]) -> Iterator[str]:
    """The first class that the file names otherwise than the reference, where both name classes."""
    own = labels_in(result.metadata)
    if not labels or not own:
        return
    if len(own) != len(labels):
        yield f"it names {len(own)} classes, not {len(labels)}"
        return
    wrong = [n for n, pair in enumerate(zip(own, labels, strict=True)) if pair[0] != pair[1]]
    if wrong:
        more = f"; so are {len(wrong) - 1} more" if len(wrong) > 1 else ""
        yield f"class {wrong[0]} is named {own[wrong[0]]!r}, not {labels[wrong[0]]!r}{more}"


def metadata_problems(
    metadata: Mapping[str, str], source: SourceRecord, given: str = ""
) -> Iterator[str]:
    """What the file says of its source and its calibration set, where it does, and is not true of
    the reference; `given` is the SHA-256 of the calibration set."""
    calibrated = metadata.get("calibration_sha256", given)
    if given and calibrated != given:
        yield (
            f"its metadata says that it was calibrated on {metadata.get('calibration')} (sha256 "
            f"{calibrated[:12]}…), not on the set that was given ({given[:12]}…)"
        )
    said = SourceRecord(
        metadata.get("source", source.path_name),
        metadata.get("source_sha256", source.sha256),
        metadata.get("weights", source.weights),
    )
    if source.sha256 and not said.same_weights(source):
        yield f"its metadata says that it was exported from {said}, not from {source}"


def _agree(have: TensorSpec, want: TensorSpec, *, undecided: bool) -> bool:
    """Whether both agree; names of free dimensions may differ. With `undecided`, the runtime may
    report a fixed dimension as free, whose size is checked when it runs."""
    return (
        have.dtype == want.dtype
        and len(have.shape) == len(want.shape)
        and all(
            isinstance(size, str)
            if isinstance(wanted, str)
            else size == wanted or (undecided and isinstance(size, str))
            for size, wanted in zip(have.shape, want.shape, strict=True)
        )
    )
