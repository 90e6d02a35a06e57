"""Every lowering has rank ≤ 4, float16, a free batch, and both captures."""

from __future__ import annotations

import pytest
import torch
from torch.export import Dim
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from slide_deploy.models.slide_attention import AttentionConfig

CONFIGS = {
    "paper": AttentionConfig(dim=12, heads=3),
    "unshared, 5": AttentionConfig(dim=8, heads=2, kernel_size=5, share_kernel=False),
    "one projection": AttentionConfig(dim=8, heads=2, share_qkv=True, position_bias=False),
    "narrow, 1": AttentionConfig(dim=8, heads=2, kernel_size=1, reduction=2),
}
each_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)


class Ranks(TorchDispatchMode):
    """The highest rank of any result, views included."""

    highest = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, torch.Tensor):
                self.highest = max(self.highest, value.dim())
        return result


@each_config
def test_no_tensor_has_a_rank_above_4(lowering, attention, tokens, built, config):
    module = built(lowering, attention(config)[1])
    with torch.no_grad(), Ranks() as ranks:
        module(tokens(2, 5, 6, config.dim))
    assert ranks.highest == 4


@each_config
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_half_precision_is_finite_and_near(lowering, attention, tokens, built, config, scale):
    _, fused = attention(config, dtype=torch.float32)
    x = scale * tokens(2, 5, 6, config.dim, dtype=torch.float32)
    with torch.no_grad():
        expected = fused(x)
        got = built(lowering, fused).half()(x.half()).float()
    assert got.isfinite().all()
    if scale == 1.0:  # beyond that float16 logits are too coarse for a softmax
        assert (got - expected).abs().max() <= 0.01 * expected.abs().max()


@each_config
def test_one_export_serves_every_batch(lowering, attention, tokens, built, config):
    module = built(lowering, attention(config, dtype=torch.float32)[1])
    example = tokens(2, 4, 5, config.dim, dtype=torch.float32)
    with torch.no_grad():
        program = torch.export.export(module, (example,), dynamic_shapes=({0: Dim("b", min=1)},))
        for batch in (1, 3):
            x = tokens(batch, 4, 5, config.dim, dtype=torch.float32)
            torch.testing.assert_close(program.module()(x), module(x))


@each_config
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_a_trace_serves_every_batch(lowering, attention, tokens, built, config):
    module = built(lowering, attention(config, dtype=torch.float32)[1])
    with torch.no_grad():
        traced = torch.jit.trace(
            module, tokens(2, 4, 5, config.dim, dtype=torch.float32), check_trace=False
        )
        for batch in (1, 3):
            x = tokens(batch, 4, 5, config.dim, dtype=torch.float32)
            torch.testing.assert_close(traced(x), module(x))


def test_building_leaves_the_module_alone(lowering, attention):
    _, fused = attention(AttentionConfig(dim=8, heads=2))
    before = {name: value.clone() for name, value in fused.state_dict().items()}
    lowering.build(fused)
    assert fused.state_dict().keys() == before.keys()
    for name, value in fused.state_dict().items():
        assert torch.equal(value, before[name])
