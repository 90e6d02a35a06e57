"""The machine that runs this: its processor, and how much of it is free."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

__all__ = ["available_cores", "load_average", "processor_name", "refused_by_linux_wheels"]


def processor_name() -> str:
    """Architecture and model, such as "x86_64 AMD EPYC 7B13"."""
    try:
        if sys.platform == "darwin":
            asked = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
            model = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
        else:
            lines = Path("/proc/cpuinfo").read_text().splitlines()
            model = next(line.partition(":")[2].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration, subprocess.SubprocessError):
        model = platform.processor()
    return f"{platform.machine()} {model}".strip()


def refused_by_linux_wheels(oldest_glibc: tuple[int, int]) -> str:
    """Why this machine cannot install wheels for Linux on x86-64 with a glibc that is not older;
    empty if it can."""
    machine, (libc, found) = platform.machine(), platform.libc_ver()
    if sys.platform != "linux" or machine not in ("x86_64", "AMD64"):
        return f"it needs Linux on x86-64; this is {sys.platform} on {machine}"
    if libc == "glibc" and tuple(map(int, found.split(".")[:2])) < oldest_glibc:
        return f"it needs glibc {'.'.join(map(str, oldest_glibc))} or newer; this is {found}"
    return ""


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def load_average() -> float:
    """Cores that were busy over the last minute, on average; 0 where the system does not tell."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
