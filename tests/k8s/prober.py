"""Asks for one key, linearizably, fifty times a second over a connection of its own, and measures the
gaps between answers. A process for each request (kvctl) would be too slow to see them."""

import socket
import struct
import threading
import time

INTERVAL = 0.02  # Seconds between two questions.
PATIENCE = 1.0   # After which a question counts as lost; the next goes over a new connection.
ALLOWED = 0.1    # A gap up to this is none.

# HTTP/2 as far as one unary call at a time needs it (RFC 9113, RFC 7541).
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RESET, SETTINGS, PING, GO_AWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, END_HEADERS, ACKNOWLEDGED = 1, 4, 1
PATH = b"/etcdserverpb.KV/Range"
REQUEST = b"\x0a\x05probe"  # RangeRequest{key: "probe"}


class Broken(Exception):
    pass


def frame(kind, flags, stream, payload):
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def literal(prefix, value):
    return prefix + bytes([len(value)]) + value


class Connection:
    def __init__(self, endpoint):
        host, port = endpoint.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), timeout=PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.rest = b""
        self.stream = -1
        # :method POST, :scheme http, :path, :authority, content-type, te; none of them indexed anew.
        self.headers = (b"\x83\x86" + literal(b"\x04", PATH) + literal(b"\x01", endpoint.encode()) +
                        literal(b"\x0f\x10", b"application/grpc") +
                        literal(literal(b"\x00", b"te"), b"trailers"))
        self.socket.sendall(PREFACE + frame(SETTINGS, 0, 0, b""))

    def close(self):
        self.socket.close()

    def ask(self):
        """Broken: there was no answer, or an error."""
        self.stream += 2
        message = struct.pack(">BI", 0, len(REQUEST)) + REQUEST
        self.socket.sendall(frame(HEADERS, END_HEADERS, self.stream, self.headers) +
                            frame(DATA, END_STREAM, self.stream, message))
        deadline = time.monotonic() + PATIENCE
        answered = leaving = False
        while True:
            kind, flags, stream, payload = self.read(deadline)
            if kind == SETTINGS and not flags & ACKNOWLEDGED:
                self.socket.sendall(frame(SETTINGS, ACKNOWLEDGED, 0, b""))
            elif kind == PING and not flags & ACKNOWLEDGED:
                self.socket.sendall(frame(PING, ACKNOWLEDGED, 0, payload))
            elif kind == GO_AWAY:
                leaving = True
            elif stream == self.stream:
                if kind == DATA and payload:
                    answered = True
                    self.socket.sendall(frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", len(payload))))
                if kind == RESET or (flags & END_STREAM and not answered):
                    raise Broken("refused")  # Trailers without a message are an error.
                if kind in (DATA, HEADERS) and flags & END_STREAM:
                    return leaving

    def read(self, deadline):
        head = self.take(9, deadline)
        length = int.from_bytes(head[:3], "big")
        kind, flags, stream = struct.unpack(">BBI", head[3:])
        return kind, flags, stream & 0x7fffffff, self.take(length, deadline)

    def take(self, count, deadline):
        while len(self.rest) < count:
            left = deadline - time.monotonic()
            if left <= 0:
                raise Broken("no answer in time")
            self.socket.settimeout(left)
            got = self.socket.recv(65536)
            if not got:
                raise Broken("the connection ended")
            self.rest += got
        taken, self.rest = self.rest[:count], self.rest[count:]
        return taken


class Prober:
    """As a context: asks until the block ends."""

    def __init__(self, endpoint):
        self.endpoint = endpoint
        self.answers = 0
        self.errors = {}
        self.gaps = []  # Seconds.
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        self.thread.join()

    def run(self):
        connection = None
        last = time.monotonic()
        while not self.stopping.is_set():
            began = time.monotonic()
            try:
                connection = connection or Connection(self.endpoint)
                leaving = connection.ask()
                last = self.note_gap(last)
                self.answers += 1
            except (Broken, OSError) as error:
                self.errors[str(error)] = self.errors.get(str(error), 0) + 1
                leaving = True
            if leaving and connection:
                connection.close()
                connection = None
            self.stopping.wait(max(0.0, began + INTERVAL - time.monotonic()))
        # Silence that lasts to the end is a gap too; else one that hears nothing would see none.
        self.note_gap(last)

    def note_gap(self, last):
        now = time.monotonic()
        if now - last > ALLOWED:
            self.gaps.append(now - last)
        return now

    def silence(self):
        """Seconds in gaps, each counted whole."""
        return sum(self.gaps)

    def report(self):
        told = "; ".join(f"{count}x {text}" for text, count in sorted(self.errors.items()))
        return (f"{self.answers} probes answered, gaps {self.silence():.2f} s in all (longest "
                f"{max(self.gaps, default=0):.2f} s), errors: {told or 'none'}")
