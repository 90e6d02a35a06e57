"""Models as people write them, converted by coremltools alone, agree with PyTorch."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from slide_deploy.validators._mil import evaluate, new_state, read_package, violations
from tests.targets.mil.conftest import ct

Convert = Callable[..., Path]
TOKENS, WORDS, WIDTH, HEADS = 6, 11, 16, 2


class Residual(nn.Module):
    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, out, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(out), nn.BatchNorm2d(out)])
        self.shortcut = nn.Conv2d(channels, out, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norms[0](self.first(x)))
        return F.relu(self.norms[1](self.second(y)) + self.shortcut(x))


class ResNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 8, 7, 2, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(3, 2, 1)
        )
        self.blocks = nn.Sequential(Residual(8, 8, 1), Residual(8, 16, 2))
        self.head = nn.Linear(16, 10)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(F.adaptive_avg_pool2d(self.blocks(self.stem(image)), 1).flatten(1))


class ViT(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, WIDTH, 8, 8)
        self.token = nn.Parameter(torch.randn(1, 1, WIDTH))
        self.position = nn.Parameter(torch.randn(1, 17, WIDTH))
        self.norms = nn.ModuleList([nn.LayerNorm(WIDTH) for _ in range(3)])
        self.qkv, self.project = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 32), nn.GELU(), nn.Linear(32, WIDTH))
        self.head = nn.Linear(WIDTH, 10)

    def forward(self, image: Tensor) -> Tensor:
        x = self.embed(image).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.position
        qkv = self.qkv(self.norms[0](x)).unflatten(-1, (3, HEADS, WIDTH // HEADS))
        mixed = F.scaled_dot_product_attention(*qkv.permute(2, 0, 3, 1, 4).unbind(0))
        x = x + self.project(mixed.transpose(1, 2).flatten(2))
        x = x + self.mlp(self.norms[1](x))
        return self.head(self.norms[2](x)[:, 0])


class Tagger(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(WORDS, 8)
        self.lstm = nn.LSTM(8, 12, num_layers=2, bidirectional=True, batch_first=True)
        self.head = nn.Linear(24, 5)

    def forward(self, words: Tensor) -> Tensor:
        return F.log_softmax(self.head(self.lstm(self.embed(words))[0]), -1)


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(3, 8, 3, 1, 1)
        self.deep = nn.Sequential(nn.Conv2d(8, 16, 3, 2, 1), nn.InstanceNorm2d(16), nn.SiLU())
        self.deeper = nn.Sequential(nn.Conv2d(16, 16, 3, 2, 1, groups=4), nn.LeakyReLU(0.1))
        self.up = nn.ConvTranspose2d(32, 8, 2, 2)
        self.out = nn.Conv2d(16, 2, 1)

    def forward(self, image: Tensor) -> Tensor:
        high = F.relu(self.down(image))
        middle = self.deep(high)
        low = F.interpolate(
            self.deeper(middle), scale_factor=2.0, mode="bilinear", align_corners=False
        )
        return torch.sigmoid(self.out(torch.cat([self.up(torch.cat([low, middle], 1)), high], 1)))


class Halves(nn.Module):
    """coremltools computes its sizes from arrays of one element, which numpy 2.4 does not cast."""

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], -1, x.shape[1] // 2)


class GPT(nn.Module):
    """One token at a time; keys and values of earlier ones are states."""

    keys: Tensor
    values: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(WORDS, WIDTH)
        self.position = nn.Embedding(TOKENS, WIDTH)
        self.qkv, self.project = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.norms = nn.ModuleList([nn.LayerNorm(WIDTH) for _ in range(3)])
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 32), nn.GELU("tanh"), nn.Linear(32, WIDTH))
        self.head = nn.Linear(WIDTH, WORDS)
        for name in ("keys", "values"):
            self.register_buffer(name, torch.zeros(1, HEADS, TOKENS, WIDTH // HEADS))

    def split(self, x: Tensor) -> list[Tensor]:
        q, k, v = self.qkv(self.norms[0](x)).chunk(3, -1)
        return [t.reshape(1, -1, HEADS, WIDTH // HEADS).transpose(1, 2) for t in (q, k, v)]

    def finish(self, x: Tensor, mixed: Tensor) -> Tensor:
        x = x + self.project(mixed.transpose(1, 2).reshape(1, -1, WIDTH))
        return self.head(self.norms[2](x + self.mlp(self.norms[1](x))))

    def forward(self, word: Tensor, place: Tensor) -> Tensor:
        x = self.embed(word) + self.position(place)
        q, k, v = self.split(x)
        now = (torch.arange(TOKENS) == place).reshape(1, 1, TOKENS, 1)
        self.keys[:] = torch.where(now, k, self.keys)
        self.values[:] = torch.where(now, v, self.values)
        seen = (torch.arange(TOKENS) <= place).reshape(1, 1, 1, TOKENS)
        scores = q @ self.keys.transpose(-1, -2) * (WIDTH // HEADS) ** -0.5
        weights = scores.masked_fill(~seen, -1e4).softmax(-1)
        return self.finish(x, weights @ self.values)

    def whole(self, words: Tensor) -> Tensor:
        """All tokens at once, without states."""
        x = self.embed(words) + self.position.weight[None, : words.shape[1]]
        q, k, v = self.split(x)
        return self.finish(x, F.scaled_dot_product_attention(q, k, v, is_causal=True))


def seeded(kind: type[nn.Module]) -> nn.Module:
    """The module with weights, and running means and variances, that matter."""
    torch.manual_seed(0)
    module = kind().eval().requires_grad_(False)
    for name, buffer in module.named_buffers():
        if "running" in name:
            buffer.copy_(torch.rand_like(buffer) + 0.5)
    return module


@pytest.fixture
def convert(tmp_path: Path) -> Convert:
    """convert(module, example inputs by name, half=False, states=()): the package on disk."""

    def save(
        module: nn.Module, inputs: dict[str, Tensor], half: bool = False, states: Any = ()
    ) -> Path:
        path = tmp_path / "model.mlpackage"
        types = {torch.float32: np.float32, torch.int32: np.int32}
        described = [
            ct.TensorType(name=name, shape=x.shape, dtype=types[x.dtype])
            for name, x in inputs.items()
        ]
        kept = [
            ct.StateType(ct.TensorType(shape=module.get_buffer(name).shape, dtype=np.float16), name)
            for name in states
        ]
        with warnings.catch_warnings(), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            logging.disable(logging.CRITICAL)
            model = ct.convert(
                torch.jit.trace(module, tuple(inputs.values()), check_trace=False),
                convert_to="mlprogram",
                inputs=described,
                states=kept or None,
                minimum_deployment_target=ct.target.iOS18 if states else ct.target.iOS17,
                compute_precision=ct.precision.FLOAT16 if half else ct.precision.FLOAT32,
                skip_model_load=True,
            )
            model.save(str(path))
            logging.disable(logging.NOTSET)
        return path

    return save


IMAGE = {"image": torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))}
SENTENCE = {"words": torch.tensor([[1, 5, 2, 10, 0, 7]], dtype=torch.int32)}


@pytest.mark.parametrize(("half", "bound"), [(False, 1e-5), (True, 1e-2)])
@pytest.mark.parametrize(
    ("kind", "inputs"),
    [
        (ResNet, IMAGE),
        (ViT, IMAGE),
        (Tagger, SENTENCE),
        (UNet, IMAGE),
        (Halves, {"x": torch.arange(32.0).reshape(4, 8)}),
    ],
)
def test_a_model_agrees_with_pytorch(
    convert: Convert, kind: type[nn.Module], inputs: dict[str, Tensor], half: bool, bound: float
) -> None:
    module = seeded(kind)
    program = read_package(convert(module, inputs, half))
    assert violations(program) == []
    (found,) = evaluate(program, {name: x.numpy() for name, x in inputs.items()}).values()
    expected = module(*inputs.values()).numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=bound * np.abs(expected).max())


def test_a_gpt_with_states_agrees_with_one_that_sees_all_tokens(convert: Convert) -> None:
    module, words = seeded(GPT), SENTENCE["words"]
    expected = module.whole(words)[0].numpy()
    example = {"word": words[:, :1], "place": torch.zeros(1, dtype=torch.int32)}
    program = read_package(convert(module, example, True, ("keys", "values")))
    assert violations(program) == []
    state = new_state(program)
    assert sorted(state) == ["keys", "values"]
    for place in range(TOKENS):
        feeds = {
            "word": words[:, place : place + 1].numpy(),
            "place": np.array([place], np.int32),
        }
        (found,) = evaluate(program, feeds, state=state).values()
        bound = 1e-2 * np.abs(expected).max()
        np.testing.assert_allclose(found[0, 0], expected[place], rtol=0, atol=bound)
