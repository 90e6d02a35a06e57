"""The preprocessing of a picture to the input of a model, as in its training script."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np

from slide_deploy.errors import MissingLibrary, UnknownName, UsageError
from slide_deploy.packaging.json_file import read_json_object
from slide_deploy.utils.records import rebuild

__all__ = [
    "PRESETS",
    "ColourOrder",
    "InputKind",
    "Interpolation",
    "Layout",
    "Preprocessing",
    "Rounding",
    "fit",
    "load_image",
    "named_preprocessing",
    "normalise",
    "of_training_config",
    "prepare",
    "preset",
    "read_preprocessing",
]

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, in RGB
PRESETS = ("imagenet", "none")


class InputKind(StrEnum):
    """The input of an artifact: the uint8 picture, or the result of `normalise`."""

    IMAGE = "image"
    TENSOR = "tensor"


class Interpolation(StrEnum):
    """Pillow's resampling filters, which it widens if a picture shrinks (anti-aliasing)."""

    NEAREST = "nearest"
    BOX = "box"
    BILINEAR = "bilinear"
    HAMMING = "hamming"
    BICUBIC = "bicubic"
    LANCZOS = "lanczos"


class Rounding(StrEnum):
    """The rounding of the longer side: torchvision rounds down, timm to the nearest pixel."""

    DOWN = "down"
    NEAREST = "nearest"


class ColourOrder(StrEnum):
    """Order of the channels of the model's input."""

    RGB = "RGB"
    BGR = "BGR"


class Layout(StrEnum):
    """Order of the axes of the model's input."""

    NCHW = "NCHW"
    NHWC = "NHWC"


# The valid values of each field in a file.
EXPECTED = {
    "input": '"image" or "tensor"',
    "resize": "the shortest side in pixels, a pair [height, width], or null",
    "interpolation": f"one of {', '.join(Interpolation)}",
    "rounding": '"down" or "nearest"',
    "crop": "a pair [height, width] in pixels, or null",
    "colour_order": '"RGB" or "BGR"',
    "scale": "a positive number, such as 0.00392156862745098 for 1/255",
    "mean": "three numbers, one per channel",
    "std": "three positive numbers, one per channel",
    "layout": '"NCHW" or "NHWC"',
}


@dataclass(frozen=True)
class Preprocessing:
    """Resize, crop at the centre, then (pixel × scale − mean) / std in each channel.

    `resize` is the length in pixels of the shortest side, or an exact (height, width), which may
    change the aspect ratio, or None for no resizing; `crop` is (height, width) or None. `mean` and
    `std` are in the model's `colour_order`. Raises UsageError for invalid values.
    """

    input: InputKind
    resize: int | tuple[int, int] | None
    interpolation: Interpolation
    rounding: Rounding
    crop: tuple[int, int] | None
    colour_order: ColourOrder
    scale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    layout: Layout

    def __post_init__(self) -> None:
        sides = self.resize if isinstance(self.resize, tuple) else (self.resize or 1,)
        wrong = {
            "resize": self.resize == 0 or min(sides) < 1,
            "crop": self.crop is not None and min(self.crop) < 1,
            "scale": not (math.isfinite(self.scale) and self.scale > 0),
            "mean": not all(map(math.isfinite, self.mean)),
            "std": not all(math.isfinite(value) and value > 0 for value in self.std),
        }
        for name in (name for name, is_wrong in wrong.items() if is_wrong):
            raise _unexpected(name, getattr(self, name))


