"""What enrolled peers cost that never end a message."""
import threading
import time

from pool import Pool
from probes import resident_mib


class Watch(threading.Thread):
    """The most that a program's resident memory grows by."""

    def __init__(self, program):
        super().__init__(daemon=True)
        self.program, self.before, self.most = program, resident_mib(program), 0.0
        self.over = threading.Event()
        self.start()

    def run(self):
        while not self.over.wait(0.005):
            self.most = max(self.most, resident_mib(self.program) - self.before)

    def stop(self):
        self.over.set()
        self.join()
        return self.most


def flood(program, connections):
    """Floods from all at once: growth of the program in MiB, and until the last one is ended, in
    seconds since its first byte was on its way."""
    import zmq
    watch = Watch(program)
    began = time.monotonic()
    for connection in connections:
        connection.flood(1024)
    for connection in connections:
        connection.event(zmq.EVENT_DISCONNECTED, 60)
    return watch.stop(), time.monotonic() - began


def bench_worker_flood(args, emit):
    """Enrolled peers that never end a message, at full speed of loopback."""
    del args
    from peer import Node, Session
    pool = Pool().start()
    try:
        pool.add_worker("honest", devices=1)
        pool.until_ready(1)
        good = pool.sql("SELECT id FROM node WHERE name = 'honest'")
        for count in (1, 20):
            token = pool.operator.json("token", "join", "--provider", "flood", "--uses",
                                       str(count))["token"]
            sessions = [Session(Node(pool, f"flood-{count}-{i}", token=token))
                        for i in range(count)]
            grown, seconds = flood(pool.orchestrator, sessions)
            for session in sessions:
                session.close()
            log = pool.orchestrator.log()
            gate = "ok"
            if f"event=silent node={good}\n" in log:
                gate = "the honest worker lost heartbeats"
            elif grown > 64:
                gate = f"{grown:.0f} MiB grown, at most 64"
            elif count == 1 and seconds > 1:
                gate = f"ended after {seconds:.2f} s, at most 1"
            data = f"{count} peers, one message of 1 GiB each"
            emit("worker-flood", f"rss-growth-{count}", grown, "MiB", "gate", 64, gate, data)
            emit("worker-flood", f"until-ended-{count}", seconds, "s", "gate", 1, gate, data)
    finally:
        pool.stop()
