"""An independent implementation of the pyramid families in numpy, and a check of ranks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

Array = NDArray[np.float64]


class NaivePyramid:
    """PVT and PVTv2 from their publications, one image (C, H, W) at a time, in float64.

    Token matrices are (N, C) in reading order, as the papers write them; only the state
    dict and the published sizes come from the model that is held against it.
    """

    def __init__(self, module: nn.Module) -> None:
        self.config: Any = module.config
        self.weights = {
            name: value.detach().double().numpy() for name, value in module.state_dict().items()
        }

    def linear(self, name: str, x: Array) -> Array:
        return x @ self.weights[f"{name}.weight"].T + self.weights.get(f"{name}.bias", 0.0)

    def norm(self, name: str, x: Array, epsilon: float) -> Array:
        centred = x - x.mean(axis=-1, keepdims=True)
        deviation = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + epsilon)
        return centred / deviation * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    def conv(self, name: str, x: Array, stride: int = 1, padding: int = 0) -> Array:
        """(C, H, W) → (C', H', W'), groups read off the kernel's shape."""
        weight, bias = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        count, channels, side, _ = weight.shape
        per_group = count // (len(x) // channels)
        padded = np.pad(x, ((0, 0), (padding, padding), (padding, padding)))
        rows = (padded.shape[1] - side) // stride + 1
        columns = (padded.shape[2] - side) // stride + 1
        out = np.empty((count, rows, columns))
        for n, r, c in np.ndindex(out.shape):
            first = n // per_group * channels
            window = padded[first : first + channels, r * stride :, c * stride :]
            out[n, r, c] = (window[:, :side, :side] * weight[n]).sum() + bias[n]
        return out

    def global_attention(self, name: str, x: Array, size: tuple[int, int], stage: int) -> Array:
        """Spatial-reduction attention on tokens, head by head."""
        source, ratio = x, self.config.sr_ratios[stage]
        if ratio > 1:
            reduced = self.conv(f"{name}.sr", _as_map(x, size), stride=ratio)
            source = self.norm(f"{name}.norm", _as_tokens(reduced), 1e-5)
        dim = x.shape[1]
        depth = dim // self.config.heads[stage]
        q, kv = self.linear(f"{name}.q", x), self.linear(f"{name}.kv", source)
        heads = []
        for start in range(0, dim, depth):
            own = slice(start, start + depth)
            logits = q[:, own] @ kv[:, :dim][:, own].T / math.sqrt(depth)
            heads.append(_softmax(logits) @ kv[:, dim:][:, own])
        return self.linear(f"{name}.proj", np.concatenate(heads, axis=1))

    def slide_attention(self, name: str, x: Array, size: tuple[int, int], stage: int) -> Array:
        """Attention over k² shifted taps, head by head; both shift paths on their own."""
        depth = x.shape[1] // self.config.heads[stage]
        taps, pad = self.config.kernel_size**2, self.config.kernel_size // 2
        tokens, heads = self.linear(f"{name}.qkv", x), []
        for head in range(self.config.heads[stage]):
            q, k, v = np.split(tokens[:, 3 * depth * head : 3 * depth * (head + 1)], 3, axis=1)
            keys, values = (
                sum(
                    self.conv(f"{name}.{path}", _as_map(part, size), padding=pad)
                    for path in ("dep_conv", "dep_conv1")
                ).reshape(depth, taps, -1)
                for part in (k, v)
            )
            bias = self.weights[f"{name}.relative_position_bias_table"][0, head, 0, :, 0, 0]
            keys = keys + bias[None, :, None]
            logits = np.einsum("nc,cjn->nj", q, keys) / math.sqrt(depth)
            heads.append(np.einsum("nj,cjn->nc", _softmax(logits), values))
        return self.linear(f"{name}.proj", np.concatenate(heads, axis=1))

    def mlp(self, name: str, x: Array, size: tuple[int, int]) -> Array:
        x = self.linear(f"{name}.fc1", x)
        if f"{name}.dwconv.dwconv.weight" in self.weights:
            x = _as_tokens(self.conv(f"{name}.dwconv.dwconv", _as_map(x, size), padding=1))
        x = x / 2 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))
        return self.linear(f"{name}.fc2", x)

    def blocks(self, x: Array, size: tuple[int, int], stage: int) -> Array:
        slides = stage < self.config.slide_stages
        attention = self.slide_attention if slides else self.global_attention
        for index in range(self.config.depths[stage]):
            name = f"block{stage + 1}.{index}"
            normed = self.norm(f"{name}.norm1", x, 1e-6)
            x = x + attention(f"{name}.attn", normed, size, stage)
            x = x + self.mlp(f"{name}.mlp", self.norm(f"{name}.norm2", x, 1e-6), size)
        return x

    def embed(self, image: Array, stage: int, **geometry: int) -> tuple[Array, tuple[int, int]]:
        """Tokens of a stage's map, and its size."""
        name = f"patch_embed{stage + 1}"
        patches = self.conv(f"{name}.proj", image, **geometry)
        return self.norm(f"{name}.norm", _as_tokens(patches), 1e-5), patches.shape[1:]  # type: ignore[return-value]

    def pvt(self, image: Array, *, class_token: bool) -> tuple[list[Array], Array]:
        """Stage maps, and the class token's output (or, without one, the last map's first)."""
        maps, last = [], len(self.config.depths) - 1
        for stage in range(last + 1):
            x, size = self.embed(image, stage, stride=self.config.patch_size if stage == 0 else 2)
            positions = self.weights[f"pos_embed{stage + 1}"][0]
            if stage == last and class_token:
                x = np.concatenate((self.weights["cls_token"][0], x))
            x = self.blocks(x + positions[len(positions) - len(x) :], size, stage)
            image = _as_map(x[len(x) - math.prod(size) :], size)
            maps.append(image)
        return maps, self.linear("head", self.norm("norm", x[0], 1e-6))

    def pvt_v2(self, image: Array) -> tuple[list[Array], Array]:
        """Stage maps, and the logits."""
        maps = []
        for stage in range(len(self.config.depths)):
            geometry = {"stride": 2, "padding": 1} if stage else {"stride": 4, "padding": 3}
            x, size = self.embed(image, stage, **geometry)
            x = self.norm(f"norm{stage + 1}", self.blocks(x, size, stage), 1e-6)
            image = _as_map(x, size)
            maps.append(image)
        return maps, self.linear("head", x.mean(axis=0))


def _as_map(x: Array, size: tuple[int, int]) -> Array:
    return x.T.reshape(-1, *size)


def _as_tokens(x: Array) -> Array:
    return x.reshape(len(x), -1).T


def _softmax(x: Array) -> Array:
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


@pytest.fixture(scope="session")
def naive_pyramid() -> type[NaivePyramid]:
    """The second reading: `naive_pyramid(module).pvt(image, …)` or `.pvt_v2(image)`."""
    return NaivePyramid


@pytest.fixture(scope="session")
def drawn() -> Callable[[nn.Module], Any]:
    """Draws every trainable parameter at random, so that none is neutral; eval mode."""

    def draw(module: nn.Module) -> nn.Module:
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                if parameter.requires_grad:
                    noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                    parameter.copy_(0.3 * noise + float("norm" in name and "weight" in name))
        return module.eval().requires_grad_(False)

    return draw


class _Ranks(TorchDispatchMode):
    highest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, tuple | list) else (result,):
            if isinstance(value, torch.Tensor):
                self.highest = max(self.highest, value.ndim)
        return result


@pytest.fixture(scope="session")
def highest_rank() -> Callable[[Callable[..., Any], torch.Tensor], int]:
    """highest_rank(function, x): of all tensors that any operation in it puts out."""

    @contextmanager
    def watched() -> Iterator[_Ranks]:
        with torch.no_grad(), _Ranks() as ranks:
            yield ranks

    def measure(function: Callable[..., Any], x: torch.Tensor) -> int:
        with watched() as ranks:
            function(x)
        return ranks.highest

    return measure
