"""HTTP over raw sockets: what is sent is exactly what a test says, and what comes back is told apart
to the byte. For the gateway's border; clients that only want an answer use the command line."""
import json
import socket
import ssl
import time


class Answer:
    def __init__(self, head, body):
        lines = head.decode("latin-1").split("\r\n")
        self.line, self.status = lines[0], int(lines[0].split()[1])
        self.headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            self.headers.setdefault(name.lower(), []).append(value.strip())
        self.body = body

    def header(self, name):
        values = self.headers.get(name.lower())
        return None if values is None else ", ".join(values)

    def json(self):
        return json.loads(self.body)

    def __repr__(self):
        return f"{self.line} {self.body[:300]!r}"


class Wire:
    """One connection to `url`; `ca` is needed for https. A context manager."""

    def __init__(self, url, ca=None, seconds=30):
        scheme, _, rest = url.partition("://")
        self.host, _, port = rest.partition(":")
        self.socket = socket.create_connection((self.host, int(port)), timeout=seconds)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if scheme == "https":
            context = ssl.create_default_context(cafile=ca)
            self.socket = context.wrap_socket(self.socket, server_hostname=self.host)
        self.pending = b""

    def __enter__(self):
        return self

    def __exit__(self, *what):
        self.socket.close()

    def send(self, raw):
        """All of it; what the other end no longer wants to hear is not an error here."""
        try:
            self.socket.sendall(raw)
        except OSError:
            pass
        return self

    def _more(self):
        try:
            piece = self.socket.recv(65536)
        except (ConnectionResetError, ssl.SSLEOFError, ssl.SSLZeroReturnError):
            piece = b""
        self.pending += piece
        return piece

    def answer(self, head_only=False):
        while b"\r\n\r\n" not in self.pending:
            if not self._more():
                raise AssertionError(f"closed before an answer; so far: {self.pending[:200]!r}")
        head, _, self.pending = self.pending.partition(b"\r\n\r\n")
        answer = Answer(head, b"")
        if answer.status == 100:
            return self.answer(head_only)
        length = 0 if head_only else int(answer.header("content-length") or 0)
        while len(self.pending) < length:
            if not self._more():
                raise AssertionError(f"closed within the body of {answer}")
        answer.body, self.pending = self.pending[:length], self.pending[length:]
        return answer

    def is_closed(self):
        """Whether the other end closes; waits for it. Nothing more may come before."""
        if self.pending:
            return False
        try:
            return self._more() == b""
        except (socket.timeout, TimeoutError):
            return False

    def until(self, mark, seconds=30):
        """Reads a stream until these bytes were seen."""
        deadline = time.monotonic() + seconds
        while mark not in self.pending:
            if time.monotonic() > deadline or not self._more():
                raise AssertionError(f"{mark!r} did not come; so far: {self.pending[-300:]!r}")


def request(method, target, headers=(), body=None, host="door", close=False):
    """Bytes of a plain request. headers: (name, value) pairs."""
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}"]
    lines += [f"{name}: {value}" for name, value in headers]
    if body is not None:
        body = body if isinstance(body, bytes) else body.encode()
        if not any(name.lower() == "content-type" for name, _ in headers):
            lines.append("Content-Type: application/json")
        lines.append(f"Content-Length: {len(body)}")
    if close:
        lines.append("Connection: close")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + (body or b"")
