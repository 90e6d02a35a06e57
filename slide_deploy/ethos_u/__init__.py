"""Arm's Ethos-U NPUs: devices, files of an artifact, compiler and TOSA reference model.

The artifact is a folder. Its `graph.safetensors` is the fake-quantized graph, which says what the
integers mean; `program-0.tosa` and so on are the integer programs for the NPU; `DEVICE.pte` is the
program for a device, with Vela's commands for each integer program; `DEVICE.json` has Vela's
estimates for it, and what stays on the CPU.
"""
