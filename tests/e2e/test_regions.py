"""The region emulator does what it is asked: delays, cuts, NAT."""
import os
import subprocess
import sys
import unittest

from pool import ROOT

ECHO = """
import socket
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.bind(("0.0.0.0", 9))
print("up", flush=True)
while True:
    data, peer = sock.recvfrom(64)
    sock.sendto(data, peer)
"""
PING = """
import socket, sys, time
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.settimeout(1)
taken = []
for _ in range(int(sys.argv[2])):
    began = time.perf_counter()
    sock.sendto(b"x", (sys.argv[1], 9))
    try:
        sock.recvfrom(64)
    except TimeoutError:
        continue
    taken.append((time.perf_counter() - began) * 1000)
print(min(taken, default=-1))
"""


@unittest.skipUnless(os.getuid() == 0 and os.path.exists("/dev/net/tun"), "needs root and TUN")
class Regions(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.support = os.path.join(ROOT, "tests", "support")
        subprocess.run([cls.support + "/regions-up", "rt", "4", "10.79"], check=True)
        cls.echoes = []
        for region in (1, 2, 3):
            echo = subprocess.Popen(["ip", "netns", "exec", f"sheaf-rt-{region}", sys.executable,
                                     "-c", ECHO], stdout=subprocess.PIPE, text=True)
            echo.stdout.readline()
            cls.echoes.append(echo)

    @classmethod
    def tearDownClass(cls):
        for echo in cls.echoes:
            echo.kill()
            echo.wait()
            echo.stdout.close()
        subprocess.run([cls.support + "/regions-down", "rt"], check=True)

    def ctl(self, *words):
        program = os.path.join(ROOT, "build", "dev", "tests", "regions")
        return subprocess.run([program, "ctl", "/tmp/sheaf-regions-rt.sock", *words], check=True,
                              capture_output=True, text=True).stdout

    def rtt_ms(self, source, target, count=15):
        """The least of `count` round trips: what the emulator adds, without what a busy machine does."""
        done = subprocess.run(["ip", "netns", "exec", f"sheaf-rt-{source}", sys.executable, "-c",
                               PING, f"10.79.{target}.1", str(count)], check=True,
                              capture_output=True, text=True)
        return float(done.stdout)

    def test_round_trips_come_out_as_asked(self):
        for pair, delay in (((1, 2), 20), ((1, 3), 75), ((2, 3), 3)):
            self.ctl("set", str(pair[0]), str(pair[1]), "delay", f"{delay}ms")
            seen = self.rtt_ms(*pair)
            self.assertGreater(seen, 2 * delay * 0.99)
            self.assertLess(seen, 2 * delay * 1.15 + 1)

    def test_a_cut_link_carries_nothing_until_it_heals(self):
        self.ctl("set", "1", "2", "delay", "1ms")
        self.ctl("cut", "1", "2")
        self.assertEqual(self.rtt_ms(1, 2, 1), -1)
        self.ctl("heal", "1", "2")
        self.assertGreater(self.rtt_ms(1, 2), 0)

    def test_behind_nat_one_dials_out_but_is_not_dialled(self):
        self.ctl("set", "1", "2", "delay", "1ms")
        self.ctl("nat", "2", "on")
        try:
            self.assertEqual(self.rtt_ms(1, 2, 1), -1)
            self.assertGreater(self.rtt_ms(2, 1), 0)
        finally:
            self.ctl("nat", "2", "off")


if __name__ == "__main__":
    unittest.main(verbosity=2)
