"""Message catalogues as ``msgfmt`` writes them."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path


def catalogue_bytes(messages: Mapping[str, str], *, charset: str = "utf-8", order: str = "<") -> bytes:
    """A catalogue of messages (with context and ``"\\4"``, and forms separated by ``"\\0"``)."""
    header = f"Project-Id-Version: x\nContent-Type: text/plain; charset={charset}\n"
    entries = sorted((k.encode(charset), v.encode(charset)) for k, v in {"": header, **messages}.items())
    n, start = len(entries), 28
    offset = start + 16 * n
    tables: list[list[int]] = [[], []]
    strings = b""
    for column in (0, 1):
        for entry in entries:
            tables[column] += [len(entry[column]), offset + len(strings)]
            strings += entry[column] + b"\0"
    numbers = [0x950412DE, 0, n, start, start + 8 * n, 0, offset, *tables[0], *tables[1]]
    return struct.pack(f"{order}{len(numbers)}I", *numbers) + strings


def write_catalogue(
    folder: Path, language: str, name: str, messages: Mapping[str, str], **options: str
) -> Path:
    """Write ``<folder>/<language>/LC_MESSAGES/<name>.mo``."""
    path = folder / language / "LC_MESSAGES" / f"{name}.mo"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(catalogue_bytes(messages, **options))
    return path