def preset(name: str, size: tuple[int, int]) -> Preprocessing:
    """The preset `name` for a model of `size` (height, width) in pixels.

    `imagenet` is the evaluation of the public Swin and PVT training scripts, on which the
    Slide-Transformers were trained: bicubic to 256/224 of the crop on the shortest side (timm's
    crop_pct 0.875), then the crop. timm evaluates its own Swin weights at crop_pct 0.9, which needs
    a file. `none` changes nothing. Raises UnknownName.
    """
    if name not in PRESETS:
        raise UnknownName("preprocessing", name, PRESETS)
    images = name == "imagenet"
    return Preprocessing(
        input=InputKind.TENSOR,
        resize=_before_crop(max(size)) if images else None,
        interpolation=Interpolation.BICUBIC,
        rounding=Rounding.DOWN,
        crop=size if images else None,
        colour_order=ColourOrder.RGB,
        scale=1 / 255 if images else 1.0,
        mean=MEAN if images else (0.0, 0.0, 0.0),
        std=STD if images else (1.0, 1.0, 1.0),
        layout=Layout.NCHW,
    )


def _before_crop(size: int) -> int:
    return int(256 / 224 * size)  # as the training scripts write it


def of_training_config(
    config: Mapping[str, Any] | None, size: tuple[int, int]
) -> Preprocessing | None:
    """The preprocessing of the public Swin training script in evaluation, or None if `config` has
    none.

    It reads DATA.INTERPOLATION (any name other than bicubic, lanczos or hamming means bilinear) and
    TEST.CROP; `size` is the model's (height, width), which may differ from the DATA.IMG_SIZE of
    training. Sizes up to 32 pixels are not resized.
    """
    data, test = ((config or {}).get(section) for section in ("DATA", "TEST"))
    if not isinstance(data, Mapping) or not isinstance(test, Mapping):
        return None
    if not isinstance(data.get("INTERPOLATION"), str) or not isinstance(test.get("CROP"), bool):
        return None
    known = (Interpolation.BICUBIC, Interpolation.LANCZOS, Interpolation.HAMMING)
    chosen = data["INTERPOLATION"]
    resize = _before_crop(max(size)) if test["CROP"] else size
    base = vars(preset("imagenet", size))
    return Preprocessing(
        **base
        | {
            "interpolation": Interpolation(chosen) if chosen in known else Interpolation.BILINEAR,
            "resize": resize if max(size) > 32 else None,
            "crop": size if test["CROP"] and max(size) > 32 else None,
        }
    )


def named_preprocessing(name: Path | str, size: tuple[int, int]) -> Preprocessing:
    """The preprocessing in a JSON file, or the preset of this name for a model of `size`; raises as
    `read_preprocessing` and `preset` do."""
    if isinstance(name, Path) or name.lower().endswith(".json"):
        return read_preprocessing(Path(name))
    return preset(name, size)


def read_preprocessing(path: Path) -> Preprocessing:
    """Read a JSON object with every field of `Preprocessing`, and no other key.

    Raises UsageError that names the file and the field.
    """
    content = read_json_object(path, "preprocessing")
    names = [field.name for field in fields(Preprocessing)]
    if unknown := sorted(content.keys() - set(names)):
        raise UsageError(f"{path} has an unknown key {unknown[0]!r}", f"keys: {', '.join(names)}")
    if missing := [name for name in names if name not in content]:
        raise UsageError(f"{path} lacks {missing[0]!r}", f"expected {EXPECTED[missing[0]]}")
    hints, values = get_type_hints(Preprocessing), {}
    for name, value in content.items():
        try:
            values[name] = rebuild(hints[name], value)
        except (TypeError, ValueError, KeyError, OverflowError) as error:
            raise _unexpected(name, value, f"{path}: ") from error
    try:
        return Preprocessing(**values)
    except UsageError as error:
        raise UsageError(f"{path}: {error.message}", error.hint) from error


def _unexpected(name: str, value: object, where: str = "") -> UsageError:
    return UsageError(f"{where}{name} is {value!r:.80}", f"expected {EXPECTED[name]}")


