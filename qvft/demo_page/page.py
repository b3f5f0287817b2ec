"""The page of `qvft demo`, in gradio: nothing on it comes from, or goes to, another machine."""

from __future__ import annotations

import base64
import html
import os
import random
import socket
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before the import, which may report it

import fastapi
import gradio as gr
import uvicorn
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse

from qvft.demo_page.ask import Answered, ask, row_of
from qvft.demo_page.thumbs import Thumbs
from qvft.errors import QvftError
from qvft.inference.vision_language_model import VisionLanguageModel
from qvft.log import collected_warnings

MOST_TEXTS = 8
MOST_BYTES = 32 * 2**20
"""Of an upload."""
LOOPBACK = ("127.0.0.1", "::1", "localhost")
POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'self'"
"""Content security policy: the browser refuses whatever gradio may want from other hosts."""
PRIVATE: Any = {"api_visibility": "private"}
"""For an event that is the page's own."""
OFF: Any = dict.fromkeys(
    ("run_history", "ssr_mode", "enable_monitoring", "pwa", "mcp_server"), False
)
CAVEAT = (
    "<small>Bright: much attention; in brackets: the share of attention that goes to the image. "
    "It shows what was read, not what decided.</small>"
)
CSS = """
.said {margin: 0; overflow-wrap: anywhere} .said b {font-size: 1.1em}
.bar {height: 4px; background: var(--color-accent)}
.maps {display: flex; flex-wrap: wrap; gap: 8px} .maps figure {margin: 0; width: 104px}
.maps img {width: 104px; height: 104px} .maps figcaption {font-size: .85em; overflow-wrap: anywhere}
.thumb {padding: 4px 8px; white-space: nowrap}
"""


def shown_error(text: str) -> gr.Error:
    """An error that the page shows, and the terminal does not."""
    return gr.Error(html.escape(text), print_exception=False)


def upload() -> gr.Image:
    """An image input that hands on the file undecoded, and takes nothing but uploads.

    gradio itself would load an address, and checks paths only of pages that it launched. No
    subclass, because gradio writes a `.pyi` file beside the module of one.
    """
    image = gr.Image(label="Image", sources=["upload", "clipboard", "webcam"], height=280)
    to_cache = image.async_move_resource_to_block_cache

    async def of_uploads_alone(given: str | Path) -> str | None:
        uploads = os.path.realpath(image.GRADIO_CACHE)
        if not Path(os.path.realpath(given)).is_relative_to(uploads):
            raise shown_error("no uploaded file")
        return await to_cache(given)

    vars(image).update(
        preprocess=lambda payload: None if payload is None else payload.path,
        async_move_resource_to_block_cache=of_uploads_alone,
    )
    return image


class OwnPageOnly:
    """ASGI middleware: refuses requests of other pages, and adds `POLICY` to every answer.

    If `local`, other names of this machine are refused too (DNS rebinding).
    """

    def __init__(self, app: Any, *, local: bool) -> None:
        self.app, self.local = app, local

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def send_with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Content-Security-Policy"] = POLICY
            await send(message)

        if scope["type"] != "lifespan":
            headers = Headers(scope=scope)
            host, origin = headers.get("host", ""), headers.get("origin")
            foreign = origin is not None and urlsplit(origin).netloc != host
            if foreign or (self.local and urlsplit(f"//{host}").hostname not in LOOPBACK):
                await PlainTextResponse("a request of another page", 403)(scope, receive, send)
                return
        await self.app(scope, receive, send_with_policy)


