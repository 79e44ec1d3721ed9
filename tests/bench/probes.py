"""What benchmarks are measured against: a PostgreSQL of their own, and small sums."""
import os
import shutil
import subprocess
import tempfile

PGBIN = "/usr/lib/postgresql/15/bin"


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


class Scratch:
    """A PostgreSQL of its own for the probes, durable like the pool's."""

    def __init__(self):
        self.dir = tempfile.mkdtemp(prefix="sheaf-bench-", dir="/tmp")
        os.chmod(self.dir, 0o777)
        self.data = os.path.join(self.dir, "data")
        self.user = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
        self.run("initdb", "-D", self.data, "-A", "trust", "-U", "bench", "--no-sync")
        self.run("pg_ctl", "-D", self.data, "-w", "-l", os.path.join(self.dir, "log"), "-o",
                 f"-c listen_addresses='' -k {self.dir}", "start")
        self.run("psql", "-h", self.dir, "-U", "bench", "postgres", "-qc",
                 "CREATE TABLE job(id bigserial PRIMARY KEY, body text);"
                 "CREATE TABLE event(id bigserial PRIMARY KEY, job bigint, body text);"
                 "CREATE TABLE worker(id int PRIMARY KEY, n bigint);"
                 "INSERT INTO worker SELECT g, 0 FROM generate_series(1, 100) g")

    def run(self, program, *words):
        return subprocess.run([*self.user, os.path.join(PGBIN, program), *words], check=True,
                              capture_output=True, text=True, cwd="/tmp").stdout

    def pgbench(self, script, clients, seconds=4):
        path = os.path.join(self.dir, "script.sql")
        with open(path, "w", encoding="utf-8") as file:
            file.write(script)
        out = self.run("pgbench", "-n", "-M", "prepared", "-c", str(clients), "-j", "1", "-T",
                       str(seconds), "-f", path, "-h", self.dir, "-U", "bench", "postgres")
        tps = next(float(l.split()[2]) for l in out.splitlines() if l.startswith("tps"))
        return tps

    def commit_ms(self):
        return 1000 / self.pgbench("INSERT INTO event(job, body) VALUES (1, 'x');", 1)

    def job_transactions(self):
        return self.pgbench(
            "\\set w random(1, 100)\nBEGIN;\nINSERT INTO job(body) VALUES ('x');\n"
            "INSERT INTO event(job, body) VALUES (1, 'x');\n"
            "UPDATE worker SET n = n + 1 WHERE id = :w;\nCOMMIT;", 4)

    def close(self):
        self.run("pg_ctl", "-D", self.data, "-m", "immediate", "stop")
        shutil.rmtree(self.dir, ignore_errors=True)


def books(pool):
    return "ok" if pool.ledger_sum() == "0" else "the ledger does not sum to zero"


def resident_mib(program):
    with open(f"/proc/{program.process.pid}/status", encoding="utf-8") as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith("VmRSS"))
