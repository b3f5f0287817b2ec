"""How OpenMP threads wait, and what is said on a busy machine."""

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from qvft import cpu_threads

NAMES = ("OMP_WAIT_POLICY", "KMP_BLOCKTIME", "GOMP_SPINCOUNT", "KMP_LIBRARY")


def policy(code: str, **given: str) -> str:
    """What a fresh interpreter prints whose environment has only the given way of waiting."""
    kept = {name: value for name, value in os.environ.items() if name not in NAMES}
    run = subprocess.run(
        [sys.executable, "-c", code], env=kept | given, capture_output=True, text=True, check=True
    )
    return run.stdout.strip()


OF_PROCESS = "import qvft, os; print(os.environ.get('OMP_WAIT_POLICY'))"


def test_threads_wait_passively_in_every_program() -> None:
    assert policy(OF_PROCESS) == "PASSIVE"


@pytest.mark.parametrize(
    ("given", "expected"),
    [({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE"), ({"GOMP_SPINCOUNT": "1000"}, "None")],
)
def test_what_the_user_set_stays(given: dict[str, str], expected: str) -> None:
    assert policy(OF_PROCESS, **given) == expected


def test_it_is_set_before_torch_is_loaded() -> None:
    code = "import sys, qvft; from qvft import cpu_threads; print('torch' in sys.modules)"
    assert policy(code) == "False"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="GNU OpenMP shows its settings")
def test_openmp_itself_waits_passively() -> None:
    code = "import qvft, torch; torch.ones(2)"
    kept = {name: value for name, value in os.environ.items() if name not in NAMES}
    run = subprocess.run(
        [sys.executable, "-c", code],
        env=kept | {"OMP_DISPLAY_ENV": "VERBOSE"},
        capture_output=True,
        text=True,
        check=True,
    )
    # It shows 'PASSIVE' for a policy that nobody set too, but then it spins 300,000 times.
    assert "GOMP_SPINCOUNT = '3000'" in run.stderr


@pytest.mark.parametrize(("load", "told"), [(9.5, ["load 9.5 on 2 cores"]), (0.5, [])])
def test_a_busy_machine_is_said_once(
    load: float, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    warnings = []
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(cpu_threads.logger, "warning", lambda text, *of: warnings.append(text % of))
    for _ in range(2):
        cpu_threads.warn_if_busy()
    assert [re.search(r"load .* cores", warning)[0] for warning in warnings] == told


def test_results_of_threads_keep_their_order_and_few_are_held() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for item in range(10):
            taken.append(item)
            yield item

    results = cpu_threads.in_threads(lambda item: item * item, items(), ahead=3)
    assert next(results) == 0
    assert taken == [0, 1, 2]
    assert list(results) == [item * item for item in range(1, 10)]


@pytest.mark.parametrize(
    ("short", "cores", "tried", "expected"),
    [
        (0.0, 2, 8, True),
        (float("inf"), 2, 8, False),
        (float("inf"), 2, 0, True),
        (0.0, 1, 0, False),
    ],
)
def test_only_long_work_on_several_cores_is_done_in_threads(
    short: float, cores: int, tried: int, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_threads, "SHORT", short)
    monkeypatch.setattr(cpu_threads, "cpu_cores", lambda: cores)
    found = list(
        cpu_threads.in_threads(lambda item: (item, threading.get_ident()), range(30), tried=tried)
    )
    assert [item for item, _ in found] == list(range(30))
    elsewhere = {thread for _, thread in found} - {threading.get_ident()}
    assert bool(elsewhere) == expected
