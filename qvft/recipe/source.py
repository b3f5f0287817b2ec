"""One source of a recipe's data: format, path, columns, texts, prompts and weight."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag, field_validator

from qvft.recipe.section import MOST_STEPS, PathText, Section, Text


def _with_place(question: str) -> str:
    if "{question}" not in question:
        raise ValueError(f"{question!r} must contain {{question}}")
    return question


QuestionPrompt = Annotated[str, AfterValidator(_with_place)]


class SourcePrompt(Section):
    caption: str | None = Field(None, description="Text before a caption; null: data.prompt's.")
    question: QuestionPrompt | None = Field(
        None, description="Text before an answer, with {question}; null: data.prompt's."
    )


class Source(Section):
    format: Text = Field(
        "jsonl",
        description="Name of a format (`qvft convert --list`), or package.module.name of "
        "your own; see docs/formats.md.",
    )
    path: PathText | None = Field(None, description="File or folder to read.")
    name: Text | None = Field(
        None,
        description="Name in reports and of their folders, at most 100 characters, without / and "
        "\\; null: derived from the path.",
    )
    split: Text | None = Field(None, description="Split to read, where the format has several.")
    images: PathText | None = Field(
        None, description="Image folder, if it is not the format's usual one."
    )
    allow_paths_outside_root: bool | None = Field(
        None,
        description="Image paths outside the image folder (that of path, or images): ../, absolute "
        "paths, links that lead elsewhere. false refuses them, for data you do not trust; null "
        "reads those of local data and logs the first, refuses those of the Hub; true reads all.",
    )
    questions: PathText | None = Field(
        None, description="VQA v2: question file, if it is not in `path`."
    )
    annotations: PathText | None = Field(
        None, description="VQA v2: annotation file, if it is not in `path`."
    )
    columns: dict[Text, Text] = Field(
        default_factory=dict, description="hf, csv: column names, by field."
    )
    class_texts: dict[Text, Text] = Field(
        default_factory=dict,
        description="class_folders, csv: `question`, whose answer is the class's name, `caption` "
        "with {class}, or both; {}: the question `What is it?`.",
    )
    limit: int | None = Field(None, ge=1, description="Maximum number of images to read.")
    texts: Literal["all", "captions", "questions"] = Field("all", description="Texts to use.")
    captions_per_image: int | None = Field(
        None,
        ge=1,
        le=MOST_STEPS,
        description="Maximum captions per image, the first ones; null: all.",
    )
    prompt: SourcePrompt = Field(
        default_factory=SourcePrompt, description="Prompts of this source's texts."
    )
    answers: Literal["most_frequent", "first", "sampled"] = Field(
        "most_frequent",
        description="Training target of a question with several answers. sampled: drawn anew in "
        "each epoch, by frequency, from run.seed.",
    )
    weight: float | None = Field(
        None,
        gt=0,
        le=1_000_000,
        description="Of a list of training sources: share of the texts of an epoch, relative to "
        "the other weights; null for all: proportional to size.",
    )
    stream: bool = Field(
        False,
        description="Stream training data of format tar or hf instead of listing it, for data "
        "larger than memory. Needs train.max_steps; see docs/formats.md.",
    )
    shuffle_buffer: int = Field(
        10_000,
        ge=1,
        le=MOST_STEPS,
        description="With stream: size of the shuffle buffer, in groups of texts.",
    )

    @field_validator("name")
    @classmethod
    def _names_a_folder(cls, name: str | None) -> str | None:
        if name is not None and (problem := folder_name_problem(name)):
            raise ValueError(f"{name[:40]!r} {problem}; a folder is called after it")
        return name


LONGEST_NAME = 100  # characters of a folder's name; file systems allow 255 bytes


def folder_name_problem(name: str) -> str | None:
    """Why a name cannot be that of one folder on any system; None: it can."""
    if len(name) > LONGEST_NAME or len(name.encode(errors="replace")) > 2 * LONGEST_NAME:
        return f"has {len(name)} characters, at most {LONGEST_NAME} are allowed"
    if set(name) & set("/\\"):
        return "holds a / or \\"
    if name.strip(". ") != name.strip() or name != name.strip():
        return "begins or ends with a dot or blank"
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in name):
        return "holds a control character"
    return None


OneOrSeveral = Annotated[
    Annotated[Source, Tag("[one]")]
    | Annotated[list[Source], Tag("[several]"), Field(min_length=1)],
    Discriminator(lambda value: "[several]" if isinstance(value, list) else "[one]"),
]
"""One source, or a list of them. Tags are in brackets, which messages leave out."""
