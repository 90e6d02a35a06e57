"""Names of an artifact's files, and where its libraries can be installed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from slide_deploy.errors import ArtifactError
from slide_deploy.ethos_u.devices import DEVICES, Device
from slide_deploy.protocols import Estimate
from slide_deploy.utils.machine import refused_by_linux_wheels

__all__ = [
    "FOLDER",
    "GRAPH",
    "PACKAGES",
    "Summary",
    "compiled_devices",
    "estimate_of",
    "load_summary",
    "save_summary",
    "tosa_programs",
    "unsupported",
    "versions",
]

FOLDER, GRAPH = "_ethos_u_model", "graph.safetensors"

PACKAGES = ("torch", "executorch", "ethosu", "tosa_reference_model")

OLDEST_GLIBC = (2, 28)

KIB = 1024


@dataclass(frozen=True)
class Summary:
    """Vela's summary of each TOSA program for one device, and the operators that stay on the CPU,
    each with its block."""

    programs: tuple[Mapping[str, str], ...]
    on_cpu: tuple[str, ...]


def save_summary(summary: Summary, path: Path) -> None:
    content = {"vela": [dict(own) for own in summary.programs], "on_cpu": list(summary.on_cpu)}
    path.write_text(f"{json.dumps(content, indent=1)}\n", encoding="utf-8")


def load_summary(path: Path) -> Summary:
    """Read what `save_summary` wrote; ArtifactError where it is something else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        programs = tuple({str(k): str(v) for k, v in own.items()} for own in content["vela"])
        return Summary(programs, tuple(map(str, content["on_cpu"])))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{path.name} holds no estimates", "export it again") from error


def estimate_of(summary: Summary, device: Device, operators: int) -> Estimate:
    """Vela's estimate for a device, of `operators` operators on the NPU; ArtifactError where a
    figure is missing."""

    def total(*names: str) -> float:
        return sum(float(own[name]) for own in summary.programs for name in names)

    try:
        cycles = total("cycles_total")
        clock = float(summary.programs[0]["core_clock"]) if summary.programs else 0.0
        memories = ("dram", "on_chip_flash", "off_chip_flash")
        return Estimate(
            device=device.name,
            tool=f"Vela {versions()['ethos-u-vela']}",
            clock_mhz=clock / 1e6,
            cycles=round(cycles),
            milliseconds=1e3 * cycles / clock if clock else 0.0,
            sram_bytes=round(KIB * total("sram_memory_used")),
            other_bytes=round(KIB * total(*(f"{name}_memory_used" for name in memories))),
            mac_utilisation=100 * total("nn_macs") / (cycles * device.macs) if cycles else 0.0,
            on_npu=operators,
            on_cpu=summary.on_cpu,
        )
    except (KeyError, ValueError) as error:
        raise ArtifactError(
            f"{device.name}.json lacks an estimate of Vela: {error}", "export it again"
        ) from error


def compiled_devices(path: Path) -> list[Device]:
    """The devices that an artifact has a program for; ArtifactError for an unknown one."""
    found = sorted(own.stem for own in path.glob("*.pte"))
    for name in found:
        if name not in DEVICES:
            raise ArtifactError(
                f"{name}.pte is not named after a known device", f"known: {', '.join(DEVICES)}"
            )
    return [DEVICES[name] for name in found]


def tosa_programs(path: Path, count: int) -> Sequence[bytes]:
    """The integer programs of an artifact; ArtifactError unless there are `count`."""
    found = sorted(path.glob("program-*.tosa"), key=lambda own: (len(own.name), own.name))
    wanted = [f"program-{number}.tosa" for number in range(count)]
    if [own.name for own in found] != wanted:
        has = ", ".join(own.name for own in found) or "none"
        raise ArtifactError(
            f"{path.name} must have the TOSA programs {', '.join(wanted)}; it has {has}",
            "export it again",
        )
    return [own.read_bytes() for own in found]


def unsupported() -> str:
    """Why the packages cannot be installed on this machine; empty if they can."""
    return refused_by_linux_wheels(OLDEST_GLIBC)


def versions() -> dict[str, str]:
    """The versions of the compilers and of the reference model, by distribution."""
    from importlib.metadata import version

    return {name: version(name) for name in ("executorch", "ethos-u-vela", "tosa-tools")}
