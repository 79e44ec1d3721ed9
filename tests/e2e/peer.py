"""Workers, orchestrators and passers-by that nobody of us wrote in C: ZeroMQ, CURVE, Ed25519 and
protobuf as Debian packages them, so that a mistake of ours is not on both ends of the wire.
"""
import base64
import hashlib
import importlib
import json
import os
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid

import numpy
import zmq
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from zmq.utils import z85
from zmq.utils.monitor import parse_monitor_message

from pool import BIN, ROOT

PROTOCOLS = ("worker", "receipt", "bulk", "command")
MONITORED = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_HANDSHAKE_FAILED_AUTH | \
    zmq.EVENT_DISCONNECTED


def generated():
    """The protocol's modules, made from the same files as our own code."""
    out = os.path.join(BIN, "..", "python")
    os.makedirs(out, exist_ok=True)
    subprocess.run(["protoc", "-I", os.path.join(ROOT, "proto"), "--python_out", out,
                    *(name + ".proto" for name in PROTOCOLS)], check=True,
                   cwd=os.path.join(ROOT, "proto"))
    sys.path.insert(0, out)
    return [importlib.import_module(name + "_pb2") for name in PROTOCOLS]


wire, receipts, bulk, command = generated()


class Keys:
    """CURVE for the transport, Ed25519 for signatures."""

    def __init__(self, sign_secret=None, curve=None):
        if curve is None:
            public, secret = zmq.curve_keypair()
            curve = z85.decode(public), z85.decode(secret)
        self.curve_public, self.curve_secret = curve
        self.sign = Ed25519PrivateKey.from_private_bytes(sign_secret) if sign_secret \
            else Ed25519PrivateKey.generate()

    @classmethod
    def of_identity(cls, path):
        """The key file of one of our programs."""
        with open(path, encoding="utf-8") as file:
            keys = dict(line.strip().split(": ") for line in file)
        return cls(bytes.fromhex(keys["sign_secret"]),
                   (bytes.fromhex(keys["curve_public"]), bytes.fromhex(keys["curve_secret"])))

    @property
    def sign_public(self):
        return self.sign.public_key().public_bytes(serialization.Encoding.Raw,
                                                   serialization.PublicFormat.Raw)

    def signature(self, domain, data):
        return self.sign.sign(domain.encode() + b"\0" + data)


class JoinToken:
    def __init__(self, text):
        body = text.removeprefix("sheaf-join-1.")
        fields = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        self.secret, self.server_key = fields["secret"], bytes.fromhex(fields["key"])


def device(number=0, memory_mib=64, owner="", **more):
    return wire.ClaimDevice(**{**dict(
        uuid=f"GPU-{owner or uuid.uuid4().hex[:12]}-{number}", device_class="gpu", vendor="acme",
        model="Abacus 1", driver="1.0", memory_mib=memory_mib, offered=True), **more})


def claim(name, devices, **more):
    return wire.Claim(**{**dict(
        name=name, region="eu", country="DE", address="127.0.0.1", port_low=1024, port_high=1030,
        probe_port=1031, cpu_milli=1000, memory_mib=1024, disk_mib=1024, runtime="bwrap",
        version="0.0", price_micro=1000, notice_s=0, devices=devices), **more})


class Refused(Exception):
    def __init__(self, status, problem):
        super().__init__(f"{status} {problem}")
        self.status, self.problem = status, problem


class Node:
    """An enrolled machine of an unfriendly owner."""

    def __init__(self, pool, name, devices=None, token=None, **more):
        self.pool, self.name, self.keys = pool, name, Keys()
        self.devices = [device()] if devices is None else devices
        self.claim = claim(name, self.devices, **more)
        self.token = JoinToken(token or pool.join_token())
        self.uid = uuid.UUID(self.enrol()["node"]).bytes
        self.seq, self.boot = 0, 1

    def enrol(self):
        secret = hashlib.sha256(self.token.secret.encode()).digest()
        body = {"curve_key": self.keys.curve_public.hex(), "sign_key": self.keys.sign_public.hex(),
                "machine": hashlib.sha256(self.name.encode() + os.urandom(8)).hexdigest(),
                "claim": base64.b64encode(self.claim.SerializeToString()).decode(),
                "proof": self.keys.signature("sheaf enrol 1",
                                             self.keys.curve_public + secret).hex()}
        request = urllib.request.Request(
            self.pool.url + "/api/v1/join", json.dumps(body).encode(),
            {"Authorization": "Bearer " + self.token.secret, "Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=30, context=ssl.create_default_context(
                    cafile=self.pool.ca)) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                raise Refused(error.code, json.load(error)) from None

    @property
    def id(self):
        """Its number, as orders and the orchestrator's log name it."""
        return int(self.pool.sql(f"SELECT id FROM node WHERE uid = '{uuid.UUID(bytes=self.uid)}'"))


