"""The memory that is free within limits of control groups and of the address space."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

from flip_sklearn import FLiPExtractor
from flip_sklearn.estimation import memory, scoring
from tests.helpers.processes import in_process

GIB = 2**30
FILES = {  # by version of control groups: limit, usage, name of the droppable cache in memory.stat
    2: ("memory.max", "memory.current", "inactive_file"),
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root of /proc and /sys/fs/cgroup, of a machine with 64 GiB available and no limits."""
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text(f"MemTotal: 1 kB\nMemAvailable: {64 * 2**20} kB\n")
    (tmp_path / "proc/self/cgroup").write_text("0::/\n")
    monkeypatch.setattr(memory, "PROC", tmp_path / "proc")
    monkeypatch.setattr(memory, "CGROUPS", tmp_path / "cgroup")
    return tmp_path


def limit(machine: Path, version: int, path: str, limit: str, usage: int, cache: int = 0) -> None:
    folder = machine / "cgroup" / ("memory" if version == 1 else "") / path
    folder.mkdir(parents=True, exist_ok=True)
    limit_file, usage_file, cache_field = FILES[version]
    (folder / limit_file).write_text(f"{limit}\n")
    (folder / usage_file).write_text(f"{usage}\n")
    (folder / "memory.stat").write_text(f"anon 5\n{cache_field} {cache}\n")


def test_without_limits_the_available_memory_is_free(machine: Path) -> None:
    assert memory.free_memory() == 64 * GIB
    limit(machine, 2, "", "max", 60 * GIB)
    limit(machine, 1, "", str(2**63 - 4096), 60 * GIB)
    assert memory.free_memory() == 64 * GIB
    (machine / "proc/self/cgroup").unlink()
    assert memory.free_memory() == 64 * GIB


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("group", ["", "docker/abc", "../sibling"])
def test_limit_of_a_container(machine: Path, version: int, group: str) -> None:
    """The root is the container's own group, whatever path of the host the process sees."""
    line = f"0::/{group}\n" if version == 2 else f"5:cpu:/other\n4:hugetlb,memory:/{group}\n0::/\n"
    (machine / "proc/self/cgroup").write_text(line)
    limit(machine, version, "", str(4 * GIB), 3 * GIB, cache=GIB // 2)
    assert memory.free_memory() == 1.5 * GIB
    limit(machine, version, "", str(4 * GIB), 5 * GIB)
    assert memory.free_memory() == 0


@pytest.mark.parametrize("version", [1, 2])
def test_the_smallest_limit_of_a_group_and_its_parents_counts(machine: Path, version: int) -> None:
    path = "user.slice/job"
    (machine / "proc/self/cgroup").write_text(f"0::/{path}\n" if version == 2 else f"4:memory:/{path}\n")
    limit(machine, version, path, str(8 * GIB), GIB)
    assert memory.free_memory() == 7 * GIB
    limit(machine, version, "user.slice", str(10 * GIB), 7 * GIB)
    assert memory.free_memory() == 3 * GIB
    limit(machine, version, "system.slice", str(GIB), GIB)  # of other processes
    assert memory.free_memory() == 3 * GIB


def fitted(n_words: int = 2000) -> tuple[FLiPExtractor, np.ndarray]:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(1000, 8)).astype(np.float32)
    Y = sp.csr_array(rng.poisson(0.01, size=(1000, n_words)))
    words = [f"word{j}" for j in range(n_words)]
    return FLiPExtractor(max_iter=1, vocabulary=words, random_state=0, device="cpu").fit(X, Y), X


def messages_under_a_limit(limits_address_space: bool) -> list[str]:
    """What the verbs with dense results raise if 2 GiB more than now are allowed, but 3.7 needed."""
    import resource

    flip, X = fitted()
    many = np.lib.stride_tricks.as_strided(X, (500_000, 8), (0, 4))
    flip.score(X, sp.eye_array(1000, 2000, format="csr"))
    name = resource.RLIMIT_AS if limits_address_space else resource.RLIMIT_DATA
    size = Path("/proc/self/statm").read_text().split()[0 if limits_address_space else 5]
    resource.setrlimit(name, (int(size) * resource.getpagesize() + 2 * GIB, resource.RLIM_INFINITY))
    flip.sparse_output = False
    messages = []
    for verb in (flip.decision_function, flip.predict_proba, flip.predict_log_proba, flip.transform):
        with pytest.raises(ValueError, match="dense") as error:
            verb(many)
        messages.append(str(error.value))
    return messages


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="this system has no /proc")
@pytest.mark.parametrize("limits_address_space", [True, False])
def test_results_larger_than_the_limit_of_the_process_are_refused(limits_address_space: bool) -> None:
    """RLIMIT_AS is known before; RLIMIT_DATA is not, so that the allocation itself fails."""
    for message in in_process(messages_under_a_limit, limits_address_space):
        assert message.startswith("a dense (500000, 2000) array takes 3.7 GiB")
        assert ("GiB are free" in message) == limits_address_space
        assert "pass fewer rows at a time" in message


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("[enforce fail] can't allocate memory: ...")])
def test_failed_allocations_are_refusals_and_other_errors_are_not(error: Exception) -> None:
    X = np.zeros((10, 2), dtype=np.float32)
    with pytest.raises(ValueError, match="cannot be allocated"), scoring.translate_memory_errors(X, 5):
        raise error
    with pytest.raises(RuntimeError, match="another"), scoring.translate_memory_errors(X, 5):
        raise RuntimeError("another")
