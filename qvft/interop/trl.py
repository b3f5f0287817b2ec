"""`policy`: model, processor and reference for trl's own trainers (SFT, DPO, KTO, GRPO, RLOO)."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import huggingface_hub.constants
from torch import nn
from transformers import set_seed

from qvft.adapters.checkpoint import bridge_names, save_checkpoint
from qvft.errors import CheckpointError, ModelError, RecipeError
from qvft.extras import require_package
from qvft.files import require_writable
from qvft.interop.policy_model import Blip2Policy
from qvft.interop.policy_processor import PolicyProcessor
from qvft.log import is_main_process
from qvft.models.base_checkpoint import BaseCheckpoint
from qvft.models.decoders import is_encoder_decoder
from qvft.recipe.load import LOCK_NAME, parse_recipe
from qvft.recipe.overrides import override_texts
from qvft.recipe.phases import phase_plans
from qvft.recipe.recipe_lock import read_lock, write_lock
from qvft.recipe.schema import Recipe
from qvft.setup.model import Loaded, base_model, base_of, set_trainable, with_fresh_adapters
from qvft.setup.provenance import provenance_of
from qvft.setup.resolve_model import resolve_model
from qvft.setup.start_run import StartRun, start_run
from qvft.setup.start_weights import load_start, require_places, require_same_base


class HasFolder(Protocol):
    """A `qvft.Run`, or what else has the path of a run folder."""

    @property
    def folder(self) -> Path: ...


@dataclass(frozen=True)
class Policy:
    """A model for trl's trainers.

    Attributes:
        model: for `model=`. What the recipe trains has `requires_grad`; dropout is off.
        processor: for `processing_class=`. A user's message is a question, or an empty text for a
            caption; the recipe's prompt, begin and stop tokens are added.
        reference: for `ref_model=` of DPO and KTO: the model as it was before training. It shares
            the frozen weights with `model` and has copies of the trained ones.
        recipe: prompts, data and what is trained.
    """

    model: Blip2Policy
    processor: PolicyProcessor
    reference: Blip2Policy
    recipe: Recipe
    _loaded: Loaded
    _start: StartRun | None

    def add_reference(self, trainer: Any, *, beta: float) -> None:
        """Adds a KL term to a GRPOTrainer or RLOOTrainer, which take no `ref_model`.

        Construct it with `beta=0.0` and call this before `train`: for a `beta` of its own it would
        load another model.

        Args:
            beta: weight of the KL term.
        """
        from trl.trainer.utils import add_fused_lm_head

        add_fused_lm_head(self.reference, temperature=trainer.temperature)
        trainer.ref_model = trainer.accelerator.prepare_model(self.reference, evaluation_mode=True)
        trainer.beta = beta

    def save(self, folder: str | Path) -> Path:
        """Writes a run folder, which `qvft eval`, `predict`, `merge` and `train.from` read.

        Raises:
            CheckpointError: the folder holds a run.
            NonFiniteWeightsError: a weight is NaN or infinite.
        """
        folder = Path(folder)
        if is_main_process() and (folder / LOCK_NAME).exists():
            raise CheckpointError(
                "holds a run", where=str(folder), do="name a new folder, or remove this one"
            )
        require_writable(folder, folder=True)
        self._write(folder / "adapter")
        run = self.recipe.run.model_copy(update={"dir": str(folder)})
        if is_main_process():
            write_lock(self.recipe.model_copy(update={"run": run}), folder)
        return folder

    def _write(self, folder: Path) -> None:
        loaded, start = self._loaded, self._start
        provenance = provenance_of(self.recipe, loaded.base, {})
        provenance["versions"] = {**provenance["versions"], "trl": version("trl")}
        before: set[str] = set()
        if start is not None:
            provenance["started_from"] = start.facts
            before = set(start.manifest["bridge"])
        save_checkpoint(
            folder,
            self.model,
            loaded.handle,
            loaded.base.family,
            provenance,
            bridge=before | bridge_names(self.model),
        )


def policy(run_or_model: str | Path | HasFolder, **overrides: Any) -> Policy:
    """A model, its processor and its reference for trl's trainers, on the GPU if there is one.

    Turns Hugging Face's telemetry off in this process, which trl's trainers send when constructed.

    Args:
        run_or_model: run folder or `qvft.Run`, whose trained weights are trained further; or a
            model folder or hub id of family `blip2`, which gets new LoRA layers.
        overrides: recipe overrides, e.g. `**{"trainable.qformer": "frozen"}`.

    Raises:
        MissingToolError: trl is not installed.
        ModelError, RecipeError: a question-aware or encoder-decoder model, QVision, 4 bits, FSDP or
            DeepSpeed.
        UserError: the run, the model or an override is wrong.
    """
    require_package("trl", wanted_by="qvft.interop.trl", install="qvft[trl]")
    huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY = True
    name = str(getattr(run_or_model, "folder", run_or_model))
    recipe = _recipe(name, override_texts(overrides))
    start = start_run(recipe)
    base = base_of(recipe)
    _require_supported(recipe, base, name)
    if start is not None:
        require_places(start, base.config, phase_plans(recipe))
        require_same_base(start, recipe, base)
    set_seed(recipe.run.seed)
    loaded = with_fresh_adapters(base_model(recipe, base), recipe.trainable)
    if start is not None:
        loaded = load_start(start, loaded)
    set_trainable(loaded, recipe.trainable)
    model, processor = _policy_model(loaded, name), PolicyProcessor.of(loaded)
    made = Policy(model, processor, reference_of(model), recipe, loaded, start)
    model.write_weights = lambda folder: made._write(Path(folder))
    return made


def reference_of(model: Blip2Policy) -> Blip2Policy:
    """A frozen copy that shares what is not trained with `model`, in evaluation mode.

    Disabling adapters would not do: Q-Former, query tokens and projection are trained in place.
    """
    tensors = [*model.parameters(), *model.buffers()]
    shared = {id(tensor): tensor for tensor in tensors if not tensor.requires_grad}
    reference = copy.deepcopy(model, memo=dict(shared))
    return reference.requires_grad_(False).eval()


def _recipe(name: str, overrides: Sequence[str]) -> Recipe:
    """The recipe of a run or model, with one phase; of a run it starts from that run."""
    if (Path(name) / LOCK_NAME).is_file():
        content = read_lock(Path(name), list(overrides)).model_dump()
        content["train"] = {**content["train"], "from": name}
    else:
        content = resolve_model(name, overrides=overrides).recipe.model_dump()
    recipe = parse_recipe({**content, "run": {**content["run"], "dir": f"{name}-trl"}})
    last = phase_plans(recipe)[-1]
    return recipe.model_copy(update={"phases": [], "trainable": last.trainable})


def _require_supported(recipe: Recipe, base: BaseCheckpoint, name: str) -> None:
    """Raises ModelError or RecipeError for what trl's trainers would train wrongly."""
    use_qvft = "train it with qvft: phases with objective preference or reward"
    kind = None
    if base.family.name != "blip2":
        kind = f"family {base.family.name}"
    elif is_encoder_decoder(base.config):
        kind = f"the encoder-decoder {base.config.text_config.model_type}"
    if kind is not None:
        raise ModelError(
            f"{kind}, of which trl's trainers do not pass all inputs",
            where=name,
            expected="family blip2 with a decoder-only language model",
            do=use_qvft,
        )
    if recipe.model.quantization.load_in_4bit:
        raise RecipeError(
            "true, but trl's trainers would cast trained weights of a quantised model to bfloat16",
            where="model.quantization.load_in_4bit",
            expected="false",
            do=use_qvft,
        )
    for variable in ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"):
        if os.environ.get(variable, "false").lower() in ("1", "true"):
            raise RecipeError(
                "is set, but the reference shares frozen weights with the model",
                where=variable,
                expected="one process, or DDP (recipes/accelerate/ddp.yaml)",
            )


def _policy_model(loaded: Loaded, name: str) -> Blip2Policy:
    """The loaded model as a policy, without dropout, that stops at the stop token."""
    model: Any = loaded.model
    model.__class__ = Blip2Policy
    model.name_as_message(name)
    stop, pad = loaded.template.stop_id, loaded.template.pad_id
    for part in (model, model.language_model):
        part.generation_config.eos_token_id, part.generation_config.pad_token_id = stop, pad
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model
