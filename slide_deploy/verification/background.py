"""Threads in which artifacts are verified while others are still converted."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event
from typing import Any

from slide_deploy.verification.judge import Progress
from slide_deploy.verification.runner import stop_runners

__all__ = ["background"]

Submit = Callable[..., Future[Any]]


@contextmanager
def background(progress: Progress) -> Iterator[tuple[Submit, Progress]]:
    """`submit`, which runs a function in one of two threads, and the progress for what runs there.

    All of it is done at the end. On an error in this thread, a signal too, it is ended at its next
    step instead, and the processes that run artifacts are ended at once.
    """
    futures: list[Future[Any]] = []
    ended = Event()

    def submit(function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        futures.append(pool.submit(function, *arguments))
        return futures[-1]

    def step(text: str) -> None:
        if ended.is_set():
            raise CancelledError
        progress(text)

    with ThreadPoolExecutor(max_workers=2) as pool:
        try:
            yield submit, step
            for future in futures:
                future.exception()  # waits; whoever asks for the result gets it
        except BaseException:
            ended.set()
            pool.shutdown(wait=False, cancel_futures=True)
            while not all(future.done() for future in futures):
                stop_runners()  # again and again: a thread may be about to start one
                time.sleep(0.05)
            raise
