"""Print the table of docs/families.md: parameters and FLOPs of every size, ours and the paper's.

Run as `python benchmarks/family_counts.py`. Models are on the meta device: no weights are allocated
and nothing is computed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from slide_deploy import TensorSpec, count_flops, count_parameters, fused_skeleton
from slide_deploy.models import slide_cswin, slide_nat, slide_pvt, slide_pvt_v2, slide_swin

__all__ = ["PUBLISHED", "row", "table"]

IMAGE = (TensorSpec("image", (1, 3, 224, 224)),)

# Name, constructor, and the paper's millions of parameters and GFLOPs.
PUBLISHED: tuple[tuple[str, Callable[[], Any], str, str], ...] = (
    ("Slide-Swin-T", slide_swin.slide_swin_t, "29", "4.6"),
    ("Slide-Swin-S", slide_swin.slide_swin_s, "51", "8.9"),
    ("Slide-Swin-B", slide_swin.slide_swin_b, "89", "15.5"),
    ("Slide-PVT-T", slide_pvt.slide_pvt_t, "12.2", "2.0"),
    ("Slide-PVT-S", slide_pvt.slide_pvt_s, "22.7", "4.0"),
    ("Slide-PVT-M", slide_pvt.slide_pvt_m, "–", "–"),
    ("Slide-PVT-L", slide_pvt.slide_pvt_l, "–", "–"),
    ("Slide-PVTv2-B0", slide_pvt_v2.slide_pvt_v2_b0, "–", "–"),
    ("Slide-PVTv2-B1", slide_pvt_v2.slide_pvt_v2_b1, "13.0", "2.2"),
    ("Slide-PVTv2-B2", slide_pvt_v2.slide_pvt_v2_b2, "22.8", "4.2"),
    ("Slide-PVTv2-B3", slide_pvt_v2.slide_pvt_v2_b3, "–", "–"),
    ("Slide-PVTv2-B4", slide_pvt_v2.slide_pvt_v2_b4, "–", "–"),
    ("Slide-PVTv2-B5", slide_pvt_v2.slide_pvt_v2_b5, "–", "–"),
    ("Slide-CSwin-T", slide_cswin.slide_cswin_t, "–", "–"),
    ("Slide-CSwin-S", slide_cswin.slide_cswin_s, "35", "6.9"),
    ("Slide-CSwin-B", slide_cswin.slide_cswin_b, "78", "15.0"),
    ("Slide-NAT-mini", slide_nat.slide_nat_mini, "–", "–"),
    ("Slide-NAT-T", slide_nat.slide_nat_t, "28", "4.3"),
    ("Slide-NAT-S", slide_nat.slide_nat_s, "51", "7.8"),
)


def row(name: str, build: Callable[[], Any], parameters: str, flops: str) -> str:
    """One line of the table, with the paper's figures to the right of ours."""
    with torch.device("meta"):
        model = build()
    millions = count_parameters(model) / 1e6
    billions = count_flops(fused_skeleton(model), IMAGE) / 1e9
    return f"| {name} | {millions:.2f} | {parameters} | {billions:.2f} | {flops} |"


def table() -> str:
    """The whole table as Markdown."""
    head = "| model | parameters, M | paper | FLOPs, G | paper |"
    return "\n".join((head, "|---|---:|---:|---:|---:|", *(row(*entry) for entry in PUBLISHED)))


if __name__ == "__main__":
    print(table())
