"""Where the hierarchies are: this machine's, and mount lists of other hosts."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from streamer.errors import Unsupported
from streamer.kernel.hierarchy import Hierarchies, detect, tree
from tests.support.cgroups import CgroupFolder

Host = Callable[..., Path]


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """Makes a host's root with these lines of mountinfo (place, type, options[, root]) and a directory at each place."""

    def make(*mounts: tuple[str, ...], controllers: str = "", below: str = "") -> Path:
        lines = []
        for number, (place, fstype, options, *root) in enumerate(mounts, start=30):
            directory = tmp_path / place[1:]
            directory.mkdir(parents=True, exist_ok=True)
            (directory / "cgroup.procs").touch()
            if fstype == "cgroup2":
                (directory / "cgroup.controllers").write_text(controllers)
            place_seen = (below + place).replace(" ", r"\040")
            lines.append(f"{number} 25 0:{number} {root[0] if root else '/'} {place_seen} rw,nosuid - {fstype} cgroup {options}\n")
        (tmp_path / "proc/1").mkdir(parents=True)
        (tmp_path / "proc/1/mountinfo").write_text("".join(lines))
        return tmp_path

    return make


def test_v2_host(host: Host) -> None:
    """One hierarchy for all controllers."""
    root = host(("/sys/fs/cgroup", "cgroup2", "rw,nsdelegate"), controllers="cpu io memory pids")
    found = detect(root)
    assert (found.mode, found.watched, found.anchor) == ("v2", ("unified",), "unified")
    assert found.proc == f"{root}/proc"
    assert found.file("memory", "/a/b", "memory.current") == f"{root}/sys/fs/cgroup/a/b/memory.current"
    assert found.file("cpu", "/", "cpu.stat") == f"{root}/sys/fs/cgroup/cpu.stat"
    assert found.directory("unified", "/a") == f"{root}/sys/fs/cgroup/a"
    assert found.directory("unified", "/") == f"{root}/sys/fs/cgroup"


def test_v1_host_with_controllers_mounted_together(host: Host) -> None:
    """What is mounted together is watched once; named hierarchies are left out."""
    root = host(
        ("/sys/fs/cgroup/systemd", "cgroup", "rw,xattr,name=systemd"),
        ("/sys/fs/cgroup/cpu,cpuacct", "cgroup", "rw,cpu,cpuacct"),
        ("/sys/fs/cgroup/memory", "cgroup", "rw,memory"),
        ("/sys/fs/cgroup/freezer", "cgroup", "rw,freezer"),
        ("/sys/fs/cgroup/pids", "cgroup", "rw,pids"),
    )
    found = detect(root)
    assert (found.mode, found.watched, found.anchor) == ("v1", ("memory", "cpu", "pids"), "memory")
    assert set(found.mounts) == {"cpu", "cpuacct", "memory", "freezer", "pids"}
    assert found.file("cpuacct", "/a", "cpuacct.usage") == f"{root}/sys/fs/cgroup/cpu,cpuacct/a/cpuacct.usage"
    assert found.file("blkio", "/a", "x") is None


def test_hybrid_host_has_its_controllers_on_v1(host: Host) -> None:
    """The unified mount beside them has none."""
    found = detect(host(("/sys/fs/cgroup/memory", "cgroup", "rw,memory"), ("/sys/fs/cgroup/unified", "cgroup2", "rw")))
    assert (found.mode, found.watched) == ("hybrid", ("memory",))


def test_v2_host_with_a_leftover_of_v1(host: Host) -> None:
    """A single v1 mount without memory and cpu does not make a host v1."""
    mounts = ("/sys/fs/cgroup", "cgroup2", "rw"), ("/sys/fs/cgroup/net_cls", "cgroup", "rw,net_cls")
    found = detect(host(*mounts, controllers="cpu memory"))
    assert (found.mode, set(found.mounts)) == ("v2", {"unified"})


def test_v1_host_without_any_controller_that_is_read(host: Host) -> None:
    """There is still a hierarchy to watch."""
    assert detect(host(("/sys/fs/cgroup/freezer", "cgroup", "rw,freezer"))).watched == ("freezer",)


def test_mount_list_of_a_container_that_has_the_hosts_root_bound_into_it(host: Host, tmp_path: Path) -> None:
    """Seen from inside, the places carry the prefix already; it does where the host's own list cannot be read."""
    root = host(("/sys/fs/cgroup/memory", "cgroup", "rw,memory"), below=str(tmp_path))
    own = (root / "proc/1/mountinfo").rename(root / "own")
    assert detect(root, str(own)).mounts == {"memory": f"{root}/sys/fs/cgroup/memory"}