class Dealer:
    """A connection: DEALER, CURVE with these keys, watched."""

    def __init__(self, endpoint, server_key, keys, routing_id=None, reconnect=False):
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.DEALER)
        self.socket.linger = 0
        self.socket.sndhwm = 0
        if not reconnect:
            self.socket.reconnect_ivl = -1
        if routing_id:
            self.socket.routing_id = routing_id
        self.monitor = self.socket.get_monitor_socket(MONITORED)
        if keys:
            self.socket.curve_serverkey = z85.encode(server_key)
            self.socket.curve_publickey = z85.encode(keys.curve_public)
            self.socket.curve_secretkey = z85.encode(keys.curve_secret)
        self.socket.connect(endpoint)

    def event(self, wanted, seconds=10):
        """The value of the next event of this kind."""
        deadline = time.monotonic() + seconds
        while self.monitor.poll(max(0, int((deadline - time.monotonic()) * 1000))):
            seen = parse_monitor_message(self.monitor.recv_multipart())
            if seen["event"] == wanted:
                return seen["value"]
        raise AssertionError(f"no event {wanted!r} within {seconds} s")

    def receive(self, seconds=15):
        """One message's bytes, or None when nothing came."""
        return self.socket.recv() if self.socket.poll(int(seconds * 1000)) else None

    def flood(self, megabytes, frame=65536):
        """One message without an end, as good as: libzmq sends it once it has been told the last
        frame. The frames are one piece of memory."""
        block = bytes(frame)
        self.socket.send_multipart([block] * (megabytes * 1048576 // frame), copy=False)

    def close(self):
        self.socket.disable_monitor()
        self.monitor.close(0)
        self.socket.close(0)
        self.context.term()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Session(Dealer):
    """The worker protocol, as far as a test needs it; `say` sends whatever it is told to."""

    def __init__(self, node, hello=True, endpoint=None, **more):
        super().__init__(endpoint or node.pool.control, node.token.server_key, node.keys, **more)
        self.node, self.nonce, self.inbox = node, os.urandom(8), []
        if hello:
            self.hello()
            self.expect("welcome")

    def envelope(self, durable=False, **body):
        message = wire.Envelope(protocol=1, session=self.nonce, **body)
        if durable:
            self.node.seq += 1
            message.seq = self.node.seq
        return message

    def say(self, durable=False, **body):
        message = self.envelope(durable, **body)
        self.socket.send(message.SerializeToString())
        return message.seq

    def hello(self, **more):
        self.say(hello=wire.Hello(**{**dict(
            protocol_min=1, protocol_max=1, node=self.node.uid, boot=self.node.boot,
            claim=self.node.claim, next_seq=self.node.seq + 1), **more}))

    def beat(self, at=None):
        self.say(heartbeat=wire.Heartbeat(sent_us=int((at or time.time()) * 1e6)))

    def next(self, wanted, seconds=15):
        """The first message for which wanted(envelope) holds; others are kept for later."""
        for index, message in enumerate(self.inbox):
            if wanted(message):
                return self.inbox.pop(index)
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            data = self.receive(left)
            if data is None:
                break
            message = wire.Envelope.FromString(data)
            if wanted(message):
                return message
            self.inbox.append(message)
        return None

    def expect(self, body, seconds=15):
        message = self.next(lambda m: m.WhichOneof("body") == body, seconds)
        if message is None:
            raise AssertionError(f"no {body}; came: {[str(m)[:200] for m in self.inbox]}")
        return getattr(message, body)

    def order(self, kind, seconds=15):
        """The next order of this kind, as it was signed."""
        def is_it(message):
            return message.WhichOneof("body") == "order" and \
                wire.Order.FromString(message.order.order).WhichOneof("what") == kind
        message = self.next(is_it, seconds)
        if message is None:
            raise AssertionError(f"no order to {kind}")
        return wire.Order.FromString(message.order.order)

    def acknowledged(self, seq, seconds=15):
        return self.next(lambda m: m.ack >= seq, seconds) is not None

    def prove(self):
        """Passes the self-test of each device."""
        for _ in self.node.devices:
            test = self.order("selftest").selftest
            self.say(durable=True, selftest=proof(test, self.node.devices[test.device].memory_mib))

    def task(self, order, news, **more):
        return self.say(durable=True, task_event=wire.TaskEvent(**{**dict(
            attempt=order.attempt, term=order.term, epoch=order.epoch, rank=order.rank, news=news,
            detail=""), **more}))

    def receipt(self, lines, keys=None, number=1, node=None):
        body = receipts.Receipt(node=node or self.node.uid, seq=number, lines=lines)
        data = body.SerializeToString()
        return self.say(durable=True, receipt=receipts.SignedReceipt(
            receipt=data, signature=(keys or self.node.keys).signature("sheaf receipt 1", data)))


# -- the self-test, from its description (common/pure/selftest.h) ---------------------------------

def words(seed, first, count):
    with numpy.errstate(over="ignore"):
        z = numpy.uint64(seed) + numpy.arange(first, first + count, dtype=numpy.uint64) \
            * numpy.uint64(0x9e3779b97f4a7c15)
        z = (z ^ (z >> numpy.uint64(30))) * numpy.uint64(0xbf58476d1ce4e5b9)
        z = (z ^ (z >> numpy.uint64(27))) * numpy.uint64(0x94d049bb133111eb)
        return z ^ (z >> numpy.uint64(31))


def proof(test, memory_mib):
    chunks = words(test.seed ^ 0x73616d706c650001, 0, 16) % numpy.uint64(memory_mib)
    size, high, n = 1 << 18, numpy.uint64(32), 256
    sums = [int((words(test.seed, int(c) * size, size) >> high).sum(dtype=numpy.uint64))
            for c in chunks]
    entries = ((words(test.seed ^ 0x6d61746d756c0001, 0, 2 * n * n) >> high).astype(numpy.int64)
               % 15 - 7).reshape(2, n, n)
    weights = 1 + numpy.arange(n * n).reshape(n, n) % 8191
    product = int(((entries[0] @ entries[1]) * weights).sum()) % (1 << 64)
    return wire.SelfTestResult(device=test.device, seed=test.seed, memory_mib=memory_mib,
                               chunk_sums=sums, matmul_gflops=1, matmul_sum=product, copy_mib_s=1)
