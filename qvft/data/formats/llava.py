"""LLaVA's conversations: `image` and `conversations` of `human` and `gpt`, in JSON or JSONL.

Source: github.com/haotian-liu/LLaVA, docs/Finetune_Custom_Data.md.
"""

from qvft.data.formats import sharegpt
from qvft.data.formats.format import IMAGE_OPTIONS, Format

FORMAT = Format(
    "llava", "LLaVA's conversations, each turn as a question", sharegpt.read, IMAGE_OPTIONS
)
