"""The best classes that an artifact gives to each image, run in chunks that are kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import platformdirs

from slide_deploy.errors import UsageError
from slide_deploy.evaluation.dataset import Dataset
from slide_deploy.types import TensorSpec, silent
from slide_deploy.utils.hashing import sha256_of
from slide_deploy.utils.machine import available_cores
from slide_deploy.utils.staging import staged
from slide_deploy.verification.runner import RunResult, read_artifact

__all__ = ["CHUNK", "Run", "best_classes", "rank_by", "scores_by"]

CHUNK = 64
BEST = 5

Run = Callable[[Mapping[str, Mapping[str, np.ndarray]]], Mapping[str, Mapping[str, np.ndarray]]]


def best_classes(
    target: str,
    path: Path,
    about: RunResult,
    data: Dataset,
    progress: Callable[[str], None] = silent,
) -> np.ndarray:
    """The five best classes of each image, (N, 5), by the artifact in its own runtime.

    Each chunk of images runs in a fresh process, as many at once as there are cores, and is kept
    in the cache folder of the user: an evaluation that was interrupted goes on from there.
    """

    def run(
        feeds: Mapping[str, Mapping[str, np.ndarray]],
    ) -> Mapping[str, Mapping[str, np.ndarray]]:
        return read_artifact(target, path, feeds).outputs

    key = f"{sha256_of(path)[:16]}-{data.sha256[:16]}"
    cache = Path(platformdirs.user_cache_dir("slide-deploy"), "evaluations", key)
    chunks = [range(n, min(n + CHUNK, data.count)) for n in range(0, data.count, CHUNK)]
    one = partial(_kept_chunk, cache, run, about.inputs[0], about.output_specs[0], data)
    found = []
    with ThreadPoolExecutor(available_cores()) as pool:
        for number, ranks in enumerate(pool.map(one, chunks), 1):
            found.append(ranks)
            done = min(number * CHUNK, data.count)
            progress(f"evaluating {path.name}: {done} of {data.count} images")
    return np.concatenate(found)


def scores_by(
    run: Run,
    spec: TensorSpec,
    output: TensorSpec,
    image: Callable[[int], np.ndarray],
    places: Sequence[int],
) -> np.ndarray:
    """The scores (N, classes) of the images at these places by `run`, which maps inputs to outputs
    by any name, in batches of the artifact's size; UsageError for another output than scores."""
    size = spec.shape[0] if isinstance(spec.shape[0], int) else 1
    batches = enumerate(_batches(image, places, size))
    feeds = {str(number): {spec.name: batch} for number, batch in batches}
    outputs = run(feeds)
    scores = np.concatenate([outputs[name][output.name] for name in feeds])[: len(places)]
    if scores.ndim != 2:
        raise UsageError(
            f"output {output.name} is of shape {scores.shape}, not scores of classes",
            "use the artifact of a classifier",
        )
    return scores


def rank_by(
    run: Run, spec: TensorSpec, output: TensorSpec, data: Dataset, images: range
) -> np.ndarray:
    """The best classes of these images by `run`, as `scores_by` runs it."""
    scores = scores_by(run, spec, output, data.image, images)
    best = np.argsort(-scores, axis=1, kind="stable")[:, :BEST]
    # Models with fewer classes have fewer best ones.
    return np.pad(best, ((0, 0), (0, BEST - best.shape[1])), constant_values=-1)


def _kept_chunk(
    cache: Path, run: Run, spec: TensorSpec, output: TensorSpec, data: Dataset, images: range
) -> np.ndarray:
    file = cache / f"{images.start}-{images.stop}.npy"
    with suppress(OSError, ValueError, EOFError):
        kept = np.load(file, allow_pickle=False)
        if kept.shape == (len(images), BEST):
            return np.asarray(kept)
    found = rank_by(run, spec, output, data, images)
    with staged(file) as scratch, scratch.open("wb") as opened:
        np.save(opened, found)
    return found


def _batches(
    image: Callable[[int], np.ndarray], places: Sequence[int], size: int
) -> Iterator[np.ndarray]:
    """Images in batches of `size`; the first one fills the last batch."""
    for start in range(0, len(places), size):
        own = list(places[start : start + size])
        own += [places[0]] * (size - len(own))
        yield np.stack([image(place) for place in own])
