"""What does CIDEr pay for captions that end a word early, with the stop token in it and without?

    python docs/studies/cut_captions.py runs/tuned_captions/cider-0.0001-100-0

Takes the test captions of a run of `reward_tuning.py` and prints, for each number of last words cut
off, how far the reward changes on average and for how many captions it rises.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path

from qvft.evaluation.metrics.cider import CorpusCider
from qvft.evaluation.rewards import STOP

sys.path.append(str(Path(__file__).resolve().parent))

from tuned_captions import predictions

CUTS = (1, 2, 3)


def changes_by_cut(run: Path, *, stop_token: bool) -> dict[int, tuple[float, float]]:
    """By words cut off: the mean change of CIDEr, and the share of captions whose CIDEr rises."""
    stop = [STOP] if stop_token else []

    def words(text: str) -> list[str]:
        return text.lower().split()

    lines = (run.parent / "train.jsonl").read_text(encoding="utf-8").splitlines()
    training = [json.loads(line)["captions"] for line in lines]
    cider = CorpusCider([words(text) + stop for text in texts] for texts in training)
    changes: dict[int, list[float]] = {cut: [] for cut in CUTS}
    for line in predictions(run):
        given = words(line["prediction"])
        references = [words(text) + stop for text in line["references"]]
        whole = cider(given + stop, references)
        for cut, found in changes.items():
            found.append(cider(given[:-cut] + stop, references) - whole)
    return {
        cut: (statistics.mean(found), statistics.mean(one > 0 for one in found))
        for cut, found in changes.items()
    }


def main() -> int:
    """Prints both tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path)
    run = parser.parse_args().run
    for stop_token in (True, False):
        for cut, (change, share) in changes_by_cut(run, stop_token=stop_token).items():
            print(f"stop_token={stop_token} cut={cut} CIDEr {change:+.3f} rises in {share:.1%}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