def test_mounts_of_the_containers_own_are_not_the_hosts(host: Host) -> None:
    """What is outside of the host's root is not taken, wherever it comes from."""
    root = host(("/sys/fs/cgroup/cpu", "cgroup", "rw,cpu"))
    assert set(detect(root, "/proc/self/mountinfo").mounts) == {"cpu"}


def test_whole_hierarchy_seen_from_a_cgroup_namespace(host: Host) -> None:
    """Its root is above the namespace's; what looks whole is the container's own part."""
    root = host(
        ("/sys/fs/cgroup/own", "cgroup", "rw,memory"),
        ("/sys/fs/cgroup/memory", "cgroup", "rw,memory", "/../.."),
    )
    assert detect(root).mounts["memory"] == f"{root}/sys/fs/cgroup/memory"


def test_usual_place_and_whole_hierarchy_are_preferred(host: Host) -> None:
    """A second mount elsewhere, or one that shows a part only, as inside a container, comes after."""
    root = host(
        ("/var/lib/chroot/cgroup/memory", "cgroup", "rw,memory"),
        ("/sys/fs/cgroup/part", "cgroup", "rw,memory", "/docker/x"),
        ("/sys/fs/cgroup/memory", "cgroup", "rw,memory"),
    )
    assert detect(root).mounts["memory"] == f"{root}/sys/fs/cgroup/memory"


def test_place_with_a_space(host: Host) -> None:
    """mountinfo writes it in octal."""
    root = host(("/sys/fs/cgroup/my memory", "cgroup", "rw,memory"))
    assert detect(root).mounts["memory"] == f"{root}/sys/fs/cgroup/my memory"


def test_listed_mount_that_is_not_there_is_not_taken(host: Host) -> None:
    """As when another mount covers it."""
    root = host(("/sys/fs/cgroup/memory", "cgroup", "rw,memory"), ("/sys/fs/cgroup/cpu", "cgroup", "rw,cpu"))
    (root / "sys/fs/cgroup/memory/cgroup.procs").unlink()
    assert detect(root).watched == ("cpu",)


def test_host_without_cgroups_is_told_what_to_mount(host: Host) -> None:
    """The error has a remedy."""
    root = host()
    with pytest.raises(Unsupported) as problem:
        detect(root)
    assert f"{root}/sys/fs/cgroup" in problem.value.remedy


@pytest.mark.live
@pytest.mark.v2
def test_this_machine(cgroups: CgroupFolder) -> None:
    """The mode, and directories that are the kernel's."""
    found = detect(Path("/"))
    assert (found.mode == "v2") == cgroups.v2
    path = cgroups.make("a")
    for hierarchy in found.watched:
        assert Path(found.directory(hierarchy, path), "cgroup.procs").is_file()


@pytest.mark.live
@pytest.mark.v2
def test_tree_lists_every_cgroup_with_its_inode(cgroups: CgroupFolder) -> None:
    """The root first, parents before their children, inodes as stat(2) says."""
    found = detect(Path("/"))
    paths = [cgroups.make("a"), cgroups.make("a/b"), cgroups.make("a/b/ c,d"), cgroups.make("e")]
    listed = list(tree(found, found.anchor))
    assert listed[0] == ("/", os.stat(found.mounts[found.anchor]).st_ino)
    order = [path for path, _ in listed]
    assert set(paths) <= set(order)
    assert order.index(paths[0]) < order.index(paths[1]) < order.index(paths[2])
    for path in paths:
        assert dict(listed)[path] == os.stat(found.directory(found.anchor, path)).st_ino


def test_tree_goes_on_when_directories_vanish(tmp_path: Path) -> None:
    """What is removed during the walk is left out, the rest is there."""
    for name in ("a/x", "b/x", "c/x"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("a")
    walk = tree(Hierarchies("v2", {"unified": str(tmp_path)}, ("unified",)), "unified")
    seen = [next(walk)[0], next(walk)[0]]
    (tmp_path / "b/x").rmdir()
    (tmp_path / "b").rmdir()
    seen += [path for path, _ in walk]
    assert {"/", "/a", "/a/x", "/c", "/c/x"} <= set(seen)
    assert "/b/x" not in seen
    assert "/link" not in seen


def test_tree_of_a_hierarchy_that_was_unmounted_is_empty(tmp_path: Path) -> None:
    """No error."""
    assert list(tree(Hierarchies("v2", {"unified": str(tmp_path / "no")}, ("unified",)), "unified")) == []
