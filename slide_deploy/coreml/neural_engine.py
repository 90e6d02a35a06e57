"""What is known of Apple's Neural Engine, each fact with its source.

Apple documents neither its operations nor their limits. Facts are ordered by trust: Apple's own
documents and code, plans that Core ML itself made of published models, measurements by others.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "FLEXIBLE",
    "LARGEST",
    "LARGEST_OF_OLD",
    "LIMITS",
    "TYPED",
    "WITH",
    "WITHOUT",
    "Source",
]


@dataclass(frozen=True)
class Source:
    """Who says it, in which words, and where."""

    who: str
    says: str
    url: str


TYPED = Source(
    "Apple",
    "programs in float32 run on GPU and CPU, those in float16 also on the Neural Engine",
    "https://apple.github.io/coremltools/docs-guides/source/typed-execution-example.html",
)
FLEXIBLE = Source(
    "Apple",
    "of shapes in a range, the Neural Engine runs the default one; of enumerated shapes, each",
    "https://developer.apple.com/forums/thread/724930",
)
_TRANSFORMERS = Source(
    "Apple",
    "code that Apple wrote for the Neural Engine uses it (A14, M1 and later)",
    "https://github.com/apple/ml-ane-transformers",
)
_PLAN = Source(
    "Core ML's plan",
    "in published compute plans of WhisperKit models, the Neural Engine can run it",
    "https://huggingface.co/TerminatorPower/whisperkit-coreml",
)
_PLAN_CPU = Source(
    "Core ML's plan",
    "in published compute plans of WhisperKit models, only the CPU can run it",
    "https://huggingface.co/mickekringai/kb-whisper-coreml",
)
_GUIDE = Source(
    "measured by others",
    "native from M1 on",
    "https://ane-guide.readthedocs.io/en/latest/part-1-machine/04-capability-surface.html",
)
_NO_PATH = Source("measured by others", "no engine has it", _GUIDE.url)
_REPORTED = Source(
    "reported by others",
    "known not to run on the Neural Engine",
    "https://github.com/hollance/neural-engine/blob/master/docs/unsupported-layers.md",
)
LIMITS = Source(
    "measured by others",
    "dimensions of at most 16384 up to A15 and 65536 from A16 on; no int32",
    "https://aneforge.readthedocs.io/en/latest/capabilities/",
)
_NO_NUMBERS = Source(
    "Apple",
    "a classifier gives a name and a dictionary, which are no tensors",
    "https://apple.github.io/coremltools/docs-guides/source/classifiers.html",
)

LARGEST_OF_OLD, LARGEST = 16384, 65536

# Operations that it can run, if type and shape allow.
WITH = {
    **dict.fromkeys(
        (
            *("conv_transpose", "linear", "instance_norm", "l2_norm", "avg_pool", "max_pool"),
            *("relu", "sigmoid", "tanh", "scaled_dot_product_attention"),
        ),
        _GUIDE,
    ),
    **dict.fromkeys(
        (
            *("conv", "add", "gelu", "layer_norm", "batch_norm", "reshape", "expand_dims"),
            *("squeeze", "split", "square"),
        ),
        _PLAN,
    ),
    **dict.fromkeys(
        ("matmul", "mul", "sub", "softmax", "transpose", "reduce_mean", "rsqrt", "concat"),
        _TRANSFORMERS,
    ),
}

# Operations that it cannot run.
WITHOUT = {
    **dict.fromkeys(("gather", "gather_nd", "gather_along_axis"), _PLAN_CPU),
    **dict.fromkeys(
        ("scatter", "scatter_nd", "scatter_along_axis", "reduce_prod"),
        _NO_PATH,
    ),
    **dict.fromkeys(("gru", "lstm", "rnn", "custom", "custom_layer"), _REPORTED),
    "classify": _NO_NUMBERS,
}
