"""The official PTB tokeniser and coco-caption's scores, for tests and for recording.

`PYTHONPATH=. python tests/evaluation/metrics/ptb_program.py` records both files beside it again. It
needs Java and `qvft[java]`.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from qvft.evaluation.metrics.meteor import java_command
from qvft.evaluation.metrics.tokenize import DROPPED

FOLDER = Path(__file__).resolve().parent
TOKENS = FOLDER / "tokens_by_language.json"
SCORES = FOLDER / "scores_by_language.json"

_JAR = "tokenizer/stanford-corenlp-3.4.1.jar"
_CLASS = "edu.stanford.nlp.process.PTBTokenizer"
_BETWEEN = "qvftbetweentexts"


def program() -> list[str]:
    """The command line of the program.

    Raises:
        MissingToolError: Java or the jar is not installed.
    """
    java, folder = java_command("PTB tokenisation", (_JAR,))
    return [*java, "-cp", str(folder / _JAR), _CLASS, "-preserveLines", "-lowerCase"]


def official_tokens(texts: Sequence[str]) -> list[list[str]]:
    """What the program makes of each text, without the toolkit's list of punctuation.

    A line of its own stands between texts, so that none depends on the next, and texts may hold
    characters that end a line for the program.
    """
    assert not any("\n" in text for text in texts)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "texts.txt"
        lines = f"\n{_BETWEEN}\n".join(["", *texts, ""])
        file.write_bytes(lines.encode())
        run = subprocess.run([*program(), str(file)], capture_output=True, check=True)
    found = run.stdout.decode().split(_BETWEEN)[1:-1]
    assert len(found) == len(texts)
    return [
        [token for token in text.replace("\n", " ").split(" ") if token and token not in DROPPED]
        for text in found
    ]


def official_scores(references: dict[str, list[str]], predictions: dict[str, str]) -> dict:
    """Corpus scores of pycocoevalcap on the program's tokens."""
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    texts = [*chain.from_iterable(references.values()), *predictions.values()]
    tokens = dict(zip(texts, map(" ".join, official_tokens(texts)), strict=True))
    known = {key: [tokens[text] for text in texts] for key, texts in references.items()}
    said = {key: [tokens[text]] for key, text in predictions.items()}
    bleu = Bleu(4).compute_score(known, said, verbose=0)[0]
    return {
        **{f"Bleu_{order}": value for order, value in enumerate(bleu, start=1)},
        "ROUGE_L": float(Rouge().compute_score(known, said)[0]),
        "CIDEr": float(Cider().compute_score(known, said)[0]),
    }


def _write(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _record() -> None:
    languages = json.loads(TOKENS.read_text(encoding="utf-8"))
    for language, texts in languages.items():
        tokens = official_tokens(list(texts))
        languages[language] = dict(zip(texts, map(" ".join, tokens), strict=True))
    _write(TOKENS, languages)
    scored = json.loads(SCORES.read_text(encoding="utf-8"))
    for case in scored.values():
        case["scores"] = official_scores(case["references"], case["predictions"])
    _write(SCORES, scored)


if __name__ == "__main__":
    _record()
