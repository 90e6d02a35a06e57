"""Reads ExecuTorch's programs (.pte), and runs them without an NPU: what the device's commands
would compute is computed by the TOSA reference model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from slide_deploy.errors import ArtifactError
from slide_deploy.ethos_u.tosa import input_count, run_tosa

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Delegate", "Program", "read_program", "run_program"]


# What ExecuTorch makes of a view: it moves nothing.
VIEW = "executorch_prim::et_view"


@dataclass(frozen=True)
class Delegate:
    """Commands for an NPU, with the options that they were compiled with."""

    backend: str
    content: bytes
    options: Mapping[str, bytes]


@dataclass(frozen=True)
class Program:
    """A .pte: its delegates, the kernels that stay on the CPU by name, and the plan around both."""

    delegates: tuple[Delegate, ...]
    kernels: tuple[str, ...]
    plan: Any = field(repr=False)
    constants: tuple[bytes, ...] = field(repr=False)

    @property
    def around(self) -> str:
        """What the CPU does, as text: values, kernels and calls of delegates in their order."""
        plan = self.plan
        calls = [chain.instructions for chain in plan.chains]
        return repr((plan.values, plan.inputs, plan.outputs, plan.operators, calls, self.constants))


def read_program(path: Path) -> Program:
    """Read a .pte; ArtifactError where it is none."""
    from executorch.exir._serialize._program import deserialize_pte_binary
    from executorch.exir.schema import KernelCall

    try:
        program = deserialize_pte_binary(path.read_bytes()).program
        [plan] = program.execution_plan
        data = [blob.data for blob in program.backend_delegate_data]
        delegates = tuple(
            Delegate(
                d.id, bytes(data[d.processed.index]), {s.key: s.value for s in d.compile_specs}
            )
            for d in plan.delegates
        )
    except Exception as error:  # the reader raises many kinds
        raise ArtifactError(
            f"{path.name} cannot be read: {type(error).__name__}: {str(error)[:100]}",
            "export it again",
        ) from error
    calls = [step.instr_args for chain in plan.chains for step in chain.instructions]
    operators = [plan.operators[c.op_index] for c in calls if isinstance(c, KernelCall)]
    constants = tuple(bytes(buffer.storage) for buffer in program.constant_buffer)
    kernels = tuple(operator.name for operator in operators if operator.name != VIEW)
    return Program(delegates, kernels, plan, constants)


def run_program(
    program: Program, tosa: Sequence[bytes], inputs: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """The outputs, where the TOSA program with the number of a delegate stands for it."""
    import torch
    from executorch.exir.schema import DelegateCall, FreeCall, KernelCall

    plan, values = program.plan, _values(program)
    for index, array in zip(plan.inputs, inputs, strict=True):
        values[index] = torch.from_numpy(np.ascontiguousarray(array))
    for step in (step for chain in plan.chains for step in chain.instructions):
        call = step.instr_args
        if isinstance(call, KernelCall):
            operator = plan.operators[call.op_index]
            _run_kernel(operator.name, operator.overload, call.args, values)
        elif isinstance(call, DelegateCall):
            _run_delegate(tosa[call.delegate_index], call.args, values)
        elif not isinstance(call, FreeCall):
            raise ArtifactError(
                f"the program has an instruction {type(call).__name__}", "export it again"
            )
    return [values[index].numpy() for index in plan.outputs]


def _values(program: Program) -> list[Any]:
    from executorch.exir import schema

    found: list[Any] = []
    for value in (entry.val for entry in program.plan.values):
        match value:
            case schema.Tensor():
                found.append(_tensor(value, program.constants))
            case schema.IntList() | schema.OptionalTensorList() | schema.TensorList():
                found.append(value)  # of indices of values
            case schema.DoubleList() | schema.BoolList():
                found.append(list(value.items))
            case schema.Double():
                found.append(float(value.double_val))
            case schema.Null():
                found.append(None)
            case _:
                [single] = vars(value).values()
                found.append(single)
    return found


def _tensor(spec: Any, constants: Sequence[bytes]) -> Tensor:
    import torch

    dtype = _dtypes()[int(spec.scalar_type)]
    if spec.allocation_info is not None or spec.data_buffer_idx == 0:
        return torch.zeros(spec.sizes, dtype=dtype)
    size = int(np.prod(spec.sizes)) * dtype.itemsize
    content = bytearray(constants[spec.data_buffer_idx][:size])
    return torch.frombuffer(content, dtype=dtype).reshape(spec.sizes)


def _dtypes() -> dict[int, Any]:
    """Number types by ExecuTorch's number."""
    import torch

    names = ("uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64")
    return {number: getattr(torch, name) for number, name in enumerate(names)} | {11: torch.bool}


def _run_kernel(name: str, overload: str, places: Sequence[int], values: list[Any]) -> None:
    """Run a kernel that writes into its last argument by PyTorch's operator of the same name."""
    import torch
    import torchao.quantization.pt2e  # noqa: F401  # registers quantized_decomposed
    from executorch.exir import schema

    namespace, _, packet = name.partition("::")
    if name == VIEW:
        values[places[-1]] = values[places[0]].reshape(values[places[-1]].shape)
        return
    wanted = "default" if overload == "out" else overload.removesuffix("_out")
    operator = getattr(getattr(getattr(torch.ops, namespace), packet), wanted)
    given: list[Any] = []
    for argument, place in zip(operator._schema.arguments, places, strict=False):
        value = values[place]
        if isinstance(value, schema.IntList | schema.TensorList | schema.OptionalTensorList):
            value = [values[index] for index in value.items]
        is_type = "ScalarType" in str(argument.real_type) and value is not None
        given.append(_dtypes()[value] if is_type else value)
    arguments = operator._schema.arguments
    by_name = {a.name: v for a, v in zip(arguments, given, strict=True) if a.kwarg_only}
    by_place = [v for a, v in zip(arguments, given, strict=True) if not a.kwarg_only]
    values[places[-1]] = operator(*by_place, **by_name)


def _run_delegate(tosa: bytes, places: Sequence[int], values: list[Any]) -> None:
    """Inputs come first, then outputs."""
    import torch

    count = input_count(tosa)
    taken, given = places[:count], places[count:]
    outputs = run_tosa(tosa, [values[index].numpy() for index in taken])
    for index, array in zip(given, outputs, strict=True):
        values[index] = torch.from_numpy(array).reshape(values[index].shape)
