"""`qvft demo` in Chromium: upload, ask, maps, thumbs, their files; no request to other hosts."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

pytest.importorskip("gradio", reason="qvft[demo] is not installed")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
if CHROMIUM is None:
    pytest.skip("there is no Chromium", allow_module_level=True)

WAIT_MS = 120_000
"""A busy machine needs a minute for what an idle one does in two seconds."""
ARGUMENTS = [
    *("--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The address of a demo of the bundled model, and the folder of its thumbs."""
    out = tmp_path_factory.mktemp("demo") / "thumbs"
    uploads = tmp_path_factory.mktemp("uploads")
    proxy = socket.create_server(("127.0.0.1", 0))  # where the server's own requests would go
    through = f"http://127.0.0.1:{proxy.getsockname()[1]}"
    command = [sys.executable, "-m", "qvft.demo", "qvft/tiny-blip2", "--port", "0"]
    server = subprocess.Popen(
        [*command, "--out", str(out)],
        stdout=subprocess.PIPE,
        text=True,
        env={
            **{name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"},
            **{"TMPDIR": str(uploads), "HTTP_PROXY": through, "HTTPS_PROXY": through},
            **{"http_proxy": through, "https_proxy": through},
        },
    )
    assert server.stdout is not None
    address = re.search(r"http://127\.0\.0\.1:\d+", server.stdout.readline())
    assert address is not None
    yield address[0], out
    server.send_signal(signal.SIGINT)
    last, _ = server.communicate(timeout=60)
    assert "next: qvft train" in last
    proxy.setblocking(False)
    with proxy, pytest.raises(BlockingIOError):  # nobody came
        proxy.accept()
    assert not list(uploads.glob("qvft_demo_*"))  # what was uploaded is gone


@pytest.mark.parametrize("width", [1280, 390])
def test_ask_look_and_judge(demo: tuple[str, Path], tmp_path: Path, width: int) -> None:
    address, out = demo
    picture = tmp_path / "red.png"
    Image.new("RGB", (80, 60), (200, 30, 30 + width % 7)).save(picture)
    elsewhere: list[str] = []
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = browser.new_page(viewport={"width": width, "height": 800})
        page.set_default_timeout(WAIT_MS)

        def only_here(route: playwright.Route) -> None:
            if route.request.url.startswith((address, "data:", "blob:")):
                route.continue_()
            else:
                elsewhere.append(route.request.url)
                route.abort()

        page.route("**/*", only_here)
        page.on("console", lambda message: refused(message.text, elsewhere))
        page.goto(address)
        page.locator("input[type=file]").first.set_input_files(picture)
        page.get_by_label("Question").fill("What colour is it?")
        page.get_by_label("Candidates").fill("red, blue")
        page.locator("input[type=number]").fill("5")
        page.get_by_role("button", name="Ask").click()
        page.locator(".maps img").first.wait_for()
        assert page.locator(".maps img").count() >= 1
        assert page.get_by_text("red").count() >= 1
        pairs = out / "pairs.jsonl"
        before = len(pairs.read_text().splitlines()) if pairs.exists() else 0
        page.get_by_role("button", name="bad").first.click()
        page.get_by_text(f"thumbs: {2 * before + 1},").wait_for()
        page.get_by_label("A better text").fill("certainly red")
        page.get_by_label("A better text").press("Enter")
        page.get_by_text(f"pairs: {before + 1} ").wait_for()
        # Nothing is cut off at the side: the page can be used on a phone.
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        if folder := os.environ.get("QVFT_SCREENSHOTS"):
            page.screenshot(path=f"{folder}/demo-{width}.png", full_page=True)
        browser.close()
    row = json.loads(pairs.read_text().splitlines()[-1])
    assert (out / row["image"]).read_bytes() == picture.read_bytes()
    (pair,) = row["pairs"]
    assert (pair["question"], pair["chosen"]) == ("What colour is it?", "certainly red")
    assert elsewhere == []


def status_of(address: str, **headers: str) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(address, headers=headers)) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def test_other_pages_are_refused(demo: tuple[str, Path]) -> None:
    address, _ = demo
    assert status_of(address) == status_of(address, Origin=address) == 200
    assert status_of(address, Origin="http://example.com") == 403
    assert status_of(address, Host="example.com") == 403  # a name that leads here


@pytest.mark.parametrize("path", ["{shapes}/test0.png", "http://example.com/image.png"])
def test_nothing_but_an_upload_is_read(demo: tuple[str, Path], shapes: Path, path: str) -> None:
    address, _ = demo
    with urllib.request.urlopen(f"{address}/config") as answer:
        events = {one["api_name"]: one["id"] for one in json.load(answer)["dependencies"]}
    file = {"path": path.format(shapes=shapes), "meta": {"_type": "gradio.FileData"}}
    event = {"data": [file, "", "", 1], "fn_index": events["answer"], "session_hash": "a session"}
    asked = urllib.request.Request(
        f"{address}/gradio_api/queue/join",
        json.dumps(event).encode(),
        {"Content-Type": "application/json"},
    )
    urllib.request.urlopen(asked).close()
    with urllib.request.urlopen(
        f"{address}/gradio_api/queue/data?session_hash=a%20session", timeout=WAIT_MS / 1000
    ) as answer:
        said = answer.read().decode()
    assert '"success":false' in said
    assert "no uploaded file" in said


def refused(message: str, elsewhere: list[str]) -> None:
    """Counts what the content security policy stopped before it became a request."""
    if "Content Security Policy" in message:
        elsewhere.append(message)
