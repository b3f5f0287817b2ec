"""Conversations about an image as questions, answers and captions: LLaVA, ShareGPT, messages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qvft.data.formats import fields
from qvft.data.formats.fields import Record
from qvft.data.formats.path_guard import PathGuard
from qvft.data.formats.sample_builder import SampleBuilder, file_of_split
from qvft.data.sample import Question, Sample
from qvft.errors import DataError
from qvft.json_files import read_json, read_jsonl
from qvft.log import get_logger

_log = get_logger(__name__)

SUFFIXES = (".json", ".jsonl")
USER, ASSISTANT, SYSTEM = "user", "assistant", "system"
ROLES = {"human": USER, USER: USER, "gpt": ASSISTANT, ASSISTANT: ASSISTANT, SYSTEM: SYSTEM}
"""Speakers as LLaVA and ShareGPT (`from`) and chat messages (`role`) name them."""
_IMAGE = "<image>"

Turns = list[tuple[str, str]]
"""Pairs (speaker of `ROLES`' values, text without `<image>`)."""


def records_of(path: Path, *, split: str | None) -> tuple[Path, Iterator[Record]]:
    """The file and its objects, of a JSON list or of JSONL; `path` as in `file_of_split`."""
    file = file_of_split(path, split, SUFFIXES)
    if file.suffix == ".jsonl":
        return file, (Record(row, f"{file}:{number}") for number, row in read_jsonl(file))
    return file, (row for _, row in fields.records(read_json(file), where=str(file)))


def read_turns(messages: Any, key: str, *, where: str) -> Turns:
    """The turns of a list of messages, with `from` and `value` or `role` and `content`."""
    turns = []
    for place, message in fields.records(messages, where=f"{where}, {key}"):
        who, says = ("role", "content") if "role" in message else ("from", "value")
        role = message.text(who)
        if role not in ROLES:
            raise DataError(
                f"`{who}` has an unknown value",
                where=place,
                expected="one of " + ", ".join(ROLES),
                do="remove turns of tools and functions",
            )
        turns.append((ROLES[role], _content(message, says)))
    return turns


def _content(message: Record, key: str) -> str:
    """The text of a message, without `<image>`; may be empty."""
    content = fields.field(message, key, where=message.where)
    if isinstance(content, list):  # parts, as chat templates have them
        parts = [one for _, one in fields.records(content, where=f"{message.where}, {key}")]
        texts = [one.text("text") for one in parts if one.get("type", "text") == "text"]
        content = "\n".join(texts)
    return fields.string(content, key, where=message.where).replace(_IMAGE, "").strip()


@dataclass
class ImageTexts:
    """The texts of all images of a file, and counts of what is left out."""

    file: Path
    guard: PathGuard
    builders: dict[str, SampleBuilder] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)
    later_turns: int = 0

    def builder(self, row: Record, images: Any, key: str) -> SampleBuilder | None:
        """The sample of a record's image; None, counted, unless there is exactly one."""
        names = [images] if isinstance(images, str) else images or []
        if not isinstance(names, list):
            expected = "a path, or a list of one"
            raise fields.wrong_kind(images, key, where=row.where, expected=expected)
        if len(names) != 1:
            several = "several images" if names else "no image"
            self.left_out[f"records with {several}"] += 1
            return None
        written = fields.text(names[0], key, where=row.where)
        image = self.guard.image(written, key, where=row.where)
        return self.builders.setdefault(image.name, SampleBuilder(written, image))

    def add(self, builder: SampleBuilder, turns: Turns, row: Record) -> str | None:
        """Adds each question with its answer, and answers to the image alone as captions; returns
        the last question if it has no answer.
        """
        id = {"id": row.identifier("id")} if row.get("id") is not None else {}
        asked: str | None = None
        answered = 0
        for speaker, text in turns:
            if speaker == SYSTEM:
                self.left_out["system messages"] += 1
            elif speaker == USER:
                self.left_out["questions without answer"] += asked is not None
                asked = text
            elif asked is None:
                self.left_out["answers without question"] += 1
            else:
                answer = fields.text(text, "answer", where=row.where)
                answered += 1
                self.later_turns += answered > 1
                if asked:
                    turn = {"turn": str(answered)} if answered > 1 else {}
                    name = f"{builder.id}#{len(builder.questions) + 1}"
                    builder.questions.append(Question(name, asked, (answer,), id | turn))
                else:
                    builder.captions.append(answer)
                asked = None
        return asked

    def samples(self) -> Iterator[Sample]:
        """The samples; logs what was left out."""
        if self.later_turns:
            self.left_out["earlier turns of later questions"] = self.later_turns
        if counts := [f"{count} {what}" for what, count in self.left_out.items() if count]:
            _log.warning("%s: left out: %s", self.file, ", ".join(counts))
        yield from (one.sample() for one in self.builders.values())
