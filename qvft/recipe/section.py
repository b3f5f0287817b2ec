"""Base class of all recipe sections."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo

from qvft.files import expanded


class Section(BaseModel):
    """A frozen, strictly typed part of a recipe; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", serialize_by_alias=True)


def fields_by_key(section: type[BaseModel]) -> dict[str, FieldInfo]:
    """The fields of a section by recipe key: a field whose key is a Python keyword has an alias."""
    return {field.alias or name: field for name, field in section.model_fields.items()}


def section_of(annotation: Any) -> type[Section] | None:
    """The section class of a field's type, through `| None`, lists and `Annotated`."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    return next(filter(None, map(section_of, get_args(annotation))), None)


def leaves(content: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """(key path, value) of nested mappings, and of the mappings in lists of phases and sources."""
    if path in LISTS and isinstance(content, list):
        content = dict(enumerate(content))
    if isinstance(content, Mapping) and content:
        for key, inner in content.items():
            yield from leaves(inner, f"{path}.{key}" if path else key)
    else:
        yield path, content


LISTS = ("phases", "data.train", "data.eval")
"""Key paths of lists of sections; `phases.0.train` is a key path too."""
Text = Annotated[str, Field(min_length=1)]
"""A text that says something: `null` leaves a key out, an empty text is a slip."""
PathText = Annotated[Text, AfterValidator(expanded)]
"""A path, or what may be one: `~` is the home folder."""
MOST_STEPS = 2**31 - 1
"""Of whatever is counted in steps or texts: more than any run has, and a number that fits."""
MOST_SEED = 2**32 - 1
"""Source: numpy.random.seed, which transformers' set_seed calls."""
