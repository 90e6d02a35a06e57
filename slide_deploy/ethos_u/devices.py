"""The NPUs that Vela compiles for, and the system around each that its estimates stand for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["DEVICES", "Device"]


@dataclass(frozen=True)
class Device:
    """An accelerator configuration: multiply-adds per cycle, and names in Vela's `Arm/vela.ini`."""

    name: str
    macs: int
    system: str
    memory: str

    @property
    def family(self) -> str:
        """Devices of one family have the same operators; U65 has those of U55, U85 has more."""
        return "u85" if "u85" in self.name else "u55"


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
