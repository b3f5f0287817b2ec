"""`VisionLanguageModel`: captions and answers from Python."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from transformers import PreTrainedModel

from qvft.data.images.sources import ImageLike
from qvft.data.predict_inputs import asked_rows, require_question
from qvft.data.rows import Row
from qvft.data.text_cleaning import require_text_left
from qvft.data.truncation import cut_warnings
from qvft.errors import DataError
from qvft.inference.generation_config import check_fields, generation_fields
from qvft.inference.log_probs import Candidate, LogProb, RankBy, Scoring
from qvft.inference.predict import Outcome, outcomes
from qvft.inference.prediction_file import in_order
from qvft.log import get_logger
from qvft.setup.prompt_template import require_candidates_fit, require_positions
from qvft.setup.resolve_model import ResolvedModel, load_resolved, resolve_model

if TYPE_CHECKING:
    from qvft.adapters.lora import PeftModel

logger = get_logger("qvft.predict")
Text = str | list[str] | None
OnBadImage = Literal["error", "skip"]


def load_model(name: str | Path) -> VisionLanguageModel:
    """Loads a model for inference, on the GPU if there is one.

    Args:
        name: run folder, merged or other model folder, or hub id. Prompts, lengths and decoding are
            those of its training run, if known.

    Raises:
        UserError: the model is not found or does not fit.
    """
    return VisionLanguageModel(resolve_model(str(name)))


class VisionLanguageModel:
    """Captions images and answers questions about them.

    Args:
        opened: from `resolve_model`; loads the weights.

    Attributes:
        name: the run, folder or hub id it was loaded from.
        recipe: prompts, lengths and decoding.
        loaded: the model with its prompt template and collator.
    """

    def __init__(self, opened: ResolvedModel) -> None:
        self.name = opened.name
        self.recipe = opened.recipe
        self.loaded = load_resolved(opened)

    def __repr__(self) -> str:
        adapted = ", with LoRA" if self.peft_model is not None else ""
        place, kind = self.model.device, type(self.model).__name__
        return f"VisionLanguageModel({self.name!r}: {kind} on {place}{adapted})"

    @property
    def model(self) -> PreTrainedModel:
        """The transformers model, with LoRA layers in its decoder if it has any."""
        return self.loaded.model

    @property
    def peft_model(self) -> PeftModel | None:
        """PEFT's wrapper around `model`; None without LoRA, as in a merged model."""
        return self.loaded.handle

    @property
    def processor(self) -> Any:
        """The transformers processor: tokenizer and image processor."""
        return self.loaded.processor

    def caption(
        self,
        images: ImageLike | Iterable[ImageLike],
        *,
        batch_size: int = 16,
        workers: int = 0,
        on_bad_image: OnBadImage = "error",
        seed: int | None = None,
        prompt: str | None = None,
        **generation: Any,
    ) -> Text | list[Text]:
        """A caption of each image: a list for a list, one for a single image.

        Args:
            images: paths, Pillow images, the bytes of image files, or arrays (height, width) or
                (height, width, 3 or 4) of uint8, 0 to 255, as Pillow makes them.
            batch_size: images captioned together.
            workers: image decoding processes; 0 decodes in this one.
            on_bad_image: `error` raises at an image that cannot be decoded, `skip` gives None.
            seed: seed of sampling; None: the recipe's, so that calls are reproducible.
            prompt: text before the caption, which goes on from it, e.g. "the left lung shows";
                None: the recipe's.
            generation: fields of `transformers.GenerationConfig` laid over the model's own
                decoding, e.g. `num_beams=5`. With `num_return_sequences` above 1 each caption
                becomes a list of that many.

        Raises:
            ImageError: an image cannot be decoded.
            DataError: an unsupported image type.
            RecipeError: an unknown field, or one that transformers refuses.
        """
        rows = asked_rows(images)
        texts = self._texts(rows, generation, batch_size, workers, on_bad_image, seed, prompt)
        return texts[0] if isinstance(images, ImageLike) else texts

    def answer(
        self,
        images: ImageLike | Iterable[ImageLike],
        questions: str | Iterable[str],
        *,
        batch_size: int = 16,
        workers: int = 0,
        on_bad_image: OnBadImage = "error",
        seed: int | None = None,
        **generation: Any,
    ) -> Text | list[Text]:
        """Answers each question about its image; one answer for one image and one question.

        Args:
            images: as in `caption`.
            questions: one for each image; or one for all images; or any number about one image.
                Repeated images are encoded once.
            batch_size: as in `caption`, like `workers`, `on_bad_image`, `seed` and `generation`.

        Raises:
            DataError: numbers of questions and images differ.
            ImageError, RecipeError: as `caption`.
        """
        asked: Any = questions
        if asked is None:
            require_question(asked, where="questions")
        rows = asked_rows(images, questions)
        texts = self._texts(rows, generation, batch_size, workers, on_bad_image, seed)
        single = isinstance(images, ImageLike) and isinstance(questions, str)
        return texts[0] if single else texts

    def rank(
        self,
        images: ImageLike | Iterable[ImageLike],
        candidates: Sequence[str],
        questions: str | Iterable[str] | None = None,
        *,
        by: RankBy = "sum",
        prompt: str | None = None,
    ) -> list[tuple[Candidate, ...]]:
        """The candidates of each image or question, the most likely first; nothing is generated.

        Args:
            images, questions: as in `answer`; without questions the candidates are captions.
            by: `sum`, the log-probability of the text with its stop token, or its `mean` per token.
            prompt: as in `caption`.

        Raises:
            DataError, ImageError: no candidate, or as `answer`.
        """
        if isinstance(candidates, str) or not candidates or not all(map(str.strip, candidates)):
            raise DataError(f"{candidates!r}", where="candidates", expected="a list of texts")
        if by not in get_args(RankBy):
            raise DataError(f'"{by}"', where="by", expected="sum or mean")
        named = tuple(dict.fromkeys(candidates))
        rows = [replace(row, candidates=named) for row in asked_rows(images, questions)]
        return self._ranked(rows, by, prompt)

    def log_probs(
        self,
        images: ImageLike | Iterable[ImageLike],
        texts: str | Sequence[str],
        questions: str | Iterable[str] | None = None,
        *,
        prompt: str | None = None,
    ) -> list[LogProb]:
        """The model's log-probability of a text of each image or question with its stop token.

        Args:
            images, questions, prompt: as in `rank`.
            texts: one of each, written by whomever and in whatever way.

        Raises:
            DataError, ImageError: another number of texts, or as `answer`.
        """
        rows = asked_rows(images, questions)
        given = [texts] if isinstance(texts, str) else list(texts)
        if len(given) != len(rows):
            raise DataError(f"{len(given)} texts for {len(rows)} rows", expected="one of each")
        rows = [replace(row, candidates=(one,)) for row, one in zip(rows, given, strict=True)]
        return [found.log_prob for (found,) in self._ranked(rows, "sum", prompt)]

    def _ranked(
        self, rows: Sequence[Row], by: RankBy, prompt: str | None
    ) -> list[tuple[Candidate, ...]]:
        """Candidates of each row; raises a row's error."""
        scoring = Scoring(rank_by=by, generate=False)
        found = self.outcomes(rows, {}, batch_size=16, workers=0, scoring=scoring, prompt=prompt)
        listed = list(in_order(found))
        for error in (one.error for one in listed if one.error is not None):
            raise error
        return [one.candidates for one in listed]

    def outcomes(
        self,
        rows: Sequence[Row],
        fields: Mapping[str, Any],
        *,
        batch_size: int,
        workers: int,
        scoring: Scoring = Scoring(),  # noqa: B008  # frozen
        prompt: str | None = None,
    ) -> Iterator[Outcome]:
        """The outcome of each row, as batches finish; truncated prompts are counted first.

        Args:
            prompt: caption prompt, instead of the recipe's.

        Raises:
            DataError: a question is empty after cleaning.
            RecipeError: a text could be longer than the decoder's positions.
        """
        generation = generation_fields(self.recipe, fields)
        loaded = self.loaded
        collator = loaded.collator
        if prompt is not None:
            collator = replace(collator, template=replace(loaded.template, caption=prompt))
        most = max(settings["max_new_tokens"] for settings in generation.values())
        most += scoring.log_probs  # the stop of a text that was cut
        require_positions(self.recipe, loaded.base, most, where="max_new_tokens")
        if scoring.rank_by:
            require_candidates_fit(self.recipe, loaded.base, collator.template, rows)
        asked = [row for row in rows if row.kind == "question"]
        require_text_left(asked, self.recipe.data.text, where="questions")
        for sentence in cut_warnings(rows, collator.template, collator.reader, asked=True):
            logger.warning("%s", sentence)
        return outcomes(
            loaded.model,
            collator,
            rows,
            generation=generation,
            batch_size=batch_size,
            workers=workers,
            scoring=scoring,
        )

    def _texts(
        self,
        rows: Sequence[Row],
        fields: Mapping[str, Any],
        batch_size: int,
        workers: int,
        on_bad_image: OnBadImage,
        seed: int | None,
        prompt: str | None = None,
    ) -> list[Text]:
        check_fields(fields, "generation: ")
        if on_bad_image not in ("error", "skip"):
            raise DataError(f'"{on_bad_image}"', where="on_bad_image", expected="error or skip")
        if batch_size < 1 or workers < 0:
            raise DataError(
                f"batch_size {batch_size}, workers {workers}", expected="at least 1 and 0"
            )
        texts: list[Text] = [None] * len(rows)
        with torch.random.fork_rng():
            torch.manual_seed(self.recipe.run.seed if seed is None else seed)
            for outcome in self.outcomes(
                rows, fields, batch_size=batch_size, workers=workers, prompt=prompt
            ):
                if outcome.error is None:
                    found = outcome.texts
                    texts[outcome.number] = list(found) if len(found) > 1 else found[0]
                elif on_bad_image == "error":
                    raise outcome.error
        return texts
