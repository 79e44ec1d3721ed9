"""CPU time of a pool, by program: the steady measure on a machine that others use too.

A process counts what it waited for: the time of tasks (supervisors, sandboxes and what runs in
them) is what workers waited for, and what still lives below them. The bench adopts orphans, so
that a database that outlives whoever started it is seen.
"""
import ctypes
import os
import resource

PR_SET_CHILD_SUBREAPER = 36
TICK = os.sysconf("SC_CLK_TCK")
NAMES = {"sheaf-orchestra": "orchestrator", "sheaf-gateway": "gateway", "sheaf-worker": "worker",
         "postgres": "postgres", "simworkers": "simulation"}


def adopt_orphans():
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def used(who):
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime


def processes():
    """By pid: name, parent, seconds of its own, seconds of those that it waited for."""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
                text = file.read()
        except OSError:
            continue  # it ended meanwhile
        fields = text.rpartition(")")[2].split()
        own, waited = (sum(int(field) for field in fields[at:at + 2]) / TICK for at in (11, 13))
        found[int(pid)] = (text[text.index("(") + 1:text.rindex(")")], int(fields[1]), own, waited)
    return found


def collect_orphans(names):
    """Waits for the orphans of these names; others, a database for one, live on."""
    for pid, (name, parent, _, _) in processes().items():
        if parent == os.getpid() and name in names:
            os.waitpid(pid, 0)


class Meter:
    """Seconds of CPU since its making, by program."""

    def __init__(self):
        self.begun = self._now()

    @staticmethod
    def _now():
        known = processes()
        seconds = {"client": used(resource.RUSAGE_SELF) + used(resource.RUSAGE_CHILDREN)}
        for pid, (name, parent, own, waited) in known.items():
            while parent in known and parent != os.getpid():
                parent = known[parent][1]
            if parent != os.getpid() or pid == parent:
                continue
            program = NAMES.get(name, "tasks")
            part = "tasks" if program == "worker" else program
            seconds[program] = seconds.get(program, 0) + own
            seconds[part] = seconds.get(part, 0) + waited
        return seconds

    def read(self):
        now = self._now()
        return {name: now[name] - self.begun.get(name, 0) for name in sorted(now)}