def load_image(path: Path) -> np.ndarray:
    """A picture as uint8 (height, width, 3) in RGB, rotated according to its EXIF orientation.

    Grey becomes three equal channels, 16 bits become 8, the background of transparent pixels is
    white. Of an animation the first frame is used; colour profiles are not applied. Raises
    UsageError if the file cannot be read, MissingLibrary without Pillow.
    """
    try:
        from PIL import Image, ImageOps
    except ImportError:
        raise MissingLibrary("reading pictures", ("pillow",), "images") from None
    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file)
            if image.mode.startswith(("I", "F")):
                return _of_deep_grey(np.asarray(image))
            if image.has_transparency_data:
                image = image.convert("RGBA")
                white = Image.new("RGBA", image.size, "white")
                image = Image.alpha_composite(white, image)
            return np.array(image.convert("RGB"))
    except MemoryError:
        raise
    except Exception as error:  # Pillow's decoders also raise syntax, struct and index errors
        raise UsageError(
            f"{path} is not a picture that can be read ({type(error).__name__})",
            "save it again as 8-bit PNG or JPEG, or remove it",
        ) from error


def _of_deep_grey(values: np.ndarray) -> np.ndarray:
    """Convert 16-bit grey levels to 8 bits; ValueError for values without a fixed range."""
    if values.dtype.kind not in "iu" or values.min() < 0 or values.max() > 65535:
        raise ValueError("grey levels beyond 16 bits")
    grey = ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=-1)


def fit(preprocessing: Preprocessing, image: np.ndarray) -> np.ndarray:
    """Resize and crop uint8 (height, width, 3) to the model's size.

    The shortest side and the crop's centre are rounded as in torchvision. Raises UsageError if the
    picture is smaller than the crop.
    """
    image = _resized(preprocessing, image)
    if preprocessing.crop is None:
        return image
    (height, width), (rows, columns) = image.shape[:2], preprocessing.crop
    if height < rows or width < columns:
        raise UsageError(
            f"a picture of {height}x{width} pixels is smaller than the crop {rows}x{columns}",
            "use a larger picture, or a preprocessing that resizes to the crop",
        )
    top, left = round((height - rows) / 2), round((width - columns) / 2)
    return image[top : top + rows, left : left + columns]


def _resized(preprocessing: Preprocessing, image: np.ndarray) -> np.ndarray:
    size = preprocessing.resize
    if size is None:
        return image
    if isinstance(size, int):
        shortest = min(image.shape[:2])
        whole = int if preprocessing.rounding is Rounding.DOWN else round
        size = (whole(size * image.shape[0] / shortest), whole(size * image.shape[1] / shortest))
    try:
        from PIL import Image
    except ImportError:
        raise MissingLibrary("resizing pictures", ("pillow",), "images") from None
    method = Image.Resampling[preprocessing.interpolation.upper()]
    return np.array(Image.fromarray(image).resize((size[1], size[0]), method))


def normalise(
    preprocessing: Preprocessing, pixels: np.ndarray, dtype: type[np.floating[Any]] = np.float64
) -> np.ndarray:
    """uint8 (…, height, width, 3) in RGB → `dtype` in the model's colours, range and layout.

    The arithmetic is in `dtype`; leading axes such as a batch are kept.
    """
    values = pixels[..., ::-1] if preprocessing.colour_order is ColourOrder.BGR else pixels
    mean, std = np.array(preprocessing.mean, dtype), np.array(preprocessing.std, dtype)
    values = (values.astype(dtype) * dtype(preprocessing.scale) - mean) / std
    if preprocessing.layout is Layout.NCHW:
        values = np.moveaxis(values, -1, -3)
    return np.ascontiguousarray(values)


def prepare(
    preprocessing: Preprocessing | None, inputs: Mapping[str, np.ndarray]
) -> Mapping[str, np.ndarray]:
    """Convert an artifact's inputs to those of its model: uint8 pictures are normalised in float64,
    if the preprocessing is part of the artifact; other inputs are not changed."""
    if preprocessing is None or preprocessing.input is InputKind.TENSOR:
        return inputs
    return {
        name: normalise(preprocessing, value) if value.dtype == np.uint8 else value
        for name, value in inputs.items()
    }
