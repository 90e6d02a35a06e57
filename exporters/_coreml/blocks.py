"""Records of which block of the model each operation of a Core ML program is part."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

__all__ = ["blocks_of", "record_blocks"]

# What coremltools adds to the name of a node of torch.export.
ENDINGS = ("_cast_fp16", "_to_fp16")

KEY = "blocks"


def blocks_of(program: Any, blocks: Sequence[str]) -> dict[str, str]:
    """The block of each node of a `torch.export.ExportedProgram`, by the node's name; of nodes in
    no block, the empty name."""
    longest_first = sorted(blocks, key=len, reverse=True)
    found = {}
    for node in program.graph.nodes:
        stack = list((node.meta.get("nn_module_stack") or {}).values())
        path = f"{stack[-1][0]}." if stack else ""
        own = (b for start in _starts(path) for b in longest_first if start.startswith(f"{b}."))
        found[node.name] = next(own, "")
    return found


def _starts(path: str) -> Iterator[str]:
    """The path, and the path within the modules that prepare inputs and finish outputs."""
    yield path
    while path.startswith("model."):
        path = path.removeprefix("model.")
        yield path


def record_blocks(spec: Any, blocks: dict[str, str]) -> None:
    """Write the block of each operation into the metadata: runs of [name, number of operations] in
    the order of the program, constants left out."""
    (function,) = spec.mlProgram.functions.values()
    block = function.block_specializations[function.opset]
    runs = [[name, len(list(group))] for name, group in groupby(_named(block.operations, blocks))]
    spec.description.metadata.userDefined[KEY] = json.dumps(runs)


def _named(operations: Any, blocks: dict[str, str]) -> Iterator[str]:
    """The block of each operation; of one that the converter added, that of the one before."""
    before = ""
    for op in operations:
        if op.type == "const" or op.type.startswith("constexpr_"):
            continue
        name = op.outputs[0].name
        for ending in ENDINGS:
            name = name.removesuffix(ending)
        before = blocks.get(name, before)
        yield before
