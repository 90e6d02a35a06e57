"""Writes docs/mutation.md."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from benchmarks.mutation.analysis import detection_rate, localised
from benchmarks.mutation.outcome import Outcome, Results, Status
from benchmarks.mutation.plan import Plan
from benchmarks.mutation.random_tables import (
    alarm_rows,
    alarm_sentence,
    curve_rows,
    false_alarm_rows,
)
from benchmarks.mutation.sampling import KINDS
from benchmarks.mutation.tables import (
    as_markdown,
    headroom_rows,
    joined_rows,
    kind_rows,
    probe_rows,
    quantized_rows,
    real_rows,
    undetected_rows,
)
from benchmarks.mutation.weights import DESCRIPTIONS
from slide_deploy import toolchain
from slide_deploy.parity.comparison import NOISE_MULTIPLE, POOLED_MULTIPLE, SYSTEMATIC_MULTIPLE

__all__ = ["document", "with_quantized"]

TEXT = """\
# Errors that `verify` detects

Written by `make mutation`; do not edit. Errors of the kinds that converters and people make are put
into artifacts. The artifacts are then verified with the code of `slide-deploy verify`. There is no
manifest, because its hashes would reveal most of the changes: only the outputs count.

    {command}

{date}, {minutes:.0f} minutes on {jobs} processes, sites sampled with seed {seed}; {versions}.

**Detection rate {detection_rate}**: {detected} of {relevant} mutants with an effect were detected;
{equivalent} more have no effect above the noise, {ineffective} have none at all.
**False alarms**: {alarms32} at float32, {alarms16} at float16, of randomly drawn models; {alarms}
in {real} exports of the models below. For mutants with one site, the report names the broken block
in **{named} of {localised}** cases ({share}).

## Mutants

{kinds}
Each cell: detected / equivalent / missed / no effect. Models: {models}.

| mutation | what happens |
| --- | --- |
{explained}

- **file**: the tensor is changed in the artifact's file (for Core ML's GELU, in its program).
  **conversion**: the error is made in the module, which the real converter then exports. This
  includes the few tensors that a converter folded and that are not found in the file.
- **equivalent**: on a thousand random inputs (200 draws each of the probes normal, patchwork,
  impulses, large and tiny, at other seeds) no output changes by more than the model's own float32
  rounding does, max |y32 − y64|. This is measured only for undetected mutants, in float64, on a
  PyTorch module with the same error.
- **no effect**: the error is in the file, but does not change the computation (unused bytes, or
  an attribute that the runtime or converter corrects). The outputs of the broken and the clean
  artifact are identical on the input, of the thousand, on which the broken module differs most.
  These mutants are not counted.
- **not made**: the converter refused the broken model.
- The command `slide-deploy verify` gave the same verdict on {agreed} of {asked} of these mutants:
  for each format, the detected one with the smallest error and the undetected one with the largest.

{undetected}
## Models with unusual weights

The same errors, in tensors only, made in {unusual_models} of the models that are drawn for the
clean exports below:

{unusual}
{unusual_undetected}
## Small changes

One weight is changed by a share of its value, at sites drawn in each kind of layer of the trained
models of all five families, at float32, in the file of one target per site. Each cell: changes
that were detected / changes above the noise, which are those that are not equivalent as above.

{curve}
![detection curve](charts/mutation-curve.svg)

## float16

Errors in float16 artifacts of the trained models. Each constant is compared with that of a float32
export, and the program is judged in float32, so that the rounding noise of float16 hides nothing.

{half}
{half_undetected}
{quantized}
## Clean exports

Models are drawn at random: families, sizes, weights, number of outputs (0, for features, to 100),
dynamic batch, lowering. Each is exported to every target, and must pass. The weights are like those
after training, or are changed in one of these ways:

| weights | |
| --- | --- |
{weights}
| sigmoid | ordinary, and the output is sigmoid(logit − b), b from 2 to 12, as in a detector |

The last columns are the largest error of all artifacts, divided by the gate's limit. Where PyTorch
itself overflows at the precision, an artifact cannot be judged, and fails with that message.

{alarms_table}
float32: {alarms32}.

{alarms16_table}
float16: {alarms16}.

{alarm_list}
## Headroom

A float32 artifact passes if for each output the largest error on every probe is at most
{multiple:g} × the noise floor, the pooled error is at most {pooled:g} × the noise, and the
systematic error is at most {systematic:g} × the noise ([terms](glossary.md)). The noise is defined
in [verdicts](verdicts.md). An output of fewer than 100 values may by chance have
only small rounding errors on a probe. Its noise floor is therefore at least twice the median of the
noise over all probes.

{headroom}
The same for existing models, as worst probe · all probes · systematic:

{real_table}
## Probes

Mutants of all formats that each probe detects. Rows are ordered so that each probe adds as many
detected mutants as possible to the probes above it.

{probes}"""

QUANTIZED_HEADING, NEXT_HEADING = "## Quantized precisions", "## Clean exports"
QUANTIZED_TEXT = """\
{heading}

