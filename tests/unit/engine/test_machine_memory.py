"""Memory limits of the machine and of control groups, from files as the kernel writes them."""

import pytest

from faigfast.engine.machine_memory import machine_memory

GIB = 2**30


@pytest.fixture
def root(tmp_path):
    """A machine with 100 GiB available and no control group; `write` adds files."""
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text(f"MemTotal: 1 kB\nMemAvailable:  {100 * 2**20} kB\n")
    return tmp_path


def write(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(f"{content}\n")


def test_a_machine_without_limits(root):
    total, available = machine_memory(root)
    assert total > 2**28 and available == 100 * GIB


@pytest.mark.parametrize("limited", ["", "slurm", "slurm/job_1/step_0"])
def test_the_least_limit_of_all_groups_around_the_process(root, limited):
    (root / "proc/self/cgroup").write_text("0::/slurm/job_1/step_0\n")
    for group in ("", "slurm", "slurm/job_1", "slurm/job_1/step_0"):
        limit = GIB if group == limited else "max"
        write(root / "sys/fs/cgroup" / group, memory__max=limit, memory__current=3 * 2**28)
    write(root / "sys/fs/cgroup" / limited, memory__stat=f"anon 5\ninactive_file {2**28}")
    assert machine_memory(root) == (GIB, GIB - 2**29)


def test_groups_of_the_first_version(root):
    (root / "proc/self/cgroup").write_text("4:cpu:/a\n3:memory:/user/job\n0::/\n")
    group = root / "sys/fs/cgroup/memory/user/job"
    write(group, memory__limit_in_bytes=GIB, memory__usage_in_bytes=2**20)
    write(root / "sys/fs/cgroup/memory", memory__limit_in_bytes=2**63 - 4096)
    assert machine_memory(root) == (GIB, GIB - 2**20)


def test_a_container_that_sees_its_own_group_as_the_first(root):
    (root / "proc/self/cgroup").write_text("0::/../../elsewhere\n")
    write(root / "sys/fs/cgroup", memory__max=GIB, memory__current=2 * GIB)
    assert machine_memory(root) == (GIB, 0)