def build(models: Sequence[VisionLanguageModel], thumbs: Thumbs) -> gr.Blocks:
    """The page; models answer side by side."""

    def answer(image: str | None, question: str, candidates: str, texts: float) -> Any:
        if image is None:
            raise shown_error("add an image first")
        row = row_of(Path(image), question, candidates.split(","))
        seed = random.getrandbits(32)
        try:
            with collected_warnings("qvft") as warnings:
                answers = [ask(model, row, texts=int(texts), seed=seed) for model in models]
        except QvftError as error:
            raise shown_error(str(error).replace(image, Path(image).name)) from error
        for warning in dict.fromkeys(warnings):
            gr.Warning(html.escape(warning))
        return (Path(image), row.question, answers), thumbs.said

    def judge(image: Path, question: str | None, text: str, up: bool) -> Any:
        try:
            thumbs.give(image, question, text, up=up)
        except (OSError, QvftError) as error:
            raise shown_error(f"not written: {error}") from error
        shown = [gr.Button(variant="primary" if chosen else "secondary") for chosen in (up, not up)]
        return [*shown, thumbs.said]

    def better(image: Path, question: str | None, text: str) -> Any:
        if not text.strip():
            raise shown_error("write a text first")
        return ["", judge(image, question, text.strip(), True)[-1]]

    with gr.Blocks(title="qvft demo", analytics_enabled=False, delete_cache=(600, 3600)) as page:
        found = gr.State(None)
        with gr.Row():
            with gr.Column(scale=1, min_width=300):
                image = upload()
                question = gr.Textbox(label="Question", placeholder="empty: a caption")
                candidates = gr.Textbox(label="Candidates", placeholder="yes, no: ranked")
                texts = gr.Slider(1, MOST_TEXTS, 1, step=1, label="Texts")
                button = gr.Button("Ask", variant="primary")
                status = gr.Markdown(thumbs.said)
            with gr.Column(scale=2, min_width=300):

                @gr.render(inputs=found, triggers=[found.change])
                def show(given: tuple[Path, str | None, list[Answered]] | None) -> None:
                    if given is None:
                        return
                    path, asked, answers = given
                    with gr.Row():
                        for number, answered in enumerate(answers):
                            with gr.Column(min_width=300):
                                title = f"{'its base: ' if number else ''}{answered.model}"
                                gr.HTML(f"<h3>{html.escape(title)}</h3>")
                                _show(answered, partial(judge, path, asked), status)
                    own = gr.Textbox(label="A better text", placeholder="Enter gives it a thumb up")
                    own.submit(partial(better, path, asked), own, [own, status], **PRIVATE)

        gr.on(
            [button.click, question.submit, candidates.submit],
            answer,
            [image, question, candidates, texts],
            [found, status],
            **PRIVATE,  # one at a time: gradio's default concurrency_limit is 1
        )
    return page


def _show(answered: Answered, judge: Any, status: gr.Markdown) -> None:
    """The texts of a model with their thumbs, its candidates and its maps."""
    if answered.abstained:
        gr.HTML("Its probability is below the run's threshold: the model abstains.")
    for one in answered.texts:
        with gr.Row():
            times = f" · {one.times} times" if one.times > 1 else ""
            gr.HTML(
                _said(one.text or "(nothing)", one.probability)
                + f"<small>probability {one.probability:.3g}, mean log-probability "
                f"{one.log_prob.mean:.2f} per token{times}</small>",
                min_width=200,
            )
            up = gr.Button("👍 good", elem_classes="thumb", scale=0, min_width=72)
            down = gr.Button("👎 bad", elem_classes="thumb", scale=0, min_width=72)
            for thumb, is_up in ((up, True), (down, False)):
                thumb.click(partial(judge, one.text, is_up), None, [up, down, status], **PRIVATE)
    if answered.candidates:
        ranked = "".join(
            _said(one.text, one.probability) + f"<small>{one.probability:.1%}</small>"
            for one in answered.candidates
        )
        gr.HTML(f"<h4>Candidates</h4>{ranked}")
    maps = "".join(
        f'<figure><img alt="{html.escape(name)}" src="data:image/png;base64,'
        f'{base64.b64encode(png).decode()}"><figcaption>{html.escape(name)}</figcaption></figure>'
        for name, png in (
            (word if share is None else f"{word} ({share:.0%})", png)
            for word, share, png in answered.words
        )
    )
    gr.HTML(
        "<h4>Where it looked, word by word</h4>"
        + (f'<div class="maps">{maps}</div>{CAVEAT}' if maps else html.escape(answered.no_words))
    )


def _said(text: str, probability: float) -> str:
    return (
        f'<p class="said"><b>{html.escape(text)}</b></p>'
        f'<div class="bar" style="width: {probability:.1%}"></div>'
    )


def serve(page: gr.Blocks, listening: socket.socket) -> None:
    """Serves the page until the process is told to stop."""
    host = listening.getsockname()[0]
    app = fastapi.FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(OwnPageOnly, local=host in LOOPBACK)
    theme = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"])
    app = gr.mount_gradio_app(
        *(app, page, "/"), footer_links=[], max_file_size=MOST_BYTES, theme=theme, css=CSS, **OFF
    )
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1)
    uvicorn.Server(config).run(sockets=[listening])
