"""Chat template of a merged folder: a served chat gets the prompts that the model was trained with.

vLLM's chat API and `apply_chat_template` of transformers' tokenizers read it. The last message is
the question; a message without text asks for a caption.
"""

from __future__ import annotations

import json

from qvft.data.prompt import PromptTemplate

_TEMPLATE = """\
{%%- set content = messages[-1]['content'] -%%}
{%%- set parts = [content] if content is string else \
content | selectattr('type', 'equalto', 'text') | map(attribute='text') -%%}
{%%- set asked = (parts | join(' ')).split() | join(' ') -%%}
{{- %(begin)s -}}
{%%- if asked -%%}
{{- %(before)s + asked + %(after)s -}}
{%%- else -%%}
{{- %(caption)s -}}
{%%- endif -%%}
"""


def chat_template(template: PromptTemplate) -> str | None:
    """A Jinja chat template of one user's turn; None if none can say what `template` does.

    Those are prompts that are chat turns already, QVision's, and questions that are cleaned.
    """
    if template.chat_template or template.marked or template.text != "as_written":
        return None
    before, _, after = template.question.partition("{question}")
    begin = template.tokenizer.bos_token if template.begin_ids else ""
    texts = {
        "begin": begin, "before": before, "after": after.rstrip(" "),
        "caption": template.caption.rstrip(" "),
    }  # fmt: skip
    return _TEMPLATE % {k: json.dumps(text, ensure_ascii=False) for k, text in texts.items()}
