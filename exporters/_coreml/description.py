"""What Xcode shows of a Core ML package: author, licence, version, inputs and outputs, preview."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from slide_deploy.errors import UsageError
from slide_deploy.protocols import TargetOption

__all__ = ["OPTIONS", "describe"]

PREVIEW = "com.apple.coreml.model.preview.type"

LONGEST = 2000


def parse_text(value: object) -> str:
    """A text of one line; UsageError for any other."""
    text = str(value).strip()
    if not text or len(text) > LONGEST or not text.isprintable():
        raise UsageError(
            f"{text[:40]!r} is not a text that Xcode can show",
            f"give one line of 1 to {LONGEST} characters",
        )
    return text


OPTIONS = (
    TargetOption("author", "Author of the model, as Xcode shows it.", parse_text, "slide-deploy"),
    TargetOption("license", "Licence of the model, as Xcode shows it.", parse_text, "none"),
    TargetOption(
        "description",
        "Description of the model, as Xcode shows it.",
        parse_text,
        "its name, its family and the version of slide-deploy",
    ),
    TargetOption(
        "version",
        "Version of the model, as Xcode shows it.",
        parse_text,
        "the version of slide-deploy",
    ),
)


def describe(spec: Any, metadata: Mapping[str, str], options: Mapping[str, object]) -> None:
    """Write the description of a package and of its features; `options` has those of `OPTIONS` that
    were given, and `metadata` the rest."""
    own = spec.description.metadata
    own.author = str(options.get("author", "slide-deploy"))
    own.license = str(options.get("license", ""))
    own.shortDescription = str(options.get("description", metadata.get("description", "")))
    own.versionString = str(options.get("version", metadata.get("slide_deploy", "")))
    for key, value in metadata.items():
        own.userDefined[key] = value
    for feature in spec.description.input:
        feature.shortDescription = _input(feature, metadata)
    for feature in spec.description.output:
        feature.shortDescription = _output(feature)
    kinds = {feature.type.WhichOneof("Type") for feature in spec.description.output}
    pictured = [f.type.WhichOneof("Type") for f in spec.description.input] == ["imageType"]
    if pictured and "dictionaryType" in kinds:
        # Apple's page on previews in Xcode lists no parameters for this type.
        own.userDefined[PREVIEW] = "imageClassifier"


def _input(feature: Any, metadata: Mapping[str, str]) -> str:
    if feature.type.WhichOneof("Type") != "imageType":
        return metadata.get("input", str(feature.name))
    size = feature.type.imageType
    return (
        f"Picture in RGB, {size.width} pixels wide and {size.height} high; the model normalises it"
    )


def _output(feature: Any) -> str:
    kind = feature.type.WhichOneof("Type")
    if kind == "stringType":
        return "Name of the most probable class"
    if kind == "dictionaryType":
        return "Probability of each class, by its name"
    shape = list(feature.type.multiArrayType.shape)
    size = "x".join(map(str, shape)) or "any size"
    scores = "; its softmax gives the probabilities of the classes" * (feature.name == "logits")
    return f"{feature.name}, float32 {size}{scores}"
