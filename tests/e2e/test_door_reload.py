"""SIGHUP: certificates and settings are read again, what is wrong changes nothing and is told."""
import http.client
import os
import re
import signal
import socket
import ssl
import subprocess
import unittest

from pool import Pool, until

GPU = "cpu:512MB:1"


class Reload(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.pool = Pool()
        cls.addClassCleanup(lambda: cls.pool.stop(keep=os.environ.get("SHEAF_KEEP") == "1"))
        cls.files = {name: os.path.join(cls.pool.dir, name + ".yaml")
                     for name in ("orchestrator", "gateway", "worker")}
        for path in cls.files.values():
            cls.write(path, "# nothing yet\n")
        cls.pool.orchestrator.argv += ["--config", cls.files["orchestrator"]]
        cls.pool.gateway.argv += ["--config", cls.files["gateway"]]
        cls.pool.start()
        cls.worker = cls.pool.add_worker("w1", devices=1, start=False)
        cls.worker.program.argv += ["--config", cls.files["worker"]]
        cls.worker.start()
        cls.pool.until_ready(1)

    @staticmethod
    def write(path, text):
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)

    def reload(self, program, text, event="reloaded"):
        """Writes the program's file and sends SIGHUP; the log lines that it wrote then."""
        name = "worker" if program is self.worker.program else program.name
        self.write(self.files[name], text)
        before = len(program.log())
        program.process.send_signal(signal.SIGHUP)
        until(f"{name} says {event}", lambda: re.search(
            rf"module=config event={event}\b.*\n", program.log()[before:]), 20)
        return program.log()[before:]

    def refuse(self, program, text, place, words):
        """A file that is refused: one error line that names file, line and key."""
        name = "worker" if program is self.worker.program else program.name
        told = self.reload(program, text, "reload-refused")
        line = next(line for line in told.splitlines() if "event=reload-refused" in line)
        self.assertIn("level=error", line)
        self.assertIn(f'detail="{self.files[name]}:{place}: ', line)
        self.assertIn(words, line)

    def gateway_metric(self, name):
        connection = self.connect()
        connection.request("GET", "/metrics")
        page = connection.getresponse().read().decode()
        connection.close()
        return float(re.search(rf"^{name} (\S+)$", page, re.M).group(1))

    # -- gateway ------------------------------------------------------------------------------

    def connect(self):
        unchecked = ssl.create_default_context()
        unchecked.check_hostname, unchecked.verify_mode = False, ssl.CERT_NONE
        host, port = self.pool.url.removeprefix("https://").split(":")
        connection = http.client.HTTPSConnection(host, int(port), context=unchecked, timeout=20)
        connection.connect()
        return connection

    def served(self):
        """The certificate that a new connection is shown."""
        connection = self.connect()
        shown = connection.sock.getpeercert(binary_form=True)
        connection.close()
        return shown

    def make_pair(self, name):
        """A self-signed certificate; its paths and its DER form."""
        cert, key = (os.path.join(self.pool.dir, f"{name}.{kind}") for kind in ("pem", "key"))
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                        "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=" + name, "-days", "2",
                        "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", cert],
                       check=True, capture_output=True)
        with open(cert, encoding="utf-8") as file:
            return cert, key, ssl.PEM_cert_to_DER_cert(file.read())

    def test_certificates_change_while_connections_stay(self):
        gateway = self.pool.gateway
        first = self.served()
        old = self.connect()
        cert, key, one = self.make_pair("one")
        _, _, two = pair = self.make_pair("two")
        files = f"tls-cert: {cert}\ntls-key: {key}\n"
        self.reload(gateway, files)
        self.assertEqual(self.served(), one)
        self.assertNotEqual(one, first)
        # The same paths with other contents: read again all the same.
        for source, target in zip(pair, (cert, key)):
            os.replace(source, target)
        self.reload(gateway, files)
        self.assertEqual(self.served(), two)
        # No certificate, no key, not a pair: the last good one stays.
        self.refuse(gateway, f"tls-cert: {self.pool.dir}/none.pem\ntls-key: {key}\n",
                    "1:tls-cert", "none.pem")
        self.assertEqual(self.gateway_metric("sheaf_gateway_config_reload_failed"), 1)
        self.refuse(gateway, f"tls-cert: {cert}\ntls-key: {cert}\n", "2:tls-key", cert)
        self.refuse(gateway, f"# alone\ntls-cert: {cert}\n", "2:tls-cert", "go together")
        self.assertEqual(self.served(), two)
        # The connection of the beginning never noticed.
        for _ in range(2):
            old.request("GET", "/healthz")
            self.assertEqual(old.getresponse().read(), b'{"status":"ok"}')
        self.assertEqual(old.sock.getpeercert(binary_form=True), first)
        old.close()
        # Back to the local CA, and the command line trusts it again.
        self.reload(gateway, "")
        self.assertEqual(self.served(), first)
        self.assertEqual(self.gateway_metric("sheaf_gateway_config_reload_failed"), 0)
        self.pool.tenant("ps")

    def test_limits_and_log_level_of_the_gateway(self):
        gateway = self.pool.gateway
        self.refuse(gateway, "log-level: loud\n", "1:log-level", "not debug")
        self.refuse(gateway, "log-level: warn\nmax-connections: 3\n", "2:max-connections",
                    "out of range (16 to 65536): 3")
        told = self.reload(gateway, "store: /elsewhere\nmax-connections: 16\n")
        self.assertIn("event=needs-restart key=store", told)
        self.assertIn('event=changed key=max-connections value="16"', told)
        host, port = self.pool.url.removeprefix("https://").split(":")
        held = []
        refused = self.gateway_metric("sheaf_gateway_http_refused_total")
        try:
            for _ in range(17):  # none says a word, so none can make room for another
                held.append(socket.create_connection((host, int(port)), 20))
            held[16].settimeout(20)
            self.assertEqual(held[16].recv(1), b"")
        finally:
            for sock in held:
                sock.close()
        self.reload(gateway, "")
        self.assertGreater(self.gateway_metric("sheaf_gateway_http_refused_total"), refused)

    # -- orchestrator -------------------------------------------------------------------------

    def fee_of_a_job(self):
        """The operator's part of a bill, in millionths of it."""
        job = self.pool.tenant.submit({"name": "pay", "resources": {"gpu": GPU},
                                       "commands": ["sleep 0.2"]})
        self.assertEqual(self.pool.tenant.wait(job)["state"], "succeeded")
        cost = self.pool.tenant.json("cost", job)
        charged, fee = (round(float(cost[key]) * 1e6) for key in ("charged", "fee"))
        self.assertGreater(charged, 20)
        return fee / charged * 1e6

    def test_a_bad_setting_keeps_the_old_value_and_alerts(self):
        orchestrator = self.pool.orchestrator
        usual = self.fee_of_a_job()
        self.refuse(orchestrator, "# settings\nfee-ppm: 1010000\n", "2:fee-ppm",
                    "out of range (0 to 1000000): 1010000")
        self.assertEqual(self.pool.metric("sheaf_config_reload_failed"), 1)
        self.assertAlmostEqual(self.fee_of_a_job(), usual, delta=50_000)
        self.refuse(orchestrator, "fee-ppm: 500000\nlost-after: 1s\n", "2:lost-after",
                    "shorter than 3 heartbeats")
        self.refuse(orchestrator, "backoff-max: 1s\n", "1:backoff-max", "is not within")
        self.refuse(orchestrator, "fee-pm: 5\n", "1:fee-pm", "unknown key; did you mean fee-ppm?")
        self.assertAlmostEqual(self.fee_of_a_job(), usual, delta=50_000)
        told = self.reload(orchestrator, "fee-ppm: 500000\nheartbeat: 7s\n")
        self.assertIn("event=needs-restart key=heartbeat", told)
        self.assertEqual(self.pool.metric("sheaf_config_reload_failed"), 0)
        self.assertAlmostEqual(self.fee_of_a_job(), 500_000, delta=50_000)
        self.reload(orchestrator, "")
        self.assertAlmostEqual(self.fee_of_a_job(), usual, delta=50_000)

    # -- worker -------------------------------------------------------------------------------

    def test_a_worker_reads_its_settings_again_in_its_session(self):
        program = self.worker.program
        hellos = self.pool.orchestrator.log().count("event=hello")
        told = self.reload(program, "orphan-policy: stop\nlog-level: debug\nprobe-port: 9\n")
        self.assertIn('event=changed key=orphan-policy value="stop"', told)
        self.assertNotIn("needs-restart key=probe-port", told)  # a flag says it, the file does not
        self.fee_of_a_job()
        self.assertIn("level=debug", program.log())
        self.refuse(program, "log-level: info\norphan-policy: perhaps\n", "2:orphan-policy",
                    "neither 'keep' nor 'stop'")
        self.refuse(program, "usage-every: 1h30\n", "1:usage-every", "not a time")
        self.reload(program, "")
        self.assertEqual(self.pool.node("w1")["state"], "ready")
        self.assertEqual(self.pool.orchestrator.log().count("event=hello"), hellos)


if __name__ == "__main__":
    unittest.main(verbosity=2)
