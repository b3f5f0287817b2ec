"""Computing the features that are missing, in a pass of its own that can be killed and restarted.

Shape letters: I images, P patches, W ViT width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from rich.progress import Progress
from torch import Tensor
from torch.utils.data import DataLoader

from qvft.data.features.content import Contents, contents_of
from qvft.data.features.orphaned_files import remove_leftovers
from qvft.data.features.shards import Record, write_shards
from qvft.data.features.size import require_room
from qvft.data.features.store import Store
from qvft.data.sample import ImageSource
from qvft.errors import FailedError, ImageError
from qvft.log import stderr

Read = Callable[[ImageSource, int], Tensor]
"""Normalised pixels (3, height, width) of an image's view, a function of both alone, so that a pass
may stop and go on anywhere. Raises `ImageError`. Runs in workers."""

Encode = Callable[[Tensor], Tensor]
"""ViT features (I, P, W) of pixels (I, 3, height, width)."""

SHARD_RECORDS, SHARD_SECONDS = 256, 300.0
"""A shard is closed after so many records or seconds: what a kill can lose. BLIP-2's 256 records
in bfloat16 are 185 MB."""


@dataclass(frozen=True)
class Filled:
    """What a pass of this process did.

    Attributes:
        contents: of all images, for `store.Cached`.
        written: records computed and stored.
        present: records of its share that were there before.
        unusable: by the image's name, why it has no features.
    """

    contents: Contents
    written: int
    present: int
    unusable: Mapping[str, ImageError]


@dataclass(frozen=True)
class _Item:
    """A record that is wanted: what it is of."""

    key: bytes
    source: ImageSource
    view: int


def fill(
    store: Store,
    sources: Sequence[ImageSource],
    encode: Encode,
    *,
    read: Read,
    contents: Contents | None = None,
    views: int = 1,
    augmentation: Mapping[str, Any] | None = None,
    rank: int = 0,
    world: int = 1,
    batch_size: int = 16,
    workers: int = 0,
    shard_records: int = SHARD_RECORDS,
    shard_seconds: float = SHARD_SECONDS,
    limit_bytes: int | None = None,
    label: str = "features",
) -> Filled:
    """Computes and stores what `store` lacks of the images, this process's share of it.

    Images are encoded in chunks that depend on their order and on `batch_size` alone, and a chunk
    is stored whole: features are the same bits whether the pass was killed or not, and whatever
    the number of processes. Processes need not know of each other; after the last one has
    returned, `store.refresh()` finds the others' shards.

    Args:
        sources: images; those of equal content are encoded once.
        encode: the ViT; called without gradients.
        read: decodes, augments and normalises one image.
        contents: if they are known already.
        views: of each image; 0 is the plain one, the others are `augmentation`'s.
        augmentation: identifies what `read` does for views above 0, its seed included.
        rank, world: which share of the chunks this process takes.
        batch_size: images encoded together.
        workers: processes that decode; 0 decodes in this one.
        shard_records, shard_seconds: when a shard is closed.
        limit_bytes: what the features of these images may take on the disk; None: any.
        label: of the progress bar.

    Raises:
        RecipeError: they would take more; nothing was computed.
        SpaceError: there is not enough room, before the first is computed or later all the same;
            what was written stays.
        FailedError: a feature is not finite.
        DataError: the cache cannot be written to.
    """
    remove_leftovers(store.folder)
    if contents is None:
        contents = contents_of(sources, threads=workers)
    unusable, wanted = _wanted(store, sources, contents, views=views, augmentation=augmentation)
    require_room(
        store.folder,
        store.space,
        len(wanted) // views,
        views=views,
        present=sum(item.key in store for item in wanted),
        limit_bytes=limit_bytes,
    )
    starts = range(rank * batch_size, len(wanted), world * batch_size)
    mine = [wanted[start : start + batch_size] for start in starts]
    missing = [[item for item in chunk if item.key not in store] for chunk in mine]
    todo = [chunk for chunk in missing if chunk]
    share, count = sum(map(len, mine)), sum(map(len, todo))
    encoded = _encoded(store, todo, encode, read=read, workers=workers, unusable=unusable)
    written = 0
    # Where nobody watches, a bar would fill the log with blank lines.
    hidden = not stderr.is_terminal or rank != 0
    with Progress(console=stderr, transient=True, disable=hidden) as progress:
        task = progress.add_task(label, total=share, completed=share - count)

        def watched() -> Iterator[list[Record]]:
            for seen, records in encoded:
                progress.advance(task, seen)
                yield records

        for index in write_shards(
            store.folder,
            store.space,
            watched(),
            records=shard_records,
            seconds=shard_seconds,
            rank=rank,
        ):
            store.include(index)
            written += len(index.keys)
    return Filled(contents, written, share - count, unusable)


def _wanted(
    store: Store,
    sources: Sequence[ImageSource],
    contents: Contents,
    *,
    views: int,
    augmentation: Mapping[str, Any] | None,
) -> tuple[dict[str, ImageError], list[_Item]]:
    """The images that cannot be read, and what is wanted of the others, each record once."""
    unusable: dict[str, ImageError] = {}
    wanted: dict[bytes, _Item] = {}
    for source in sources:
        content = contents[source.name]
        if isinstance(content, ImageError):
            unusable[source.name] = content
            continue
        for view in range(views):
            key = store.key(content, view=view, augmentation=augmentation if view else None)
            wanted.setdefault(key, _Item(key, source, view))
    return unusable, list(wanted.values())


def _encoded(
    store: Store,
    chunks: Sequence[Sequence[_Item]],
    encode: Encode,
    *,
    read: Read,
    workers: int,
    unusable: dict[str, ImageError],
) -> Iterator[tuple[int, list[Record]]]:
    """For each chunk its length and the records of its usable images; the others are noted."""
    loader: DataLoader[Any] = DataLoader(
        chunks,  # type: ignore[arg-type]
        batch_size=None,
        collate_fn=_Reader(read),
        num_workers=min(workers, len(chunks)),
    )
    for chunk, (pixels, problems) in zip(chunks, loader if chunks else (), strict=True):
        validate_images = []
        for item, problem in zip(chunk, problems, strict=True):
            if problem is None:
                validate_images.append(item)
            else:
                unusable[item.source.name] = problem
        records: list[Record] = []
        if pixels is not None:
            with torch.no_grad():
                features = encode(pixels).detach().cpu()
            expected = (len(validate_images), store.space.patches, store.space.width)
            assert features.shape == expected, f"{tuple(features.shape)}, not {expected}"
            for item, one in zip(validate_images, features, strict=True):
                _require_finite(one, item)
                records.append((item.key, one))
        yield len(chunk), records


def _require_finite(features: Tensor, item: _Item) -> None:
    if not bool(torch.isfinite(features).all()):
        count = int((~torch.isfinite(features)).sum())
        raise FailedError(
            f"{item.source.name}: {count} of {features.numel()} ViT features are not finite, "
            "expected numbers; nothing of its batch was stored; compute the ViT in bfloat16 or "
            "float32, and check its weights."
        )


class _Reader:
    """Reads a chunk's images; runs in the loader's workers."""

    def __init__(self, read: Read) -> None:
        self.read = read

    def __call__(self, chunk: Sequence[_Item]) -> tuple[Tensor | None, list[ImageError | None]]:
        pixels: list[Tensor] = []
        problems: list[ImageError | None] = []
        for item in chunk:
            try:
                pixels.append(self.read(item.source, item.view))
                problems.append(None)
            except ImageError as error:
                problems.append(error)
        return torch.stack(pixels) if pixels else None, problems
