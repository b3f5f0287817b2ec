"""Texts generated while training: scores that choose the checkpoint, examples for a reader."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import PreTrainedModel

from qvft.data.collate import Collator
from qvft.data.rows import Row
from qvft.errors import QvftError, RecipeError
from qvft.inference.distributed import share
from qvft.inference.reward_function import TextScores
from qvft.inference.sample import sample_rows
from qvft.inference.sampled import Sampled
from qvft.models.distributed import all_gather_object, from_main_process, processes
from qvft.models.flex_attention import use_flex, uses_flex
from qvft.models.forward_stages import encode_features, encode_vision
from qvft.progress import counted

FILE = "completions.jsonl"
GENERATED = "generated/"
"""What names of scores of generated texts begin with, in metrics.jsonl after `eval_`."""


@dataclass(frozen=True)
class GreedyTexts:
    """Writes the greedy text of each row."""

    model: PreTrainedModel
    collator: Collator
    max_new_tokens: Mapping[str, int]
    batch_size: int

    def __call__(self, rows: Sequence[Row]) -> list[Sampled]:
        """The greedy text of each row, the same in every process, which share the rows' images."""
        state = processes()
        names = [row.sample.id for row in rows]
        own = share(names, rank=state.process_index, world=state.num_processes)
        problem: QvftError | None = None
        found: list[Sampled] = []
        try:
            counting = counted("generating evaluation texts", len(own))
            with _as_evaluated(self.model), counting as shown:
                for start in range(0, len(own), self.batch_size):
                    part = own[start : start + self.batch_size]
                    found += self._written([(number, rows[number]) for number in part])
                    shown.advance(len(part))
        except QvftError as error:
            problem = error  # raised in all processes, which would wait for this one
        # Without the rows, whose images may be in memory.
        plain = [replace(text, row=None) for text in found]  # type: ignore[arg-type]
        texts: dict[int, Sampled] = {}
        for others, failed in all_gather_object((plain, problem)):
            if failed is not None:
                raise failed
            texts |= {text.number: replace(text, row=rows[text.number]) for text in others}
        return [texts[number] for number in range(len(rows))]

    @torch.no_grad()
    def _written(self, rows: Sequence[tuple[int, Row]]) -> list[Sampled]:
        images: dict[str, int] = {}
        for _, row in rows:
            images.setdefault(row.sample.id, len(images))
        sources = list({row.sample.id: row.sample.image for _, row in rows}.values())
        seen = self.collator.seen(sources, [0] * len(sources))
        device = self.model.device
        if "features" in seen:
            features = seen["features"].to(device)
        else:
            features = encode_vision(self.model, seen["pixel_values"].to(device))
        found = sample_rows(
            self.model,
            self.collator,
            rows,
            states=encode_features(self.model, features),
            image_index=[images[row.sample.id] for _, row in rows],
            count=0,
            max_new_tokens=self.max_new_tokens,
            temperature=1.0,
            seed=(),
            prompts_at_once=self.batch_size,
        )
        return [text for (text,) in found]


@contextmanager
def _as_evaluated(model: Any) -> Iterator[None]:
    """Context manager: sdpa in place of flex attention, and no compiled blocks, which would be
    compiled again for every length.
    """
    flex = uses_flex(model)
    if flex:
        model.language_model.set_attn_implementation("sdpa")
    try:
        with torch.compiler.set_stance("force_eager"):
            yield
    finally:
        if flex:
            use_flex(model)


@dataclass(frozen=True)
class Completions:
    """Generates evaluation rows.

    Attributes:
        scored: rows whose texts are scored; none unless a score chooses the checkpoint.
        metric: the score that chooses the checkpoint.
    """

    greedy: GreedyTexts
    scored: Sequence[Row]
    examples: Sequence[Row]
    scores: TextScores | None
    metric: str

    def __call__(self, *, scored: bool = True) -> tuple[dict[str, float], list[dict[str, Any]]]:
        """Scores by name, and the examples as lines of completions.jsonl, in every process."""
        rows = self.scored if scored else ()
        texts = self.greedy([*rows, *self.examples])
        known: Mapping[str, float] = {}
        if rows and self.scores is not None:
            scores = self.scores
            known = from_main_process(lambda: scores(texts[: len(rows)]))
            require_score(self.metric, known)
        return {f"{GENERATED}{name}": value for name, value in known.items()}, [
            {
                "id": text.row.id,
                "image": text.row.sample.image.name,
                **({} if text.row.question is None else {"question": text.row.question}),
                "text": text.text,
                "references": list(dict.fromkeys(text.row.references)),
            }
            for text in texts[len(rows) :]
        ]


def require_score(metric: str, known: Mapping[str, float]) -> None:
    """Raises RecipeError if `metric` is not among the scores that data.eval has."""
    if metric not in known:
        raise RecipeError(
            f"{metric}, which scores no text of data.eval",
            where="train.metric_for_best_model",
            expected=f"loss, {', '.join(known)}",
        )


def reference_as_text(number: int, row: Row) -> Sampled:
    """The first reference of a row, as if it were generated."""
    return Sampled(number, row, row.question or "", (), (0,), row.references[0], True)
