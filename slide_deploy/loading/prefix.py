"""What a checkpoint has before a model's own names: `model.`, `backbone.`, `encoder.` and so on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice

from slide_deploy.errors import CheckpointError
from slide_deploy.loading.checkpoint import Checkpoint
from slide_deploy.loading.containers import State
from slide_deploy.models.families import families
from slide_deploy.models.family import Family
from slide_deploy.utils.text import cut, first_names, key_count

__all__ = ["below", "family_of", "prefix_of"]

# Of every Slide Attention that has not been fused.
_ATTENTION = "dep_conv.weight"
_MOST_CANDIDATES, _DEEPEST = 200, 8


def family_of(checkpoint: Checkpoint, state: State) -> tuple[Family, str]:
    """The family whose names stand in `state`, and the prefix that they have there.

    Raises CheckpointError where there is none, or where several prefixes lead to a model.
    """
    found: dict[str, Family] = {}
    for prefix in islice(_candidates(state), _MOST_CANDIDATES):
        if prefix.startswith(tuple(found)):
            continue  # a part of a model that was found
        own = _stripped(state, prefix)
        family = next((family for family in families() if family.recognises(own)), None)
        # A lone attention (its family has a prefix of its own) is not what a larger model is.
        if family and not (family.prefix and len(own) < len(state)):
            found[prefix] = family
    if len(found) > 1:
        raise _ambiguous(checkpoint, found)
    if not found:
        raise _unknown(checkpoint, state)
    ((prefix, family),) = found.items()
    return family, prefix


def prefix_of(checkpoint: Checkpoint, state: State, wanted: Iterable[str]) -> str:
    """The only prefix under which `state` has every wanted name; empty where there is none.

    Raises CheckpointError where several prefixes have them all.
    """
    names = list(wanted)
    if not names or all(name in state for name in names):
        return ""
    ends = (key[: -len(names[0])] for key in state if key.endswith(f".{names[0]}"))
    found = [p for p in ends if all(f"{p}{name}" in state for name in names)]
    if len(found) > 1:
        raise _ambiguous(checkpoint, found)
    return found[0] if found else ""


def below(checkpoint: Checkpoint, state: State, prefix: str) -> tuple[State, tuple[str, ...]]:
    """The weights under a prefix, by their names without it, and a note that tells of the others.

    Raises CheckpointError where no name has the prefix.
    """
    if not prefix:
        return state, ()
    prefix = prefix.rstrip(".") + "."
    own = _stripped(state, prefix)
    if not own:
        starts = list(dict.fromkeys(key.partition(".")[0] for key in state))
        raise CheckpointError(
            f"{checkpoint.path_name} has no key under the prefix {cut(prefix)!r}",
            f"its keys begin with {first_names(starts)}",
        )
    groups = Counter(key.partition(".")[0] for key in state if not key.startswith(prefix))
    others = first_names([f"{cut(name)} ({key_count(count)})" for name, count in groups.items()], 5)
    left_out = f"; left out: {others}" if others else ""
    return own, (f"the weights under {cut(prefix)!r} are taken{left_out}",)


def _stripped(state: State, prefix: str) -> State:
    return {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}


def _candidates(state: State) -> Iterator[str]:
    """No prefix, then all that a Slide Attention lies under, from the outermost inwards."""
    paths = (key.split(".") for key in state if key.endswith(_ATTENTION))
    found = {
        ".".join((*path[:depth], ""))
        for path in paths
        for depth in range(1, min(len(path), _DEEPEST + 1))
    }
    yield ""
    yield from sorted(found, key=lambda prefix: (prefix.count("."), prefix))


def _ambiguous(checkpoint: Checkpoint, prefixes: Iterable[str]) -> CheckpointError:
    names = sorted(prefixes)
    return CheckpointError(
        f"{checkpoint.path_name} holds several models: {first_names(names)}",
        f"choose one with --prefix, such as --prefix {cut(names[0].rstrip('.'))}",
    )


def _unknown(checkpoint: Checkpoint, state: State) -> CheckpointError:
    pair = any(key.endswith(_ATTENTION) for key in state) and any(
        key.endswith("dep_conv1.weight") for key in state
    )
    if not pair:
        return CheckpointError(
            f"{checkpoint.path_name} has no Slide Attention: no layer with dep_conv and dep_conv1",
            "for a fused model pass the file that `slide-deploy fuse` wrote, for any other --model",
        )
    return CheckpointError(
        f"{checkpoint.path_name} holds Slide Attention in a model of no known family",
        f"known families: {', '.join(family.name for family in families())}",
    )
