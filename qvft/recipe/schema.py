"""The recipe schema: all keys (hyperparameters, data, model) with type, default, unit and effect.

The JSON schema for editors and docs/recipe_reference.md are generated from these classes. Nothing
here imports torch: a recipe is checked in milliseconds.
"""

from __future__ import annotations

import os
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from qvft.recipe.data import Data
from qvft.recipe.eval import Eval
from qvft.recipe.model import Model
from qvft.recipe.objectives import Objectives
from qvft.recipe.preference import Preference
from qvft.recipe.requirements import require_objectives, require_sources, require_streamable
from qvft.recipe.reward import Reward
from qvft.recipe.section import MOST_SEED, PathText, Section
from qvft.recipe.source import LONGEST_NAME, folder_name_problem
from qvft.recipe.train import Train
from qvft.recipe.trainable import Trainable


class Run(Section):
    dir: PathText | None = Field(None, description="Run folder; null means runs/NAME.")
    seed: int = Field(
        0, ge=0, le=MOST_SEED, description="Seed of initial weights, data order and dropout."
    )
    threads: int | None = Field(
        None,
        ge=1,
        le=512,
        description="CPU threads per process, used without a GPU; null: the cores divided by the "
        "processes on this host.",
    )


class Phase(Section):
    """One phase of training, with its own optimizer and schedule, and what it overrides."""

    name: str = Field(
        pattern=r"^[a-z0-9_-]+$", max_length=LONGEST_NAME, description="Name of the phase."
    )
    objective: Literal["language", "preference", "reward"] = Field(
        "language",
        description="What the phase learns from. language: the texts, by the losses of "
        "`objectives`. preference: pairs of a chosen and a rejected text, as `preference` says. "
        "reward: samples of the model's own, as `reward` says.",
    )
    trainable: dict[str, Any] = Field(
        default_factory=dict, description="Keys of `trainable` to override."
    )
    train: dict[str, Any] = Field(default_factory=dict, description="Keys of `train` to override.")

    @field_validator("train")
    @classmethod
    def _starts_nowhere(cls, train: dict[str, Any]) -> dict[str, Any]:
        if "from" in train:
            raise ValueError(
                "from: a phase begins with the weights of the one before it; set train.from, which "
                "holds for the run"
            )
        return train


class Recipe(Section):
    """A whole recipe, validated; nothing changes it afterwards."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9_.-]+$",
        max_length=LONGEST_NAME,
        description="Name of the run and its folder.",
    )
    model: Model
    data: Data = Field(default_factory=Data)
    trainable: Trainable = Field(default_factory=Trainable)
    train: Train = Field(default_factory=Train)
    phases: list[Phase] = Field(
        default_factory=list, description="Phases in order; empty: one, as trainable and train say."
    )
    objectives: Objectives = Field(
        default_factory=Objectives,
        description="Training losses; the language loss alone by default.",
    )
    preference: Preference = Field(
        default_factory=Preference,
        description="Losses of phases with objective: preference; names and defaults are those of "
        "trl's DPOConfig, see docs/preference.md.",
    )
    reward: Reward = Field(
        default_factory=Reward,
        description="Samples and losses of phases with objective: reward; names and defaults are "
        "those of trl's RLOOConfig and GRPOConfig, see docs/reward.md.",
    )
    eval: Eval = Field(default_factory=Eval)
    run: Run = Field(default_factory=Run)

    @field_validator("name")
    @classmethod
    def _names_a_folder(cls, name: str) -> str:
        if problem := folder_name_problem(name):
            raise ValueError(f"{name!r} {problem}; the run folder is called after it")
        return name

    @model_validator(mode="after")
    def _sources_fit(self) -> Recipe:
        require_sources(self.data)
        require_streamable(self)
        return self

    @model_validator(mode="after")
    def _evaluation_has_data(self) -> Recipe:
        if self.train.eval_steps is not None and self.data.eval is None:
            raise ValueError("train.eval_steps needs data.eval")
        return self

    @model_validator(mode="after")
    def _objectives_fit(self) -> Recipe:
        require_objectives(self)
        return self

    @classmethod
    def load(cls, path: str | os.PathLike[str], /, **overrides: Any) -> Recipe:
        """Reads a YAML file, lays overrides over it and checks every key.

        Args:
            path: e.g. `recipes/custom_jsonl.yaml`.
            overrides: values by key path, e.g. `**{"train.epochs": 1}`.

        Raises:
            RecipeError: no such file, or an unknown or ill-typed key.
        """
        from qvft.recipe.load import load_recipe
        from qvft.recipe.overrides import override_texts

        return load_recipe(os.fspath(path), override_texts(overrides))

    @property
    def run_dir(self) -> str:
        """The run folder, relative to the working folder unless absolute."""
        return self.run.dir or f"runs/{self.name}"
