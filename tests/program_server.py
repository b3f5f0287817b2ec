"""Forks Python programs from a process that has imported torch, transformers and peft already.

Importing them takes 7 s of CPU time, a fork 20 ms. conftest.py starts one such process for a whole
test session; `programs.py` asks it for programs. It imports the libraries at the first request and
runs no torch operation, so no thread of torch is lost in a fork. It ends when its stdin does, which
pytest holds open.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import runpy
import select
import signal
import socket
import sys
from importlib import import_module
from typing import Any

IMPORTED = (
    "torch.distributed.fsdp", "transformers.trainer", "peft", "accelerate", "bitsandbytes",
    "qvft.training.phases", "qvft.training.prepare_training", "qvft.weights.merge",
    "qvft.inference.predict", "qvft.evaluation.evaluate", "qvft.evaluation.report.page",
)  # fmt: skip
"""Never a program: it would be in sys.modules before it runs as __main__."""
LIMIT_S = 900
"""A program that runs longer is killed, whatever its test waits for."""


def import_libraries() -> None:
    for name in IMPORTED:
        import_module(name)
    gc.freeze()  # a collection in a fork would copy the memory that it shares


def run(request: dict[str, Any], streams: list[int]) -> None:
    """Becomes the program, as `python ARGUMENTS` would; ends with SystemExit or returns."""
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    first, *rest = request["arguments"]
    if first == "-m":
        sys.argv, sys.path[0] = rest, os.getcwd()
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv, sys.path[0] = [first, *rest], os.path.dirname(first)
        runpy.run_path(first, run_name="__main__")


def attend(client: socket.socket) -> None:
    """Starts the program that a client asks for; tells it the process id and then the exit status.

    A client that leaves, at its end or because it has waited long enough, has the program killed.
    """
    content, streams, _, _ = socket.recv_fds(client, 1 << 20, 3)
    program = os.fork()
    if not program:
        client.close()
        return run(json.loads(content), streams)
    for stream in streams:
        os.close(stream)
    with contextlib.suppress(OSError):
        client.send(b"%d" % program)
    select.select([os.pidfd_open(program), client], [], [], LIMIT_S)
    killed = os.waitid(os.P_PID, program, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    for kill in (os.kill, os.killpg) if killed else (os.killpg,):
        with contextlib.suppress(ProcessLookupError):
            kill(program, signal.SIGKILL)  # of the group: workers that it left behind
    status = os.waitstatus_to_exitcode(os.waitpid(program, 0)[1])
    with contextlib.suppress(OSError):
        client.send(b"%d" % status)
    os._exit(0)


def reap(options: int = 0) -> None:
    """Waits for all children, or with WNOHANG for those that have ended."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, options)[0]:
            pass


def serve(server: socket.socket) -> None:
    """Attends to clients until stdin ends. Returns in the process of a program too."""
    imported = False
    while 0 not in select.select([server, 0], [], [])[0]:
        client, _ = server.accept()
        if not imported:
            import_libraries()
            imported = True
        if not os.fork():
            server.close()
            return attend(client)
        client.close()
        reap(os.WNOHANG)
    reap()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for pytest, which ends the programs
    serve(socket.socket(fileno=int(sys.argv[1])))
