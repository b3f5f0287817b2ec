"""Starts Python programs as forks of `program_server.py`, in place of `python ARGUMENTS`.

They are whole processes: with arguments, environment, folder, output and status of their own. What
they do not show is how a program starts: that needs a new interpreter and `subprocess`.
"""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import pytest

SERVER = "QVFT_TEST_PROGRAMS"
"""Variable of the environment: the server's socket."""
AT_START = ("PYTHON", "OMP_", "HF_", "TRANSFORMERS_", "MKL_", "TORCH_")
"""Variables that Python or a library reads once, as it starts, begin so."""


class ProgramServer:
    """A server for this session and its xdist workers, which find it by the environment."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="qvft-")  # a socket's path is short
        address = f"{self._folder.name}/programs"
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
            listening.bind(address)
            listening.listen(64)
            script = str(Path(__file__).with_name("program_server.py"))
            self._process = subprocess.Popen(
                [sys.executable, script, str(listening.fileno())],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[listening.fileno()],
                env={**os.environ, "HF_HUB_OFFLINE": "1"},
            )
        os.environ[SERVER] = address

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)
        self._folder.cleanup()
        del os.environ[SERVER]


class Program:
    """A running program. At the end of its context it is killed, if it still runs.

    Attributes:
        pid: its process id.
        status: its exit status, once `wait` has returned.
    """

    def __init__(
        self, arguments: Sequence[str], env: Mapping[str, str], *, output: IO[str], errors: IO[str]
    ) -> None:
        changed = {name for name, _ in set(env.items()) ^ set(os.environ.items())}
        assert not [name for name in changed if name.startswith(AT_START)], "start an interpreter"
        self._server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._server.settimeout(600)  # the first waits for the imports
        self._server.connect(os.environ[SERVER])
        request = {"arguments": list(arguments), "env": dict(env), "cwd": os.getcwd()}
        with open(os.devnull) as nothing:
            streams = [stream.fileno() for stream in (nothing, output, errors)]
            socket.send_fds(self._server, [json.dumps(request).encode()], streams)
        self.pid = int(self._server.recv(100))
        self.status: int | None = None

    def fileno(self) -> int:
        """For `select`: readable once the program has ended."""
        return self._server.fileno()

    def wait(self, timeout: float) -> int:
        """The exit status, as of `subprocess`; raises TimeoutError."""
        if self.status is None:
            self._server.settimeout(timeout)
            self.status = int(self._server.recv(100))
        return self.status

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.close()


def run(
    arguments: Sequence[str], *, timeout: float = 300, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Runs a program, on the CPU, with variables beside those of this process."""
    return run_all(arguments, [variables], timeout)


def run_two(
    arguments: Sequence[str], *, timeout: float = 300, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Runs a program in two processes, with the variables that torchrun sets. If one fails, the
    other is killed, as torchrun does."""
    from torch.distributed import TCPStore

    # They meet at this store, whose port is nobody else's, as they do at torchrun's.
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    shared = {
        "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port), "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RESTART_COUNT": "0", **variables,
    }  # fmt: skip
    ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank), **shared} for rank in range(2)]
    return run_all(arguments, ranks, timeout)


def run_all(
    arguments: Sequence[str], environments: Sequence[Mapping[str, str]], timeout: float
) -> subprocess.CompletedProcess[str]:
    """Runs a program in each environment at once. The status is the first that is not 0."""
    if SERVER not in os.environ:
        pytest.skip("programs are forked on Linux alone")
    until, status = time.monotonic() + timeout, 0
    with ExitStack() as opened:
        output, errors = (opened.enter_context(tempfile.TemporaryFile("w+")) for _ in range(2))
        running = {
            opened.enter_context(
                Program(
                    arguments,
                    {**os.environ, "CUDA_VISIBLE_DEVICES": "", **variables},
                    output=output,
                    errors=errors,
                )
            )
            for variables in environments
        }
        while running and not status:
            ready = select.select(running, [], [], max(0, until - time.monotonic()))[0]
            if not ready:
                raise TimeoutError(f"{arguments} runs for {timeout} s: {said(errors)[-3000:]}")
            for program in ready:
                status = program.wait(1) or status
                running.remove(program)
        return subprocess.CompletedProcess(arguments, status, said(output), said(errors))


def said(file: IO[str]) -> str:
    """What a file holds so far."""
    file.seek(0)
    return file.read()
