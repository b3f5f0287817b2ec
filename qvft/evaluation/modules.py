"""qvft's metrics as metrics of Hugging Face's `evaluate`: `load("captions").compute(...)`.

Extra `qvft[evaluate]`. The same functions compute them; nothing is downloaded or written.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from qvft.errors import DataError
from qvft.evaluation.metric import Group
from qvft.evaluation.metric_table import METRICS
from qvft.evaluation.metrics import llava_med, medical, multimedeval, retrieval
from qvft.evaluation.metrics.captions import score_captions
from qvft.evaluation.metrics.vqa import vqa_accuracy
from qvft.evaluation.question_metrics import llava_med_group
from qvft.evaluation.rows import PredictionRow
from qvft.extras import require_package

Texts = Sequence[str]
Figures = dict[str, float]


@dataclass(frozen=True)
class Module:
    """A metric of `evaluate`: how it computes, and what its `info` says.

    Attributes:
        compute: figures from `predictions`, `references`, and inputs of its own.
        inputs: types of `predictions` and `references`.
    """

    compute: Callable[..., Figures]
    description: str
    citation: str
    url: str
    inputs: tuple[str, str] = ("string", "list of string")


def load(name: str, config_name: str | None = None) -> Any:
    """The `evaluate.Metric` of a name of `MODULES`; it keeps what is added to it in memory.

    Args:
        config_name: `2017` or `2021` for `vqa_accuracy`, which is 2017 without it.

    Raises:
        ValueError: there is no such module or configuration.
        MissingToolError: the package `evaluate` is not installed.
    """
    if name not in MODULES:
        raise ValueError(f"there is no module {name!r}; expected one of {', '.join(MODULES)}")
    if config_name not in (None, *(("2017", "2021") if name == "vqa_accuracy" else ())):
        raise ValueError(f"configuration {config_name!r} of {name}; expected one of 2017, 2021")
    require_package("evaluate", wanted_by="qvft.evaluation.modules", install="qvft[evaluate]")
    import evaluate
    from datasets import Features, List, Value

    module = MODULES[name]
    compute = (
        functools.partial(module.compute, rules=config_name) if config_name else module.compute
    )
    features = {
        key: List(Value(kind.split()[-1])) if kind.startswith("list") else Value(kind)
        for key, kind in zip(("predictions", "references"), module.inputs, strict=True)
    }
    info = evaluate.MetricInfo(
        features=Features(features),
        description=module.description,
        citation=module.citation,
        reference_urls=[module.url],
    )
    methods = {"_info": lambda self: info, "_compute": lambda self, **given: compute(**given)}
    # `evaluate` wants a folder for every metric, though nothing is written to it.
    folder = _temporary_folder().name
    metric = type(name, (evaluate.Metric,), methods)
    return metric(config_name=config_name, cache_dir=folder, keep_in_memory=True)


@functools.cache
def _temporary_folder() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="qvft-evaluate-")


def _captions(predictions: Texts, references: Sequence[Texts]) -> Figures:
    _require_some(predictions)
    names = [str(number) for number in range(len(predictions))]
    known = dict(zip(names, references, strict=True))
    return score_captions(known, dict(zip(names, predictions, strict=True))).corpus


def _vqa(predictions: Texts, references: Sequence[Texts], rules: Any = "2017") -> Figures:
    _require_some(predictions)
    pairs = zip(predictions, references, strict=True)
    found = [vqa_accuracy(prediction, answers, rules=rules) for prediction, answers in pairs]
    return {"accuracy": 100 * sum(found) / len(found), "rules": rules}


def _of_group(
    group: Group,
    predictions: Texts,
    references: Sequence[Texts],
    answer_types: Texts | None = None,
) -> Figures:
    """The figures of a group of metrics, each in its unit, and `n`, the items it scored.

    Raises:
        DataError: no predictions, another number of answer types, or a question without an answer.
    """
    _require_some(predictions)
    types = [""] * len(predictions) if answer_types is None else answer_types
    if len(types) != len(predictions):
        expected = f"one for each of {len(predictions)} predictions"
        raise DataError(f"{len(types)} answer types", expected=expected)
    rows = [
        PredictionRow(
            str(n), str(n), "question", None, prediction, tuple(answers), {"answer_type": kind}
        )
        for n, (prediction, answers, kind) in enumerate(
            zip(predictions, references, types, strict=True)
        )
    ]
    for row in rows:
        if not row.references:
            raise DataError(f"question {row.id} has no references", expected="at least one")
    scores = group(rows, range(len(rows)))
    return {metric.name: metric.value for metric in scores.metrics} | {"n": scores.n}


def _llava_med(
    predictions: Texts,
    references: Sequence[Texts],
    answer_types: Texts | None = None,
    candidates: Texts | None = None,
) -> Figures:
    group = llava_med_group(llava_med.Candidates.of(candidates) if candidates else None)
    return _of_group(group, predictions, references, answer_types)


def _retrieval(
    predictions: Sequence[Sequence[float]], references: Sequence[Sequence[int]]
) -> Figures:
    widths = sorted({len(row) for row in predictions})
    columns = sorted(column for own in references for column in own)
    if len(widths) != 1 or columns != list(range(widths[0])):
        raise DataError(
            f"rows of {', '.join(map(str, widths)) or 'no'} similarities, columns of "
            f"{len(columns)} texts",
            expected="a similarity of every image with every text; each text of one image",
        )
    owner = np.empty(widths[0], dtype=np.int64)
    for image, own in enumerate(references):
        owner[list(own)] = image
    scores = retrieval.retrieval_scores(np.array(predictions, dtype=np.float64), owner.tolist())
    return {
        f"{way}_recall_at_{cutoff}": value
        for way in ("image_to_text", "text_to_image")
        for cutoff, value in getattr(scores, way).items()
    }


def _require_some(predictions: Texts) -> None:
    if not len(predictions):
        raise DataError("no predictions", expected="a text and its references, or more")


MODULES = {
    "captions": Module(
        _captions,
        "BLEU-1 to 4, ROUGE_L and CIDEr (CIDEr-D) as pycocoevalcap 1.2 computes them, on its PTB "
        "tokens, without Java.",
        "Chen et al. 2015, Microsoft COCO Captions: Data Collection and Evaluation Server, "
        "arXiv:1504.00325",
        "https://github.com/salaniz/pycocoevalcap",
    ),
    "vqa_accuracy": Module(
        _vqa,
        "VQA accuracy in percent as the official evaluator computes it, under its rules of 2017 "
        "(default) or 2021.",
        "Antol et al. 2015, VQA: Visual Question Answering, arXiv:1505.00468",
        "https://github.com/GT-Vision-Lab/VQA",
    ),
    "medical_vqa": Module(
        functools.partial(_of_group, METRICS["medical"].function),
        "\n".join(medical.DEFINITIONS.values()),
        "Lau et al. 2018, A dataset of clinically generated visual questions and answers about "
        "radiology images, Scientific Data 5",
        "https://osf.io/89kps/",
    ),
    "llava_med": Module(
        _llava_med,
        "\n".join(llava_med.DEFINITIONS.values()),
        "Li et al. 2023, LLaVA-Med: Training a Large Language-and-Vision Assistant for Biomedicine "
        "in One Day, arXiv:2306.00890",
        "https://github.com/microsoft/LLaVA-Med/tree/b9a98a736d2ef05bcf5ff345be6403fb3a664eaf",
    ),
    "multimedeval": Module(
        functools.partial(_of_group, METRICS["multimedeval"].function),
        "\n".join(multimedeval.DEFINITIONS.values()),
        "Royer et al. 2024, MultiMedEval: A Benchmark and a Toolkit for Evaluating Medical "
        "Vision-Language Models, arXiv:2402.09262",
        "https://github.com/corentin-ryr/MultiMedEval/tree/"
        "d9ac283f5ad989d4f78b709f7076f432de4aa69e",
    ),
    "retrieval": Module(
        _retrieval,
        retrieval.DEFINITION,
        "Karpathy and Fei-Fei 2015, Deep Visual-Semantic Alignments for Generating Image "
        "Descriptions, arXiv:1412.2306",
        "https://github.com/salesforce/LAVIS",
        inputs=("list of float64", "list of int64"),
    ),
}