Errors in the quantized artifacts of the trained models, in one number of a tensor or in one tensor
that stays in floating point. Each cell: detected / made. Errors that leave all outputs on the
calibration set the same are not counted. The numbers themselves reveal the errors, whatever they
do to the outputs ([how](precision.md#verdict)). "–": the artifact has no such number. The last row
is of artifacts without an error, for each model with two calibration sets. Scales in float16 (Core
ML, OpenVINO's `w8`) are rounded, so that a weight half way between two integers, to within this
rounding, may have either. Hexagon's context binaries are compiled again from the broken file, so
that they belong to it, except in the rows of binaries. For Ethos-U, to compile takes minutes. Its
models are therefore small ones, drawn at random, one of each family, and their programs are not
compiled again: the numbers alone are judged, except in the rows of binaries and programs. `make
mutation-ethos-u` writes that column, in an environment of its own.

{table}"""


def quantized_section(outcomes: Sequence[Outcome], earlier: str = "") -> str:
    """Markdown of the mutants of quantized artifacts. Targets that were not run keep their columns
    of the `earlier` section."""
    table = as_markdown(joined_rows(earlier, quantized_rows(outcomes)))
    return QUANTIZED_TEXT.format(heading=QUANTIZED_HEADING, table=table)


def with_quantized(text: str, outcomes: Sequence[Outcome]) -> str:
    """The document with the columns of these targets in the section on quantized artifacts."""
    before, earlier, after = _quantized_part(text)
    return f"{before}{quantized_section(outcomes, earlier)}\n{NEXT_HEADING}{after}"


def _quantized_part(text: str) -> tuple[str, str, str]:
    """What stands before, in and after the section on quantized artifacts."""
    before, _, rest = text.partition(QUANTIZED_HEADING)
    part, _, after = rest.partition(NEXT_HEADING)
    return before, part, after


def document(results: Results, plan: Plan, command: str, seconds: float, earlier: str = "") -> str:
    """Markdown; quantized targets that were not run keep their columns of `earlier`."""
    return TEXT.format(
        command=command,
        date=date.today().isoformat(),
        minutes=seconds / 60,
        jobs=plan.jobs,
        seed=plan.seed,
        versions=", ".join(f"{name} {version}" for name, version in toolchain().items()),
        **_mutant_texts(results, plan),
        **_clean_texts(results),
        curve=as_markdown(curve_rows(results.curve)),
        half=as_markdown(kind_rows(results.half)),
        half_undetected=_undetected(results.half),
        quantized=quantized_section(results.quantized, _quantized_part(earlier)[1]),
        unusual=as_markdown(kind_rows(results.unusual)),
        unusual_models=len({outcome.model for outcome in results.unusual}),
        unusual_undetected=_undetected(results.unusual),
        multiple=NOISE_MULTIPLE,
        pooled=POOLED_MULTIPLE,
        systematic=SYSTEMATIC_MULTIPLE,
        probes=as_markdown(probe_rows(results)),
    )


def _mutant_texts(results: Results, plan: Plan) -> dict[str, object]:
    outcomes = results.outcomes
    count = {status: sum(o.status is status for o in outcomes) for status in Status}
    named, everywhere = localised(outcomes)
    return {
        "detection_rate": f"{detection_rate(outcomes):.2%}",
        "detected": count[Status.DETECTED],
        "relevant": count[Status.DETECTED] + count[Status.MISSED],
        "equivalent": count[Status.EQUIVALENT],
        "ineffective": count[Status.INEFFECTIVE],
        "named": named,
        "localised": everywhere,
        "share": f"{named / everywhere:.1%}" if everywhere else "–",
        "kinds": as_markdown(kind_rows(outcomes)),
        "models": ", ".join(path.stem for path in plan.benches),
        "explained": "\n".join(f"| {kind.name} | {kind.description} |" for kind in KINDS),
        "agreed": sum(check.agrees for check in results.cross_checks),
        "asked": len(results.cross_checks),
        "undetected": _undetected(outcomes),
    }


def _clean_texts(results: Results) -> dict[str, object]:
    full, half = results.clean_at("float32"), results.clean_at("float16")
    failed = false_alarm_rows((*results.clean, *results.real))
    return {
        "alarms": sum(one.false_alarm for one in results.real),
        "real": len(results.real),
        "alarms32": alarm_sentence(full),
        "alarms16": alarm_sentence(half),
        "alarms_table": as_markdown(alarm_rows(full, "float32")),
        "alarms16_table": as_markdown(alarm_rows(half, "float16")),
        "alarm_list": as_markdown(failed) if failed.cells else "",
        "weights": "\n".join(f"| {name} | {text} |" for name, text in DESCRIPTIONS.items()),
        "headroom": as_markdown(headroom_rows(full)),
        "real_table": as_markdown(real_rows(results.real)),
    }


def _undetected(outcomes: Sequence[Outcome]) -> str:
    rows = undetected_rows(outcomes)
    if not rows.cells:
        return ""
    text = "Not detected, with the largest change on the thousand inputs, divided by the noise:\n\n"
    return text + as_markdown(rows)
