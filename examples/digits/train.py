"""Train a small Slide-Transformer on the digits and save the official checkpoint format."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer
from augment import augment
from data import Split, held_out_split, train_split
from families import FAMILIES, Family
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

HERE = Path(__file__).parent
console = Console(highlight=False)


@dataclass(frozen=True)
class Recipe:
    """The hyperparameters of training."""

    epochs: int = 60
    batch_size: int = 64
    learning_rate: float = 2e-3
    warmup_epochs: int = 5
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    clip_grad: float = 5.0
    ema_decay: float = 0.995
    seed: int = 0


@dataclass(frozen=True)
class Trained:
    """Models and optimisation state after the last epoch."""

    model: nn.Module
    ema: nn.Module
    optimizer: AdamW
    scheduler: LambdaLR


def initialise(model: nn.Module) -> None:
    """Swin's initialisation; convolutions, and so the learned shifts, keep torch's."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for name, parameter in model.named_parameters():
        if name.endswith("relative_position_bias_table"):
            nn.init.trunc_normal_(parameter, std=0.02)


def make_optimizer(model: nn.Module, recipe: Recipe) -> AdamW:
    """AdamW with weight decay for matrices and kernels only."""
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:  # the one-hot shift kernels are frozen
            plain = parameter.ndim == 1 or name.endswith("relative_position_bias_table")
            (free if plain else decayed).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": recipe.weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]
    return AdamW(groups, lr=recipe.learning_rate)


def make_scheduler(optimizer: AdamW, recipe: Recipe, steps_per_epoch: int) -> LambdaLR:
    """Linear warm-up, then cosine decay to zero, per step."""
    warmup, total = recipe.warmup_epochs * steps_per_epoch, recipe.epochs * steps_per_epoch

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))

    return LambdaLR(optimizer, factor)


def train(family: Family, split: Split, recipe: Recipe) -> Trained:
    """Train from scratch; returns the weights of the last epoch."""
    torch.manual_seed(recipe.seed)
    generator = torch.Generator().manual_seed(recipe.seed)
    images, labels = (torch.from_numpy(array) for array in split)

    model = family.build()
    initialise(model)
    ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema_decay))
    optimizer = make_optimizer(model, recipe)
    batches = len(images) // recipe.batch_size  # the omitted images differ in each epoch
    scheduler = make_scheduler(optimizer, recipe, batches)

    model.train()
    for epoch in track(range(recipe.epochs), description="training", console=console):
        order = torch.randperm(len(images), generator=generator)
        total = 0.0
        for batch in order[: batches * recipe.batch_size].split(recipe.batch_size):
            logits = model(augment(images[batch], generator))
            loss = F.cross_entropy(logits, labels[batch], label_smoothing=recipe.label_smoothing)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_grad)
            optimizer.step()
            scheduler.step()
            ema.update_parameters(model)
            total += loss.item()
        if (epoch + 1) % 5 == 0:
            console.print(f"epoch {epoch + 1:3d}  loss {total / batches:.4f}")
    return Trained(model.eval(), ema.module.eval(), optimizer, scheduler)


@torch.inference_mode()
def accuracy(model: nn.Module, split: Split) -> float:
    """Top-1 in percent."""
    images, labels = (torch.from_numpy(array) for array in split)
    right: Tensor = model(images).argmax(dim=1) == labels
    return 100.0 * int(right.sum()) / len(labels)


def checkpoint(
    family: Family, trained: Trained, recipe: Recipe, top1: float, top1_ema: float
) -> dict[str, object]:
    """The dict that the public training code saves, including averaged weights."""
    # Without AdamW's two moments, which would double the size of the file.
    optimizer = {**trained.optimizer.state_dict(), "state": {}}
    return {
        "model": trained.model.state_dict(),
        "optimizer": optimizer,
        "lr_scheduler": trained.scheduler.state_dict(),
        "max_accuracy": top1,  # of the last epoch, the only one that is evaluated
        "epoch": recipe.epochs - 1,  # the public code counts from 0
        "config": family.describe(),
        "state_dict_ema": trained.ema.state_dict(),
        "max_accuracy_ema": top1_ema,
    }


def main(
    family: Annotated[str, typer.Option(help=f"One of: {', '.join(FAMILIES)}.")] = "slide-swin",
    output: Annotated[
        Path | None, typer.Option(help="File to write; by default FAMILY_digits.pth beside this.")
    ] = None,
    epochs: Annotated[int, typer.Option(min=10)] = Recipe.epochs,
    seed: Annotated[int, typer.Option()] = Recipe.seed,
    threads: Annotated[int, typer.Option(min=1)] = 2,
) -> None:
    """Train on the digits, write the checkpoint, print both held-out accuracies."""
    if family not in FAMILIES:
        raise typer.BadParameter(f"{family!r} is not one of: {', '.join(FAMILIES)}")
    output = output or HERE / f"{family.replace('-', '_')}_digits.pth"
    output.parent.mkdir(parents=True, exist_ok=True)  # fails now rather than after training
    torch.set_num_threads(threads)  # sums depend on the number of threads, results on the sums
    torch.use_deterministic_algorithms(True)

    chosen, recipe = FAMILIES[family], Recipe(epochs=epochs, seed=seed)
    start = time.perf_counter()
    trained = train(chosen, train_split(), recipe)
    seconds = time.perf_counter() - start

    held_out = held_out_split()
    top1, top1_ema = accuracy(trained.model, held_out), accuracy(trained.ema, held_out)
    torch.save(checkpoint(chosen, trained, recipe, top1, top1_ema), output)
    count = sum(parameter.numel() for parameter in trained.model.parameters())
    size = output.stat().st_size / 1e6
    console.print(
        f"{output}: {count:,} parameters, {size:.2f} MB, trained in {seconds:.0f} s", soft_wrap=True
    )
    console.print(f"held-out top-1: model {top1:.2f} %, EMA {top1_ema:.2f} %")


if __name__ == "__main__":
    typer.run(main)
