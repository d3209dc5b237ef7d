"""Several processes as one run: started together, told of each other's end, left in order."""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import signal
import socket
import sys
import time
import traceback
from collections.abc import Iterator
from typing import Any, NoReturn

from wbc_jax.config import RuntimeConfig
from wbc_jax.errors import EXIT_SIGINT, PeerLostError, UsageError, WbcError
from wbc_jax.runtime.launchers import Launch, find_launch
from wbc_jax.runtime.watch import TOKEN_BYTES, Guest, Host

_START_TIMEOUT_S = 300
_CRASH_EXIT = 1
# An error that all processes meet at the same step ends each of them by itself. Shorter than `_delay_abort`'s delay.
_GRACE_S = 2.0
# How long an error of the array library waits for the word that another process has caused it.
_WORD_TIMEOUT_S = 10.0


@contextlib.contextmanager
def joined_processes(runtime: RuntimeConfig) -> Iterator[int]:
    """Joins the processes that the config or a launcher names, for the time of the block; yields their number.

    Must be entered before the first computation. Within it `jax.devices()` are those of all processes. Only process
    0 writes to standard output. Where a process ends before its block does, by an error or by a signal, the others
    end within seconds with `errors.EXIT_PEER_LOST`; an error is printed as on the command line, and ends the process
    at once, because jax would wait minutes at exit for processes that never come.

    Raises:
        UsageError: fields or variables that do not fit together; the others or process 0 cannot be reached.
    """
    launch = find_launch(runtime, os.environ)
    if launch is None:
        yield 1
        return
    _initialize(launch)
    import jax

    try:
        watch = _watch(launch)
        with contextlib.ExitStack() as stack:
            if jax.process_index() > 0:
                _delay_abort()
                silent = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
                stack.enter_context(contextlib.redirect_stdout(silent))
            yield jax.process_count()
    except BaseException as error:
        _leave_at_once(error)
    watch.leave()
    jax.distributed.shutdown()


def _initialize(launch: Launch) -> None:
    import jax

    # Its handler of SIGTERM would replace ours.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(**launch.arguments, initialization_timeout=_START_TIMEOUT_S)
    except Exception as error:  # jax raises ValueError, RuntimeError and others, depending on the launcher
        raise UsageError(
            f"the processes could not be joined: {error}",
            expected="every process of the group, started within minutes of each other",
            where=launch.found_by,
            remedy="start all of them, with one coordinator address and numbers from 0 on; "
            "--runtime.cluster off runs this process alone",
        ) from error


def _watch(launch: Launch) -> Host | Guest:
    import jax

    from wbc_jax.runtime.exchange import share_json

    index = jax.process_index()
    if index == 0:
        token = secrets.token_bytes(TOKEN_BYTES)
        host = Host(jax.process_count(), token, _end_with_peer)
        share_json({"host": _own_address(launch), "port": host.port, "token": token.hex()})
        host.welcome(_START_TIMEOUT_S)
        return host
    facts = share_json(None)
    address = (facts["host"], facts["port"])
    return Guest(address, bytes.fromhex(facts["token"]), index, _end_with_peer)


def _delay_abort() -> None:
    """Lets an abort wait for some seconds, in the thread that wants it.

    jax's client aborts the process as soon as process 0 is gone, and its coordination service with it. The watch
    notices at the same moment, and in these seconds ends the process with a message and an exit code of our own.
    """
    if os.name != "posix":
        return
    libc = ctypes.CDLL(None)
    libc.signal.argtypes, libc.signal.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
    # C's own `sleep` is the handler, since Python's would not come to run: it gets SIGABRT's number, 6, as seconds.
    libc.signal(signal.SIGABRT, ctypes.cast(libc.sleep, ctypes.c_void_p))


def _own_address(launch: Launch) -> str:
    """Process 0's host as the others reach it: as they were told, or by its name."""
    address: Any = launch.arguments.get("coordinator_address")
    return socket.gethostname() if address is None else address.rsplit(":", 1)[0].strip("[]")


def _end_with_peer(lost: int) -> NoReturn:
    """Called in a thread; the main thread may be waiting in a collective that never ends."""
    time.sleep(_GRACE_S)
    error = PeerLostError(
        f"process {lost} ended before the run did",
        where=f"process {lost}; its own output says why",
        remedy="run the same command again, on as many processes as are left: it resumes from the last checkpoint",
    )
    _print_and_exit(f"wbc-jax: {error}", error.exit_code)


def _leave_at_once(error: BaseException) -> NoReturn:
    if isinstance(error, WbcError):
        _print_and_exit(f"wbc-jax: {error}", error.exit_code)
    if isinstance(error, KeyboardInterrupt):
        _print_and_exit("wbc-jax: interrupted", EXIT_SIGINT)
    if isinstance(error, SystemExit) and isinstance(error.code, int):
        _print_and_exit("", error.code)
    if type(error).__name__ == "JaxRuntimeError":
        time.sleep(_WORD_TIMEOUT_S)  # a lost process breaks a collective first; then the watch ends this one
    _print_and_exit("".join(traceback.format_exception(error)), _CRASH_EXIT)


def _print_and_exit(text: str, code: int) -> NoReturn:
    # No clean-up on purpose: checkpoints are complete or absent by construction, and jax's clean-up would wait.
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.write(text.rstrip() + "\n" if text else "")
        sys.stderr.flush()
    os._exit(code)
