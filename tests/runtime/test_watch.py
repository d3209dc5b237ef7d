"""Processes notice each other's end. Here they are threads of one process, each with its own connection."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading

import pytest

from wbc_jax.errors import UsageError
from wbc_jax.runtime.watch import Guest, Host

TOKEN = bytes(range(16))


class Group(contextlib.AbstractContextManager["Group"]):
    """A host with guests; `lost` gets (who noticed, who is lost)."""

    def __init__(self, guests: int) -> None:
        self.lost: queue.Queue[tuple[int, int]] = queue.Queue()
        self.host = Host(guests + 1, TOKEN, lambda lost: self.lost.put((0, lost)))
        waiting = threading.Thread(target=self.host.welcome, args=(20.0,))
        waiting.start()
        self.guests = [self._guest(index) for index in range(1, guests + 1)]
        waiting.join()

    def __exit__(self, *_: object) -> None:
        for member in (self.host, *self.guests):
            member.close()

    def _guest(self, index: int) -> Guest:
        address = ("127.0.0.1", self.host.port)
        return Guest(address, TOKEN, index, lambda lost: self.lost.put((index, lost)))


def test_in_order_nobody_is_lost() -> None:
    with Group(2) as group:
        leaving = [threading.Thread(target=member.leave) for member in (group.guests[1], group.host)]
        for thread in leaving:
            thread.start()
        assert leaving[0].is_alive()  # a guest waits for the host, who waits for the other guest
        assert leaving[1].is_alive()
        group.guests[0].leave()
        for thread in leaving:
            thread.join(timeout=10)
            assert not thread.is_alive()
        assert group.lost.empty()


def test_a_lost_guest_is_told_to_all() -> None:
    with Group(2) as group:
        group.guests[1]._connection.shutdown(socket.SHUT_RDWR)
        told = {group.lost.get(timeout=10) for _ in range(3)}
        assert {(0, 2), (1, 2)} <= told


def test_a_lost_host_is_noticed_by_its_guests() -> None:
    with Group(1) as group:
        group.host._guests[1].shutdown(socket.SHUT_RDWR)
        assert (1, 0) in {group.lost.get(timeout=10) for _ in range(2)}


def test_a_stranger_is_not_taken_for_a_guest() -> None:
    host = Host(2, TOKEN, lambda lost: None)
    with socket.create_connection(("127.0.0.1", host.port)) as stranger:
        stranger.sendall(bytes(16) + bytes(4))
        with pytest.raises(UsageError, match="processes 1 did not connect"):
            host.welcome(0.5)


def test_an_unreachable_host_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(UsageError, match=f"process 3 cannot reach process 0 at 127.0.0.1:{port}"):
        Guest(("127.0.0.1", port), TOKEN, 3, lambda lost: None)
