"""Makes the artifacts of a manifest again, and compares them with the earlier ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from slide_deploy.artifacts.manifest import FILE_NAME, Artifact, Manifest, find_manifest
from slide_deploy.artifacts.prepare import contents_of
from slide_deploy.errors import ArtifactError, UsageError
from slide_deploy.evaluation.dataset import DIGITS
from slide_deploy.loading.loader import Model
from slide_deploy.packaging.pictures import for_pictures
from slide_deploy.pipeline.groups import Group, joined
from slide_deploy.pipeline.reference import calibration_set
from slide_deploy.quantization.calibration import SYNTHETIC
from slide_deploy.report.formats import save_reports
from slide_deploy.types import Loading, Options
from slide_deploy.utils.files import checkpoint_at
from slide_deploy.utils.hashing import sha256_of
from slide_deploy.utils.staging import staged_folder
from slide_deploy.verification.likeness import compared_artifacts
from slide_deploy.verification.record import Report
from slide_deploy.verification.replay import Replay, version_changes

__all__ = ["Recorded", "groups_of", "read_recorded", "with_replay"]


@dataclass(frozen=True)
class Recorded:
    """A manifest that was read before anything is written, with its folder and its hash."""

    folder: Path
    manifest: Manifest
    sha256: str

    def find(self, name: str) -> Path | None:
        """A file of this name in the folder of the manifest, beside it, or in the working one."""
        places = (self.folder, self.folder.resolve().parent, Path())
        return next((place / name for place in places if (place / name).exists()), None)


def read_recorded(path: Path) -> Recorded:
    """The manifest at `path`, or in the folder `path`.

    Raises UsageError where there is none, or where an artifact's settings are not recorded, and
    ArtifactError where its content is not valid.
    """
    path = path / FILE_NAME if path.is_dir() else path
    manifest = find_manifest(path.parent) if path.name == FILE_NAME else None
    if manifest is None:
        raise UsageError(f"{path} is no manifest", f"name the {FILE_NAME} of an export")
    if not manifest.artifacts:
        raise UsageError(f"{path} names no artifacts", "export again")
    for artifact in manifest.artifacts:
        if artifact.path != Path(artifact.path).name:
            raise ArtifactError(f"{path} has the path {artifact.path!r:.60}", "export again")
        if artifact.recipe is None:
            raise UsageError(
                f"{path} does not record how {artifact.path} was exported: it is of an earlier "
                "version of slide-deploy, or of a module in memory",
                "export it again with its options",
            )
    return Recorded(path.parent, manifest, sha256_of(path))


def groups_of(
    recorded: Recorded,
    checkpoint: Path | None,
    calibration: Path | str | None,
    load: Callable[[Path, Loading], Model],
) -> tuple[Group, ...]:
    """What to export: artifacts of the same settings together.

    Without `checkpoint` and `calibration`, files of the recorded names are looked for as
    `Recorded.find` does. Raises UsageError where they are missing or not those of the manifest.
    """
    path = _checkpoint(recorded, checkpoint)
    loaded = cache(partial(_loaded, recorded, partial(load, path)))
    models: dict[tuple[object, ...], Model] = {}
    groups: list[Group] = []
    for artifact in recorded.manifest.artifacts:
        assert artifact.recipe is not None  # read_recorded has looked
        model = loaded(artifact.recipe.loading)
        contents = {name: getattr(artifact, name) for name in contents_of(model)}
        made = (artifact.recipe.loading, *contents.values())
        model = models[made] = models.get(made) or _packaged(model, contents)
        samples = _samples(recorded, artifact, model, calibration)
        options = _options(artifact, samples, _data(recorded, artifact))
        groups.append(Group(model, (artifact.target,), options))
    return joined(groups)


def _options(
    artifact: Artifact, calibration: Path | str | None, data: Path | str | None
) -> Options:
    recipe = artifact.recipe
    assert recipe is not None
    common = Options(
        precision=artifact.precision,
        batch=recipe.batch,
        dynamic=recipe.dynamic,
        dynamic_size=recipe.dynamic_size,
        lowering=recipe.lowering,
        calibration=calibration,
        min_snr=recipe.min_snr,
        smooth=recipe.smooth,
        data=data,
        max_drop=recipe.max_drop,
        lowered={artifact.target: artifact.lowering},
        profile=artifact.next_step.profile if artifact.next_step else "",
    )
    return common.with_target_options(recipe.options)


def _data(recorded: Recorded, artifact: Artifact) -> Path | str | None:
    """The labelled images of an artifact; UsageError where they are not there."""
    named = artifact.recipe.data if artifact.recipe else ""
    if named in ("", DIGITS):
        return named or None
    if (path := recorded.find(Path(named).name)) is None:
        raise UsageError(
            f"the labelled images {named} of {artifact.path} are not in the manifest's folder, "
            "beside it or in the working folder",
            "copy them there, or export again without --from",
        )
    return path


def _checkpoint(recorded: Recorded, given: Path | None) -> Path:
    source = recorded.manifest.source
    path = given or recorded.find(source.path_name)
    if path is None:
        raise UsageError(
            f"the checkpoint {source.path_name} is not in the manifest's folder, beside it or in "
            "the working folder",
            f"name it: export --from {recorded.folder / FILE_NAME} MODEL",
        )
    if (found := sha256_of(checkpoint_at(path))) != source.sha256:
        raise UsageError(
            f"{path} is not the checkpoint of the manifest: its SHA-256 is {found[:12]}…, "
            f"recorded was {source.sha256[:12]}…",
            "name the file that the artifacts were exported from, or export without --from",
        )
    return path


def _loaded(recorded: Recorded, load: Callable[[Loading], Model], loading: Loading) -> Model:
    """The model with the name of the earlier export."""
    model = load(loading)
    name, source = str(recorded.manifest.model.get("name", "")), recorded.manifest.source
    if not name or name != Path(name).name or name in (".", ".."):
        raise ArtifactError(f"the manifest's model has the name {name!r:.60}", "export again")
    if model.source.weights != source.weights:
        raise UsageError(
            f"the checkpoint gives {model.source.weights} weights, recorded were {source.weights}",
            "export again without --from",
        )
    return replace(model, name=name, source=replace(model.source, path_name=source.path_name))


def _packaged(model: Model, contents: Mapping[str, Any]) -> Model:
    """The model whose artifacts have these contents beside it, which are recorded by the names of
    its fields."""
    if (labels := contents["labels"]) and [s.shape[1:] for s in model.outputs] != [(len(labels),)]:
        raise ArtifactError(
            f"the manifest has {len(labels)} labels, which do not match the outputs of "
            f"{model.name}",
            "export again",
        )
    if contents["preprocessing"] is not None:
        for_pictures(contents["preprocessing"], model.inputs)  # raises where it does not fit
    return replace(model, **{name: value for name, value in contents.items() if value})


def _samples(
    recorded: Recorded, artifact: Artifact, model: Model, given: Path | str | None
) -> Path | str | None:
    """The calibration set of a quantized artifact, or of one that a vendor's tools quantize;
    UsageError where it is another one."""
    about = artifact if artifact.calibration_sha256 else artifact.next_step
    if about is None or not about.calibration_sha256:
        return None
    name = Path(about.calibration).name
    path = given or (SYNTHETIC if name == SYNTHETIC else recorded.find(name))
    if path is None:
        raise UsageError(
            f"the calibration set {name} of {artifact.path} is not in the manifest's folder, "
            "beside it or in the working folder",
            "pass --calibration with its place",
        )
    samples = calibration_set(model, path)
    if samples is None or samples.sha256 != about.calibration_sha256:
        raise UsageError(
            f"calibration set {path} is not that of {artifact.path}: its samples have another "
            "SHA-256",
            "pass --calibration with the set that the artifact was exported with",
        )
    return path


def with_replay(report: Report, recorded: Recorded, output: Path) -> Report:
    """The report with the comparison, also in the files of the folder `output`."""
    new = find_manifest(output)
    now = new.toolchain if new else report.toolchain
    replay = Replay(
        manifest_sha256=recorded.sha256,
        artifacts=compared_artifacts(recorded.folder, recorded.manifest, output, new),
        versions=version_changes(recorded.manifest.toolchain, now),
    )
    report = replace(report, replay=replay)
    with staged_folder(output) as scratch:
        save_reports(report, scratch, new)
    return report
