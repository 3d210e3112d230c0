"""Reads the numbers of one cgroup, again and again, as cheaply as the kernel lets us.

Files are opened once and read with pread(2) as long as the budget of descriptors lasts: opening and closing costs eight
times as much as reading. A descriptor of a removed cgroup answers ENODEV, so an old reader never reads a new cgroup of
the same name; where files are opened again, the inode of the directory is compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from streamer.kernel.budget import DescriptorBudget
from streamer.kernel.files import parser
from streamer.kernel.hierarchy import Hierarchies
from streamer.kernel.limits import read_populated, read_procs, read_spec
from streamer.kernel.network import NetDev, of_the_host
from streamer.kernel.opened import OpenFiles
from streamer.kernel.plan import KernelFile, Plan, devices, plan_for
from streamer.kernel.texts import Texts, count_lines, read_whole
from streamer.model.stats import ABSENT, FilesystemUsage, IoDevice, Sample

__all__ = ["CgroupReader", "DescriptorBudget", "read_populated", "read_procs", "read_spec"]

_RECOUNT_EVERY: Final = 30
"""Looks after which processes are counted again though nothing moved. Who forks, starts or ends uses CPU time, so a new number
comes with a new cpu.stat or pids.current; only moves between cgroups within one look may cancel out."""


class CgroupReader:
    """Reads samples of one cgroup. Not for several threads at once.

    On v1 a cgroup may be in some hierarchies only; what the others would tell is absent. A file that is not there is
    looked for again after 1, 2, 4, 8, … reads: runtimes make the directories of a container one after the other, and a
    controller may be enabled later.

    net_dev_pid  the process whose network counters are the cgroup's, 0: none is read
    """

    def __init__(self, hierarchies: Hierarchies, path: str, budget: DescriptorBudget, net_dev_pid: int = 0) -> None:
        self._budget = budget
        self._files = OpenFiles(hierarchies, path, budget)
        self._root = path == "/"
        self._network = NetDev(hierarchies.proc, budget, of_the_host if self._root else None)
        self._held = 0
        self._reads = 0
        self._look_again_at = 0
        self._use(())
        self.net_dev_pid = 0
        self.set_net_dev_pid(net_dev_pid)

    @property
    def descriptors(self) -> int:
        """Descriptors held open now, as the budget counts them."""
        return self._held + self._network.descriptors

    @property
    def inode(self) -> int:
        """The inode of the cgroup's directory in the first of the watched hierarchies that has it; 0 before the first read."""
        return self._files.inode

    def set_net_dev_pid(self, pid: int, *, read: bool = True) -> None:
        """Take network counters from this process from now on; not at all with `read` false, or for pid 0."""
        self.net_dev_pid = pid
        self._network.follow(pid if read else 0)

    def read(self, time_ns: int, filesystems: tuple[FilesystemUsage, ...] = ()) -> Sample:
        """One sample; `time_ns` is what it will be dated with, `filesystems` what others have measured for it.

        Raises:
            Gone: no file answers, the cgroup was removed.
        """
        if not self._held or (self._reads >= self._look_again_at and self._files.missing):
            self._acquire()
        self._reads += 1
        plan = self._plan
        try:
            try:
                values = self._look(plan)
            except OSError:
                values = self._look_at_what_answers(plan)
            interfaces = self._network.read() if self.net_dev_pid else ()
            return Sample(time_ns, values, interfaces, self._devices, filesystems)
        finally:
            if self._budget.over:
                self._budget.give(self._held)
                self._held = 0
            if not self._held:
                self._files.close()

    def close(self) -> None:
        """Let go of every descriptor; a later read opens what it needs."""
        self._budget.give(self._held)
        self._held = 0
        self._files.close()
        self._network.close()

    # opening

    def _acquire(self) -> None:
        starved = self._budget.starved
        if self._reads >= self._look_again_at or not self._there:
            self._look_again_at = max(1, 2 * self._reads)
            self._files.open(self._files.wanted)
        else:
            self._files.open(self._there)
        if self._budget.starved > starved:
            self._look_again_at = 0  # not the cgroup lacks files, we lack descriptors: that passes
        self._settle(again=True)

    def _settle(self, *, again: bool = False) -> None:
        """Read what is open from now on; hold it if the budget allows, otherwise it is closed after each read.

        `again`: nothing went wrong since these files were read last.
        """
        there = self._files.there
        self._budget.give(self._held)
        self._held = len(there) if self._budget.take(len(there)) else 0
        if again and there == self._there:  # the same files of the same cgroup: what they said last still stands
            descriptors = self._files.descriptors
            self._lists = [(descriptors[file], _name(file)) for file in self._plan.lists]
            self._texts.reopened([descriptors[file] for file in self._plan.tables])
        else:
            self._use(there)

    def _use(self, there: tuple[KernelFile, ...]) -> None:
        descriptors = self._files.descriptors
        plan = self._plan = plan_for(there, root=self._root)
        self._there = there
        self._lists = [(descriptors[file], _name(file)) for file in plan.lists]
        # what each table said last, and the numbers that it meant: an idle cgroup says the same again
        self._texts = Texts([descriptors[file] for file in plan.tables], plan.sizes, plan.follows)
        self._known: list[Sequence[Any]] = [()] * len(plan.tables)
        self._counts: list[int] = []
        self._recount_in = 0
        self._values: tuple[Any, ...] = ()
        self._devices: tuple[IoDevice, ...] = ()

    # reading

    def _look(self, plan: Plan) -> tuple[Any, ...]:
        """The columns; the very same tuple while no file says anything new. This is where an agent spends its life."""
        texts, known = self._texts, self._known
        changed = texts.changed()
        for place in changed:
            known[place] = plan.parsers[place](texts.text(place))
        if changed:
            if not plan.by_device.isdisjoint(changed):
                self._devices = devices(plan, texts.text)
        elif self._recount_in:
            self._recount_in -= 1
            return self._values
        self._recount_in = _RECOUNT_EVERY
        counts = [count_lines(descriptor, name) for descriptor, name in self._lists]
        if changed or counts != self._counts or not self._values:
            self._counts = counts
            numbers = [ABSENT]
            for some in known:
                numbers += some
            self._values = plan.pick(_with_working_set(plan, numbers + counts))
        return self._values

    def _look_at_what_answers(self, plan: Plan) -> tuple[Any, ...]:
        """The same file by file: what does not answer is absent, and let go of if it never will."""
        files = self._files
        numbers: list[Any] = [ABSENT]
        texts: dict[KernelFile, bytes] = dict.fromkeys(plan.tables, b"")
        for file in (*plan.tables, *plan.lists):
            try:
                if file.layout == "lines":
                    numbers.append(count_lines(files.descriptors[file], _name(file)))
                    continue
                raw = read_whole(files.descriptors[file])
                numbers += parser(file.layout, file.wanted)(raw)
                texts[file] = raw
            except OSError as problem:
                numbers += [ABSENT] * len(file.columns)
                if files.failed(file, problem):
                    files.drop(file)
        if len(files.descriptors) < len(self._there):
            if not files.descriptors:
                files.open(files.wanted)  # Gone, most likely
            self._settle()
        else:
            self._use(self._there)  # what was read before the failure is not known to be taken in
        self._devices = devices(plan, lambda place: texts[plan.tables[place]])
        return plan.pick(_with_working_set(plan, numbers))


def _name(file: KernelFile) -> str:
    """What to open for it in the directory that is held open; "": it is open itself."""
    return file.name if file.by_name else ""


def _with_working_set(plan: Plan, numbers: list[Any]) -> list[Any]:
    if plan.charged is not None:
        anonymous, cached = (numbers[place] for place in plan.charged)
        usage = ABSENT if anonymous is ABSENT or cached is ABSENT else anonymous + cached
    else:
        usage = numbers[plan.usage]
    inactive = numbers[plan.inactive]
    if usage is ABSENT or inactive is ABSENT:
        numbers.append(ABSENT)
    else:  # the two are read one after the other: the difference of a busy cgroup may fall below nothing
        numbers.append(usage - inactive if usage > inactive else 0)
    if plan.charged is not None:
        numbers.append(usage)
    return numbers
