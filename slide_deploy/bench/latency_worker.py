"""A process that loads one artifact and measures its latency on request.

Run as `python -m slide_deploy.bench.latency_worker TARGET ARTIFACT THREADS BATCH`. It prints a JSON
line about the artifact; then each line "N" on its input is answered by a JSON list of N latencies
in milliseconds, and "end" by its peak memory in bytes.
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path

__all__ = ["main"]

PAUSE_SECONDS = 0.1


def main() -> None:
    target, artifact, threads, batch = sys.argv[1:]
    # Some vendors' libraries print to the standard output, which is for the parent process.
    sys.stdout = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    # Read by BLAS and OpenMP when they load, so before anything imports them.
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), threads)
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    import numpy as np

    from slide_deploy import registry
    from slide_deploy.errors import ArtifactError

    try:
        session = registry.runtime(target).open(Path(artifact), threads=int(threads))
    except Exception as error:  # of a vendor's loader, reported to the parent process
        hint = error.hint if isinstance(error, ArtifactError) else ""
        _say({"problem": f"{Path(artifact).name} cannot be loaded: {error}", "hint": hint})
        return
    generator = np.random.default_rng(0)
    feeds = {
        spec.name: generator.standard_normal(
            [
                size if isinstance(size, int) else 1 if axis else int(batch)
                for axis, size in enumerate(spec.shape)
            ]
        ).astype(spec.dtype)
        for spec in session.inputs
    }
    size = next(iter(feeds.values())).shape[0]
    estimates = [asdict(own) for own in session.estimates]
    about = {"runtime": session.runtime, "precision": session.precision, "batch": size}
    _say(about | {"estimates": estimates})
    for line in sys.stdin:
        if line.strip() == "end":
            break
        latencies = []
        # Threads of the previous process may still spin, and the caches contain its data.
        time.sleep(PAUSE_SECONDS)
        session.run(feeds)
        for _ in range(int(line)):
            begin = time.perf_counter()
            session.run(feeds)
            latencies.append(1e3 * (time.perf_counter() - begin))
        _say(latencies)
    _say(_peak_memory())


def _peak_memory() -> int | None:
    """Largest resident size of this process in bytes, if the system provides it."""
    status = Path("/proc/self/status")
    if status.exists():
        # Not getrusage, which on Linux starts at the size of the parent process.
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    if sys.platform == "win32":
        return None
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _say(content: object) -> None:
    print(json.dumps(content), flush=True)


if __name__ == "__main__":
    main()
