"""Reads MIL's weight file (blob storage version 2) and checks every record.

64 bytes           count: u32, version: u32 = 2, zeros
64 bytes           sentinel: u32, dtype: u32, bytes: u64, offset: u64, padding bits: u64, zeros
bytes, at offset   the elements; the next record follows at a multiple of 64
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

from slide_deploy.errors import ArtifactError
from slide_deploy.validators._mil.dtypes import Array, dtype_named, unpack

__all__ = ["Blob", "open_blob", "tensor"]

_ALIGNMENT = 64
_HEADER = struct.Struct("<II56x")
_RECORD = struct.Struct("<IIQQQ32x")
_SENTINEL = 0xDEADBEEF
_VERSION = 2


@dataclass(frozen=True)
class Record:
    """The position of one tensor's elements."""

    dtype: int
    size: int
    offset: int
    padding_bits: int


@dataclass(frozen=True)
class Blob:
    """A weight file in memory, and its records by offset."""

    name: str
    data: memoryview
    records: Mapping[int, Record]


def open_blob(path: Path) -> Blob:
    """Read the file and check all records, including those that no program uses."""
    data = memoryview(path.read_bytes())
    if len(data) < _HEADER.size:
        raise ArtifactError(f"{path.name} is too short for a weight file ({len(data)} bytes)")
    count, version = _HEADER.unpack_from(data)
    if version != _VERSION:
        raise ArtifactError(f"{path.name} has weight format version {version}, not {_VERSION}")
    records = {}
    at = end = _HEADER.size
    for _ in range(count):
        records[at] = record = _record(data, at, path.name)
        end = record.offset + record.size
        at = -(-end // _ALIGNMENT) * _ALIGNMENT
    if len(data) - end >= _ALIGNMENT:
        raise ArtifactError(f"{path.name} has {len(data) - end} bytes after its last record")
    return Blob(path.name, data, records)


def tensor(blob: Blob, offset: int, dtype: str, shape: tuple[int, ...]) -> Array:
    """The tensor whose record is at `offset`, which must be of this type and size."""
    record = blob.records.get(offset)
    if record is None:
        raise ArtifactError(f"{blob.name} has no record at offset {offset}")
    wanted, count = dtype_named(dtype), prod(shape)
    if record.dtype != wanted.blob:
        raise ArtifactError(
            f"{blob.name}, record at {offset}: element type {record.dtype}, declared {dtype}"
        )
    if record.size * 8 - record.padding_bits != count * wanted.bits:
        raise ArtifactError(
            f"{blob.name}, record at {offset}: {record.size} bytes,"
            f" which does not match {dtype} {list(shape)}"
        )
    raw = blob.data[record.offset : record.offset + record.size]
    return unpack(raw, wanted, count).reshape(shape)


def _record(data: memoryview, at: int, name: str) -> Record:
    if at + _RECORD.size > len(data):
        raise ArtifactError(f"{name} is truncated: no record at offset {at}")
    sentinel, dtype, size, offset, padding_bits = _RECORD.unpack_from(data, at)
    if sentinel != _SENTINEL:
        raise ArtifactError(f"{name}: the record at offset {at} has no sentinel")
    if offset != at + _RECORD.size:
        raise ArtifactError(f"{name}: the record at offset {at} points to {offset}")
    if offset + size > len(data):
        raise ArtifactError(f"{name} is truncated: the record at {at} ends at {offset + size}")
    if padding_bits >= 8:
        raise ArtifactError(f"{name}: the record at offset {at} has {padding_bits} padding bits")
    return Record(dtype, size, offset, padding_bits)
