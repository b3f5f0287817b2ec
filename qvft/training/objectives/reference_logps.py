"""Reference log-probabilities of pairs: computed once before a phase's first step, and stored.

The reference of a preference phase is the model as the phase begins. With a Q-Former that is
trained in place, disabling LoRA's adapters would not give it back.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader

from qvft.data.rows import Row
from qvft.disk import name_whole, saving
from qvft.json_files import sha256_json
from qvft.log import get_logger, is_main_process
from qvft.models.distributed import all_gather_object, processes
from qvft.progress import counted
from qvft.training.activations import lean_activations
from qvft.training.objectives.preference import (
    PairKey,
    PreferenceCollator,
    PreferenceObjective,
    key_of,
)
from qvft.training.recovery.out_of_memory import in_halves

logger = get_logger("qvft.train")
REFERENCE = "reference.safetensors"
"""Name of the file, in the folder of the phase's checkpoints."""
KEY, LOGPS = "key", "logps"
OF_THE_RUN = ("base_weights_sha256", "images_sha256", "quantized")
KEPT = "no step was taken; make room and start again"
Reference = Mapping[PairKey, tuple[float, float]]
Collate = Callable[[Sequence[tuple[int, Row]]], dict[str, Tensor]]


def with_reference(
    objective: PreferenceObjective,
    collator: PreferenceCollator,
    rows: Sequence[Row],
    *,
    file: Path,
    weights: Iterable[str],
    provenance: Mapping[str, Any],
    batch_size: int,
    bf16: bool,
    workers: int,
) -> PreferenceCollator:
    """The collator with the log-probabilities of `rows` under the objective's weights as they are.

    Args:
        rows: of them those with a rejected text, in each view that they are shown in.
        file: where they are stored, or are already.
        weights: names of weights that this phase or an earlier one trains, besides LoRA's.
        provenance: of the run, with hashes of base and images, and the decoder's 4-bit type.
    """
    pairs = [row for row in rows if row.rejected is not None]
    template = collator.collator.template
    texts = [
        (row.kind, row.question, text, row.prompt)
        for row in pairs
        for text in (row.target, row.rejected)
    ]
    facts = {
        "weights": weights_hash(objective.model, weights),
        "tokens": sha256_json([list(one.ids) for one in template.encode_all(texts)]),
        "bf16": bf16,
        "ld_alpha": objective.settings.ld_alpha,
        **{key: provenance.get(key) for key in OF_THE_RUN},
    }
    compute = partial(
        reference_logps, objective, collator, batch_size=batch_size, bf16=bf16, workers=workers
    )
    known = stored_reference(file, pairs, facts=facts, compute=compute)
    return PreferenceCollator(collator.collator, known)


def stored_reference(
    file: Path,
    rows: Sequence[Row],
    *,
    facts: Mapping[str, Any],
    compute: Callable[[Sequence[Row]], Tensor],
) -> Reference:
    """Log-probabilities of each row's chosen and rejected text, read from `file` or computed.

    Collective: the main process reads and writes.

    Args:
        facts: everything that they depend on besides the rows' texts, e.g. hashes of weights and
            images. If facts or rows have changed, they are computed again.
    """
    keys = [key_of(row) for row in rows]
    key = sha256_json({"facts": dict(facts), "pairs": [list(one) for one in keys]})
    (found, *_) = all_gather_object(_read(file, key) if is_main_process() else None)
    if found is None:
        logger.info("reference log-probabilities of %d pairs: computing", len(rows))
        found = compute(rows).double().cpu()
        if is_main_process():
            _write(file, key, found)
    return dict(zip(keys, map(tuple, found.tolist()), strict=True))


@torch.no_grad()
def reference_logps(
    objective: PreferenceObjective,
    collate: Collate,
    rows: Sequence[Row],
    *,
    batch_size: int,
    bf16: bool,
    workers: int = 0,
) -> Tensor:
    """Log-probabilities (N, 2), nats, of chosen and rejected texts under the weights as they are.

    In evaluation mode, in batches of consecutive rows, which processes share out. A batch that does
    not fit into memory is halved.

    Args:
        bf16: whether to compute under bfloat16 autocast with lean activations, as training does.
    """
    state = processes()
    places = [range(at, min(at + batch_size, len(rows))) for at in range(0, len(rows), batch_size)]
    own = places[state.process_index :: state.num_processes]
    batches = [[(number, rows[number]) for number in part] for part in own]
    # Its own generator: nothing is drawn from the random state of training.
    loader: Iterable[dict[str, Tensor]] = DataLoader(
        batches,  # type: ignore[arg-type]  # a sequence is a dataset
        batch_size=None,
        collate_fn=collate,
        num_workers=workers,
        generator=torch.Generator(),
    )
    device = next(objective.parameters()).device
    was_training = objective.training
    objective.eval()
    found: list[tuple[list[int], Tensor]] = []
    autocast = torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16)
    counting = counted("reference log-probabilities of pairs", sum(map(len, own)))
    with lean_activations(objective, active=bf16), autocast, counting as count:
        for rows_of_batch, batch in zip(batches, loader, strict=True):
            numbers = [number for number, _ in rows_of_batch]

            def logps_of(
                part: list[int], whole: list[int] = numbers, tensors: dict[str, Tensor] = batch
            ) -> list[Tensor]:
                if part != whole:
                    tensors = collate([(number, rows[number]) for number in part])
                inputs = {key: one.to(device) for key, one in tensors.items() if key != "row_index"}
                return [*objective.logps(**inputs).double().cpu()]

            found.append((numbers, torch.stack(in_halves(logps_of, numbers))))
            count.advance(len(numbers))
    objective.train(was_training)
    logps = torch.zeros(len(rows), 2, dtype=torch.float64)
    for numbers, values in (one for part in all_gather_object(found) for one in part):
        logps[numbers] = values
    return logps


def weights_hash(model: nn.Module, names: Iterable[str]) -> str:
    """Hex SHA-256 of the named parameters, and of all of LoRA's."""
    chosen = set(names)
    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        if name in chosen or parameter.requires_grad or ".lora_" in name:
            tensor = parameter.detach().cpu().contiguous()
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _read(file: Path, key: str) -> Tensor | None:
    """The stored log-probabilities (N, 2), if they are those of this key."""
    if not file.is_file():
        return None
    try:
        with safe_open(file, "pt") as stored:
            if (stored.metadata() or {}).get(KEY) == key:
                return stored.get_tensor(LOGPS)
    except Exception as error:  # safetensors raises its own for a damaged file
        logger.warning("%s cannot be read (%s)", file, error)
    logger.info("%s is of other weights, pairs or settings", file)
    return None


def _write(file: Path, key: str, logps: Tensor) -> None:
    partial = file.with_name(f".{file.name}.partial")
    with saving(file, kept=KEPT):
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file({LOGPS: logps}, partial, metadata={KEY: key})
        name_whole(partial, file)
