"""Profiles: what an export for a kind of device should look like, and why."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from slide_deploy.errors import UnknownName
from slide_deploy.types import Precision

__all__ = ["PROFILES", "Choice", "Profile", "VendorTools", "profile_named", "takes_samples"]


@dataclass(frozen=True)
class Choice:
    """A value of one option of `export`, and the reason for it."""

    value: str
    reason: str


@dataclass(frozen=True)
class VendorTools:
    """Shell commands that compile an artifact where the vendor's tools are, as templates with the
    artifact's `$path`, its `$stem` and, of OpenVINO, `$xml`. `with_samples` replace them where
    there is a calibration set, whose samples are in the folder `$samples`, which `$list` lists;
    they are empty where the tools take none."""

    commands: tuple[str, ...]
    with_samples: tuple[str, ...] = ()


@dataclass(frozen=True)
class Profile:
    """The choices for one kind of device. `batch` is "1", or "any"; `not_run` says what a verdict
    does not include. `tools` compile the artifact of a profile that cannot be compiled here."""

    name: str
    title: str
    target: Choice
    precision: Choice
    preprocess: Choice
    batch: Choice
    opset: Choice | None = None
    tools: VendorTools | None = None
    not_run: str = ""

    def lines(self, without: Collection[str] = ()) -> tuple[str, ...]:
        """One line for each choice, those named in `without` left out, and one for what is not
        run."""
        choices = {
            "target": self.target,
            "precision": self.precision,
            "preprocess": self.preprocess,
            "batch": self.batch,
            **({"opset": self.opset} if self.opset else {}),
        }
        kept = {key: choice for key, choice in choices.items() if key not in without}
        told = [f"{key} {choice.value}: {choice.reason}" for key, choice in kept.items()]
        told += [self.not_run] if self.not_run else []
        return tuple(f"{self.name}: {line}" for line in told)


PICTURE = Choice("auto", "the application passes pixels, and cannot normalise them wrongly")
ONE = Choice("1", "the application classifies one picture at a time")
STATIC = Choice("1", "the NPU's compiler needs fixed shapes")
TENSOR = Choice("none", "the NPU takes the normalised tensor")
ANY = Choice("any", "a server batches what arrives together")

# Commands of vendors. AMD's compiler runs when onnxruntime loads the file.
RKNN_SETUP = "python3 -m venv rknn && rknn/bin/pip install rknn-toolkit2"
RKNN = "rknn/bin/python -m rknn.api.rknn_convert -t rk3588 -i $path -o ."
VITIS = (
    'python -c "import sys, onnxruntime; onnxruntime.InferenceSession(sys.argv[1], '
    "providers=['VitisAIExecutionProvider'])\" $file"
)
QUARK = (
    'python -c "import sys; from quark.onnx import ModelQuantizer, QConfig; '
    "ModelQuantizer(QConfig.get_default_config('XINT8')).quantize_model(*sys.argv[1:3], "
    'calibration_data_path=sys.argv[3])" $path ${stem}_int8.onnx $samples'
)

PROFILES = (
    Profile(
        "iphone",
        "iPhones and iPads with a Neural Engine",
        Choice("coreml", "Xcode and Core ML load packages of this format"),
        Choice(Precision.FLOAT16, "the Neural Engine computes in float16"),
        PICTURE,
        ONE,
        not_run="no device was used: the program was run as its format is documented",
    ),
    Profile(
        "android",
        "Android applications with onnxruntime-mobile",
        Choice("onnx", "onnxruntime's package for Android loads it"),
        Choice(Precision.FLOAT32, "the CPU kernels compute in it; w8a8 needs --calibration"),
        PICTURE,
        ONE,
        not_run="no device was used: onnxruntime ran on this machine",
    ),
    Profile(
        "browser",
        "Web pages with onnxruntime-web",
        Choice("onnx", "onnxruntime-web loads it"),
        Choice(Precision.FLOAT32, "WebAssembly has no float16 arithmetic"),
        PICTURE,
        ONE,
        not_run="no browser was used: onnxruntime ran on this machine",
    ),
    Profile(
        "server",
        "Servers with onnxruntime",
        Choice("onnx", "inference servers load it"),
        Choice(Precision.FLOAT32, "the CPU kernels compute in it"),
        PICTURE,
        ANY,
    ),
    Profile(
        "intel-npu",
        "Intel NPUs with OpenVINO",
        Choice("openvino", "the NPU plugin of OpenVINO loads it"),
        Choice(Precision.FLOAT16, "the NPU computes in float16"),
        TENSOR,
        STATIC,
        tools=VendorTools(("benchmark_app -m $xml -d NPU",)),
        not_run="not compiled here: the NPU's compiler comes with Intel's driver; OpenVINO's CPU "
        "plugin ran the model",
    ),
    Profile(
        "rknn",
        "Rockchip's NPUs",
        Choice("onnx", "rknn-toolkit2 reads it"),
        Choice(Precision.FLOAT32, "rknn-toolkit2 quantizes it with the samples of --calibration"),
        TENSOR,
        STATIC,
        opset=Choice("19", "rknn-toolkit2 reads no later one"),
        tools=VendorTools(
            (RKNN_SETUP, RKNN),
            (RKNN_SETUP, f"{RKNN} -do_Quant $list"),
        ),
        not_run="not compiled here: rknn-toolkit2 needs an environment of its own; onnxruntime ran "
        "the file",
    ),
    Profile(
        "vitis",
        "AMD's NPUs: Ryzen AI and Versal, with Vitis AI",
        Choice("onnx", "the Vitis AI provider of onnxruntime reads it"),
        Choice(Precision.FLOAT32, "the compiler makes bfloat16 of it, AMD Quark 8 bits"),
        TENSOR,
        STATIC,
        opset=Choice("17", "AMD recommends it"),
        tools=VendorTools(
            (VITIS.replace("$file", "$path"),),
            (QUARK, VITIS.replace("$file", "${stem}_int8.onnx")),
        ),
        not_run="not compiled here: the compiler comes with AMD's Ryzen AI and Vitis AI software; "
        "onnxruntime ran the file on the CPU",
    ),
    Profile(
        "qualcomm",
        "Qualcomm's Hexagon NPUs",
        Choice("qnn", "onnxruntime on the device loads its context binaries"),
        Choice(Precision.W8A16, "Hexagon computes with integers"),
        TENSOR,
        STATIC,
        not_run="no device was used: Qualcomm's simulator ran the context binary",
    ),
    Profile(
        "ethos-u",
        "Arm's Ethos-U NPUs",
        Choice("ethos-u", "ExecuTorch on the device loads its programs"),
        Choice(Precision.W8A8, "Ethos-U computes with 8-bit integers"),
        TENSOR,
        STATIC,
        not_run="no device was used: Arm's reference model ran the integer program",
    ),
)


def takes_samples(name: str) -> bool:
    """Whether the vendor's tools of this profile take the samples of a calibration set."""
    tools = profile_named(name).tools if name else None
    return tools is not None and bool(tools.with_samples)


def profile_named(name: str) -> Profile:
    """The profile; UnknownName if there is none."""
    found = {profile.name: profile for profile in PROFILES}.get(name.lower())
    if found is None:
        raise UnknownName("profile", name, [profile.name for profile in PROFILES])
    return found
