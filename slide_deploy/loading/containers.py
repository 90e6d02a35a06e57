"""Where in a checkpoint the weights are: containers by name, nested ones, wrappers' prefixes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from slide_deploy.errors import CheckpointError
from slide_deploy.utils.text import cut, key_count

__all__ = [
    "EMA",
    "MODEL",
    "State",
    "is_averaged",
    "plain",
    "state_paths",
    "states_in",
    "unwrapped",
    "value_at",
    "without_counters",
]

State = dict[str, Tensor]

EMA, MODEL = "ema", "model"

# The first that is there counts.
_CONTAINERS = {
    "state_dict_ema": EMA,
    "model_ema": EMA,
    "ema": EMA,
    "ema_state_dict": EMA,
    "model": MODEL,
    "state_dict": MODEL,
    "model_state_dict": MODEL,
    "module": MODEL,
}
_DEEPEST = 4
_WRAPPERS = ("module.", "_orig_mod.")
# Numbers that thop's profiler, averaging and training hooks leave among the weights.
_COUNTERS = ("total_ops", "total_params", "n_averaged", "steps")


def plain(content: Any) -> Any:
    """Every mapping in `content` as a dict, shared and circular ones included.

    Raises CheckpointError where a file sets attributes on a mapping: they could shadow methods.
    """
    done: dict[int, dict[Any, Any]] = {}

    def of(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        if id(value) not in done:
            if odd := [name for name in getattr(value, "__dict__", ()) if not _harmless(name)]:
                raise CheckpointError(
                    f"it sets the attribute {cut(str(odd[0]))!r} on a mapping",
                    "save the plain state dict: torch.save(model.state_dict(), path)",
                )
            own = done[id(value)] = {}
            own.update((key, of(inner)) for key, inner in dict.items(value))
        return done[id(value)]

    return of(content)


def _harmless(name: object) -> bool:
    """`_metadata` is torch's; yacs keeps names such as `__immutable__` on a node of its own."""
    return name == "_metadata" or (isinstance(name, str) and name.startswith("__"))


def states_in(content: Mapping[Any, Any], depth: int = _DEEPEST) -> dict[str, State]:
    """The sets of weights in a checkpoint, "model" and/or "ema", by the containers' names.

    A container may hold another, as in `{"ema": {"module": …}}`.
    """
    if _is_state(content):
        return {MODEL: dict(content)}
    names = dict(_CONTAINERS)
    if "ema_state_dict" in content and "message_hub" in content:
        # MMEngine swaps the two when it saves: `state_dict` then holds the averaged weights.
        names |= {"state_dict": EMA, "ema_state_dict": MODEL}
    found: dict[str, State] = {}
    for key, name in names.items():
        inner = content.get(key)
        if depth and isinstance(inner, dict):
            for own, state in states_in(inner, depth - 1).items():
                found.setdefault(EMA if name == EMA else own, state)
    return found


def state_paths(content: Mapping[Any, Any]) -> Iterator[str]:
    """Where state dicts lie in a checkpoint, as `--key` takes it; each mapping is visited once."""
    seen = {id(content)}
    waiting = [("", content)]
    while waiting:
        path, mapping = waiting.pop(0)
        for key, value in mapping.items():
            if isinstance(key, str) and isinstance(value, dict) and id(value) not in seen:
                seen.add(id(value))
                waiting.append((f"{path}{key}.", value))
                if _is_state(value) and any("." in name for name in value):
                    yield f"{path}{key}"


def value_at(content: Mapping[Any, Any], key: str) -> Any:
    """What lies at `a.b.c` in nested mappings, whose own keys may have dots; None if nothing."""
    if key in content:
        return content[key]
    for place, sign in enumerate(key):
        inner = content.get(key[:place]) if sign == "." else None
        if isinstance(inner, dict) and (found := value_at(inner, key[place + 1 :])) is not None:
            return found
    return None


def is_averaged(key: str) -> bool:
    """Whether a container on the way to `a.b.c` is one of averaged weights."""
    return any(_CONTAINERS.get(part) == EMA for part in key.split("."))


def _is_state(content: Mapping[Any, Any]) -> bool:
    return bool(content) and all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()
    )


def unwrapped(state: State) -> State:
    """Without the prefixes that DDP and `torch.compile` put before every name."""
    for prefix in _WRAPPERS:
        if all(key.startswith(prefix) for key in state):
            return unwrapped({key.removeprefix(prefix): value for key, value in state.items()})
    return state


def without_counters(state: State) -> tuple[State, tuple[str, ...]]:
    """The weights alone, and a note on the counters that were among them."""
    counters = [
        key
        for key, value in state.items()
        if key.rpartition(".")[2] in _COUNTERS and value.numel() == 1
    ]
    if not counters:
        return state, ()
    kinds = ", ".join(dict.fromkeys(key.rpartition(".")[2] for key in counters))
    kept = {key: value for key, value in state.items() if key not in set(counters)}
    return kept, (f"left out counters that are no weights: {kinds} ({key_count(len(counters))})",)
