"""Input features and descriptions of the `evaluate` modules."""

from __future__ import annotations

from datasets import Features, List, Value
from evaluate import MetricInfo

# One text of the model and all human texts an item.
TEXTS = Features({"predictions": Value("string"), "references": List(Value("string"))})

# One row of similarities an image, and the columns of its texts.
SIMILARITIES = Features({"predictions": List(Value("float64")), "references": List(Value("int64"))})


def described(
    features: Features, *, description: str, inputs: str, source: str, citation: str
) -> MetricInfo:
    """What `evaluate` shows of a module.

    Args:
        features: what `predictions` and `references` are.
        description: the definition, with its version.
        inputs: arguments and result of `compute`.
        source: address of the implementation or paper that defines the figure.
        citation: of the paper, in one line.
    """
    return MetricInfo(
        description=description,
        citation=citation,
        features=features,
        inputs_description=inputs,
        reference_urls=[source],
    )
