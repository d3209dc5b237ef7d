"""Processes of one run that notice each other's end at once.

JAX notices a lost process by missing heartbeats, after more than a minute, and then aborts; collectives on GPUs wait
meanwhile. Here every process keeps a TCP connection to process 0. The operating system closes the connections of a
process that ends, however it ends: where no goodbye came before, the run is over for all.
"""

from __future__ import annotations

import contextlib
import hmac
import selectors
import socket
import struct
import threading
import time
from collections.abc import Callable

from wbc_jax.errors import UsageError

TOKEN_BYTES = 16
_MESSAGE = struct.Struct(">i")  # the number of a lost process, or:
_GOODBYE = -1
# A host that vanishes without a word (power, cable) is noticed after about 25 s of silence.
_KEEPALIVE = (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3))

OnLost = Callable[[int], None]
"""Called once, in a thread, with the number of the process that ended early."""


class Host:
    """Process 0's side.

    Args:
        num_processes: of the run, this one included.
        token: shared secret; a connection without it is closed.
        on_lost: see `OnLost`; the others have been told before it is called.
    """

    def __init__(self, num_processes: int, token: bytes, on_lost: OnLost) -> None:
        self._token, self._on_lost = token, on_lost
        self._awaited = set(range(1, num_processes))
        self._guests: dict[int, socket.socket] = {}
        self._all_gone = threading.Event()
        self._listener = socket.create_server(("", 0), backlog=num_processes)

    @property
    def port(self) -> int:
        return self._listener.getsockname()[1]

    def welcome(self, timeout_s: float) -> None:
        """Waits until every other process is connected.

        Raises:
            UsageError: one did not come in time.
        """
        with self._listener:
            self._accept_all(timeout_s)
        threading.Thread(target=self._listen, name="watch", daemon=True).start()

    def _accept_all(self, timeout_s: float) -> None:
        deadline_s = time.monotonic() + timeout_s
        while len(self._guests) < len(self._awaited):
            self._listener.settimeout(max(0.01, deadline_s - time.monotonic()))
            try:
                connection, _ = self._listener.accept()
            except TimeoutError:
                missing = sorted(self._awaited - self._guests.keys())
                raise UsageError(
                    f"processes {', '.join(map(str, missing))} did not connect within {timeout_s:.0f} s",
                    expected=f"connections to port {self.port} of this host",
                    remedy="let the hosts reach each other on every port",
                ) from None
            connection.settimeout(5.0)  # a stranger may say nothing
            hello = b""
            with contextlib.suppress(OSError):
                hello = _receive(connection, TOKEN_BYTES + _MESSAGE.size)
            if len(hello) < TOKEN_BYTES + _MESSAGE.size or not hmac.compare_digest(
                hello[:TOKEN_BYTES], self._token
            ):
                connection.close()
                continue
            connection.settimeout(None)
            _keep_alive(connection)
            self._guests[_MESSAGE.unpack(hello[TOKEN_BYTES:])[0]] = connection

    def leave(self) -> None:
        """Waits until every other process has said goodbye, and says it to all."""
        self._all_gone.wait()
        for connection in self._guests.values():
            _send(connection, _GOODBYE)
        self.close()

    def close(self) -> None:
        """Closes the connections without a word."""
        for connection in (self._listener, *self._guests.values()):
            connection.close()

    def _listen(self) -> None:
        with selectors.DefaultSelector() as selector:
            for index, connection in self._guests.items():
                selector.register(connection, selectors.EVENT_READ, index)
            while selector.get_map():
                for key, _ in selector.select():
                    connection, index = self._guests[key.data], key.data
                    if _read(connection) != _GOODBYE:
                        for other in self._guests.values():
                            _send(other, index)
                        self._on_lost(index)
                        return
                    selector.unregister(connection)
        self._all_gone.set()


class Guest:
    """The side of every other process.

    Args:
        address: host and port of process 0.
        token: shared secret.
        index: number of this process.
        on_lost: see `OnLost`.

    Raises:
        UsageError: process 0 cannot be reached.
    """

    def __init__(self, address: tuple[str, int], token: bytes, index: int, on_lost: OnLost) -> None:
        self._on_lost = on_lost
        self._goodbye = threading.Event()
        try:
            self._connection = socket.create_connection(address, timeout=30.0)
        except OSError as error:
            raise UsageError(
                f"process {index} cannot reach process 0 at {address[0]}:{address[1]}: {error}",
                expected="an address that every process can reach",
                where="runtime.coordinator",
                remedy="give --runtime.coordinator HOST:PORT with such a HOST, and open the hosts to each other",
            ) from error
        self._connection.settimeout(None)
        _keep_alive(self._connection)
        self._connection.sendall(token + _MESSAGE.pack(index))
        threading.Thread(target=self._listen, name="watch", daemon=True).start()

    def leave(self) -> None:
        """Says goodbye and waits until process 0 has said it: it may still have files to write."""
        _send(self._connection, _GOODBYE)
        self._goodbye.wait()
        self.close()

    def close(self) -> None:
        """Closes the connection without a word."""
        self._connection.close()

    def _listen(self) -> None:
        message = _read(self._connection)
        if message == _GOODBYE:
            self._goodbye.set()
        else:
            self._on_lost(0 if message is None else message)


def _read(connection: socket.socket) -> int | None:
    """One message; None: the other side is gone."""
    data = b""
    with contextlib.suppress(OSError):
        data = _receive(connection, _MESSAGE.size)
    return _MESSAGE.unpack(data)[0] if len(data) == _MESSAGE.size else None


def _receive(connection: socket.socket, size: int) -> bytes:
    """`size` bytes, or fewer where the connection ends before."""
    data = b""
    while len(data) < size and (part := connection.recv(size - len(data))):
        data += part
    return data


def _send(connection: socket.socket, message: int) -> None:
    with contextlib.suppress(OSError):  # whoever is gone already needs no message
        connection.sendall(_MESSAGE.pack(message))


def _keep_alive(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE:
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
