"""Serves a qvft model over HTTP with FastAPI; requests that wait together are one batch.

pip install fastapi uvicorn python-multipart
MODEL=merged/mine uvicorn --app-dir examples serve_with_fastapi:app
curl -F image=@photo.jpg -F 'question=Is it defective?' http://127.0.0.1:8000/answer
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Form, HTTPException, UploadFile

import qvft

MAX_BATCH, MAX_BYTES = 16, 20_000_000
model = qvft.load_model(os.environ["MODEL"])  # a merged folder, a run or a hub id
waiting: asyncio.Queue[tuple[bytes, str, asyncio.Future]] = asyncio.Queue()


def answers(images: list[bytes], questions: list[str]) -> Any:
    """Answers of one batch; None for an image that cannot be decoded."""
    return model.answer(images, questions, batch_size=MAX_BATCH, on_bad_image="skip")


async def answer_batches() -> None:
    """Takes all requests that wait, at most MAX_BATCH, and answers them together."""
    while True:
        batch = [await waiting.get()]
        while len(batch) < MAX_BATCH and not waiting.empty():
            batch.append(waiting.get_nowait())
        try:
            said = await asyncio.to_thread(answers, [b[0] for b in batch], [b[1] for b in batch])
        except Exception as error:  # answer all who wait, and go on with the next batch
            said = [error] * len(batch)
        for (_, _, future), text in zip(batch, said, strict=True):
            if not future.done():  # the client may have left
                future.set_result(text)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    task = asyncio.create_task(answer_batches())
    yield
    task.cancel()


app = FastAPI(lifespan=lifespan)


@app.post("/answer")
async def answer(image: UploadFile, question: str = Form(pattern=r"\S")) -> dict[str, str]:
    content = await image.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise HTTPException(413, f"the image has more than {MAX_BYTES:,} bytes")
    future = asyncio.get_running_loop().create_future()
    await waiting.put((content, question, future))
    text = await future
    if isinstance(text, Exception):
        raise HTTPException(500, "the model failed") from text
    if text is None:
        raise HTTPException(422, "the image cannot be read")
    return {"answer": text}
