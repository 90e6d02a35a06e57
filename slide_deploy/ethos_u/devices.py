"""The NPUs that Vela compiles for, and the system around each that its estimates stand for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

__all__ = ["DEVICES", "Device", "least_capable"]


@dataclass(frozen=True)
class Device:
    """An accelerator configuration: multiply-adds per cycle, and names in Vela's `Arm/vela.ini`."""

    name: str
    macs: int
    system: str
    memory: str


def _devices() -> Iterator[Device]:
    # The systems and memories that ExecuTorch compiles for if none is given (EthosUCompileSpec).
    for macs in (32, 64, 128, 256):
        yield Device(f"ethos-u55-{macs}", macs, "Ethos_U55_High_End_Embedded", "Shared_Sram")
    for macs in (256, 512):
        yield Device(f"ethos-u65-{macs}", macs, "Ethos_U65_High_End", "Dedicated_Sram_384KB")
    for macs in (128, 256, 512, 1024, 2048):
        yield Device(f"ethos-u85-{macs}", macs, "Ethos_U85_SYS_DRAM_Mid", "Sram_Only")


# Vela's `--accelerator-config`.
DEVICES = {device.name: device for device in _devices()}


def least_capable(devices: Iterable[Device]) -> Device:
    """The device whose TOSA programs all of them run: U85 has every operator of the others."""
    return min(devices, key=lambda device: device.name)
