"""Quantizes artifacts, with as few parts in float as a given accuracy needs."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from slide_deploy import registry
from slide_deploy.artifacts.manifest import Artifact
from slide_deploy.artifacts.search_cache import load_search, save_search, search_file
from slide_deploy.artifacts.write import quantize_artifact
from slide_deploy.capture import Capture
from slide_deploy.loading.loader import Model
from slide_deploy.parity.cost import precision_costs
from slide_deploy.parity.logarithms import with_logarithms
from slide_deploy.quantization.calibration import CalibrationSet
from slide_deploy.quantization.search import parts_of, search
from slide_deploy.types import Options
from slide_deploy.verification.judge import Progress, Reference
from slide_deploy.verification.runner import read_artifact

__all__ = ["Quantizer"]


@dataclass(frozen=True)
class Quantizer:
    """What the artifacts of a model are quantized with; `programs` is the folder of the float ones
    that they are made from."""

    model: Model
    calibration: CalibrationSet
    programs: Path
    reference: Reference
    progress: Progress

    def write(
        self, program: Artifact, capture: Capture, folder: Path, options: Options
    ) -> Artifact:
        """Quantize the float artifact `program` into `folder`; returns its manifest entry.

        With `options.min_snr`, parts stay in float as a search finds, which is part of the entry.
        """
        products = registry.exporter(program.target).products
        if options.min_snr is None or products is None:
            return self._quantize(program, capture, folder, options, ())
        blocks = self.model.block_names(self.model.module)
        parts = parts_of(products(self.programs / program.path), blocks)

        def quantize(kept: Sequence[str], into: Path) -> Artifact:
            names = [name for part in kept for name in parts[part]]
            return self._quantize(program, capture, into, options, names)

        def measure(kept: tuple[str, ...]) -> float:
            shown = f"{len(kept)} parts" if len(kept) > 1 else kept[0] if kept else "no part"
            self.progress(f"searching for {options.min_snr:g} dB: {shown} in float")
            with tempfile.TemporaryDirectory(prefix="slide-deploy-") as scratch:
                made = Path(scratch, quantize(kept, Path(scratch)).path)
                return self._snr(program.target, made, options)

        cached = search_file(program, self.calibration, list(parts), options)
        found = load_search(cached)
        if found is None:
            found = search(list(parts), measure, options.min_snr)
            save_search(cached, found)
        return replace(quantize(found.kept, folder), search=found)

    def _quantize(
        self,
        program: Artifact,
        capture: Capture,
        folder: Path,
        options: Options,
        kept: Sequence[str],
    ) -> Artifact:
        about = (self.calibration, self.programs, folder, options, frozenset(kept))
        return quantize_artifact(program, capture, *about)

    def _snr(self, target: str, path: Path, options: Options) -> float:
        """The signal-to-noise ratio of the worst output on the calibration set, in dB."""
        expected = self.reference.expect(options.dynamic_axes, options.precision)
        made = read_artifact(target, path, {e.probe: dict(e.inputs) for e in expected}).outputs
        outputs = with_logarithms(made, expected)
        return min(float(cost.snr_db) for cost in precision_costs(expected, outputs, ()))
