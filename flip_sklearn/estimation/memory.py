"""The memory that is free for this process, within the limits of its machine, container and session."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from pathlib import Path

PROC = Path("/proc")
CGROUPS = Path("/sys/fs/cgroup")
# The name of each quantity in control groups of version 2 and of version 1.
LIMIT_FILES = ("memory.max", "memory.limit_in_bytes")
USAGE_FILES = ("memory.current", "memory.usage_in_bytes")
# Pages of files that the kernel drops when memory is short; they count as used.
CACHE_FIELDS = ("inactive_file", "total_inactive_file")


def free_memory() -> int:
    """Bytes that a new array may take: available memory on Linux, elsewhere half of the memory.

    Less if the container (a control group) or the address space (``ulimit -v``) has less left.
    """
    return max(0, min(_free_on_machine(), *_free_in_control_groups(), _free_address_space()))


def _free_on_machine() -> int:
    try:
        fields = dict(line.split(":") for line in (PROC / "meminfo").read_text().splitlines())
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (AttributeError, OSError, ValueError):
        return 8 * 2**30


def _free_in_control_groups() -> list[int]:
    """Free bytes of each control group with a limit that holds this process."""
    free = [2**63]
    for folder in _control_groups():
        for limit_file, usage_file, cache_field in zip(LIMIT_FILES, USAGE_FILES, CACHE_FIELDS, strict=True):
            try:
                limit = int((folder / limit_file).read_text())
                usage = int((folder / usage_file).read_text())
            except (OSError, ValueError):  # not of this version, or "max": no limit
                continue
            try:
                statistics = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
                cache = int(statistics[cache_field])
            except (OSError, KeyError, ValueError):
                cache = 0
            free.append(limit - usage + cache)
    return free


def _control_groups() -> Iterator[Path]:
    """The folders of the memory control groups of this process and of their parents, which limit it too."""
    try:
        lines = (PROC / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        root = CGROUPS / "memory" if controllers else CGROUPS
        # Inside a container the path may be that of the host, which is not there; its parents end at root.
        group = root / path.lstrip("/")
        yield group
        while group != root and group != group.parent:
            group = group.parent
            yield group


def _free_address_space() -> int:
    try:
        resource = importlib.import_module("resource")
        limit: int = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit == resource.RLIM_INFINITY:
            return 2**63
        used = int((PROC / "self" / "statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except (ImportError, AttributeError, OSError, ValueError):  # no such limit on this system
        return 2**63
    return limit - used
