"""Share the processor between a converter and the reference."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["sharing_cores"]


@contextmanager
def sharing_cores() -> Iterator[None]:
    """Let the reference run beside converters, which hold Python's lock for seconds.

    It asks for the lock at each of a thousand small operators: waiting the usual 5 ms for each
    made it four times as slow, and so did a second torch thread without a core of its own.
    """
    import torch

    threads, interval = torch.get_num_threads(), sys.getswitchinterval()
    torch.set_num_threads(max(1, threads // 2))
    sys.setswitchinterval(1e-4)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        sys.setswitchinterval(interval)
