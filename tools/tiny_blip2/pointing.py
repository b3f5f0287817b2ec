"""Whether attention maps point at the thing asked about, on drawn scenes whose regions are known:
`python -m tools.tiny_blip2.pointing MODEL N [--json F]`.

Shape letters: R rows and C columns of patches.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedModel

from qvft.data.collate import Collator
from qvft.data.rows import Row, evaluation_rows
from qvft.errors import FailedError
from qvft.evaluation.explanation.maps import FloatArray, explain_texts
from qvft.evaluation.stats import bootstrap_mean, paired_difference
from qvft.files import given_path
from qvft.inference.generation_config import generation_fields
from qvft.inference.predict import predict_texts
from qvft.json_files import write_json
from qvft.log import exit_status
from qvft.setup.resolve_model import load_resolved, resolve_model
from tools.tiny_blip2.drawn import Scene, Thing, draw, sample_scene
from tools.tiny_blip2.drawn.texts import NUMBER_WORDS
from tools.tiny_blip2.scene_format import DrawnImage, read

SCENES_SEED = 2
"""Other scenes than those that the bundled model was trained on."""
SCENE_PX = 64


@dataclass(frozen=True)
class Pointing:
    """How often the brightest patch of a map lies on the thing asked about.

    A patch lies on a thing if it holds at least one of its pixels.

    Attributes:
        on_thing: share of questions whose brightest patch does. interval: its 95 %, by image.
        chance: mean share of patches that lie on the thing asked about: what a patch drawn at
            random would reach.
        above_chance: `on_thing` minus `chance`. above_interval: its 95 %, paired, by image.
        on_any: share of questions whose brightest patch lies on any thing. chance_any: of a random
            patch.
        chance_among_things: what a random one of the patches that lie on things would reach: a map
            that finds things, but not the one asked about.
        above_things: `on_thing` minus that. above_things_interval: its 95 %, paired, by image.
        right: questions answered right. on_thing_right: `on_thing` among them, None without one.
        n: questions. images: scenes. seed: of the intervals.
    """

    on_thing: float
    interval: tuple[float, float] | None
    chance: float
    above_chance: float
    above_interval: tuple[float, float] | None
    on_any: float
    chance_any: float
    chance_among_things: float
    above_things: float
    above_things_interval: tuple[float, float] | None
    right: int
    on_thing_right: float | None
    n: int
    images: int
    seed: int

    @property
    def verdict(self) -> str:
        """What the interval says, in plain words."""
        if self.above_interval is None or self.above_things_interval is None:
            return "Too few scenes to say whether the maps point better than chance."
        if self.above_interval[1] < 0:
            return "The maps point at the thing asked about less often than a random patch would."
        if self.above_interval[0] <= 0:
            return (
                "The maps point at the thing asked about no more often than a random patch would."
            )
        better = "The maps point at the thing asked about more often than a random patch would"
        if self.above_things_interval[0] > 0:
            return f"{better}, and more often than a random patch on things: they tell it apart."
        return (
            f"{better}, but no more often than a random patch on things: they find things, not "
            "the one asked about."
        )

    def screen(self) -> str:
        """The figures with their verdict, as lines."""
        between = f" ({self.interval[0]:.1%} to {self.interval[1]:.1%})" if self.interval else ""
        lines = [
            f"{self.n} questions about one thing of several, {self.images} drawn scenes; the "
            "brightest patch lies",
            f"  on the thing asked about  {self.on_thing:6.1%}{between}; a random patch "
            f"{self.chance:.1%}, a random one on things {self.chance_among_things:.1%}",
            f"  on any thing              {self.on_any:6.1%}; a random patch {self.chance_any:.1%}",
        ]
        if self.on_thing_right is not None:
            lines.append(
                f"  on the thing asked about, of {self.right} answered right: "
                f"{self.on_thing_right:.1%}"
            )
        return "\n".join([*lines, self.verdict])


def thing_asked_about(scene: Scene, question: str) -> Thing | None:
    """The one thing of a scene of several that a question names, by place, colour or name.

    None where the question is about none, several or all, or the scene holds a single thing.
    """
    if len(scene.things) < 2:
        return None
    named = [
        thing
        for thing in scene.things
        if f"at the {thing.place}" in question
        or question == f"What is {thing.colour}?"
        or question in (f"What color is the {_noun(thing)}?", f"Where is the {_noun(thing)}?")
    ]
    return named[0] if len(named) == 1 else None


def thing_region(scene: Scene, thing: Thing, size_px: int) -> npt.NDArray[np.bool_]:
    """(size_px, size_px) the pixels that a thing colours: those that change when it is repainted.

    Where and how things are drawn does not depend on their colours (`drawn.draw`).
    """
    other = "white" if thing.colour == "black" else "black"
    things = tuple(replace(one, colour=other) if one is thing else one for one in scene.things)
    before = np.asarray(draw(scene, size_px))
    after = np.asarray(draw(replace(scene, things=things), size_px))
    return (before != after).any(axis=2)


def patches_of(region: npt.NDArray[np.bool_], grid: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """(R, C) the patches that hold a pixel of a region, which is resized with its image.

    Args:
        grid: R and C.
    """
    patches = np.zeros(grid, dtype=bool)
    rows, columns = region.nonzero()
    patches[rows * grid[0] // region.shape[0], columns * grid[1] // region.shape[1]] = True
    return patches


def points_at(map_: FloatArray, patches: npt.NDArray[np.bool_]) -> bool:
    """Whether the brightest patch of a map (R, C) is among `patches` (R, C)."""
    return bool(patches.ravel()[int(map_.argmax())])


def pointing(
    model: PreTrainedModel,
    collator: Collator,
    rows: Sequence[Row],
    texts: Sequence[str],
    *,
    batch_size: int,
    seed: int = 0,
) -> Pointing | None:
    """Measures maps on questions of drawn scenes; None if no question names a thing.

    Args:
        rows: questions of `scene_format.read`, see `asked_rows`.
        texts: what the model said to each.
        batch_size: rows computed together.
        seed: of the intervals.
    """
    hits: list[float] = []
    chances: list[float] = []
    any_hits: list[float] = []
    any_chances: list[float] = []
    among: list[float] = []
    right: list[bool] = []
    clusters: list[str] = []
    for start in range(0, len(rows), batch_size):
        chunk, said = rows[start : start + batch_size], texts[start : start + batch_size]
        for row, text, found in zip(
            chunk, said, explain_texts(model, collator, chunk, said), strict=True
        ):
            scene = _scene(row)
            thing = thing_asked_about(scene, row.question or "")
            if found is None or thing is None:
                continue
            grid, size_px = found.map.shape, cast(DrawnImage, row.sample.image).size_px
            regions = [patches_of(thing_region(scene, one, size_px), grid) for one in scene.things]
            asked, any_thing = regions[scene.things.index(thing)], np.logical_or.reduce(regions)
            hits.append(points_at(found.map, asked))
            chances.append(asked.mean())
            any_hits.append(points_at(found.map, any_thing))
            any_chances.append(any_thing.mean())
            among.append(asked.sum() / any_thing.sum())
            right.append(text == row.target)
            clusters.append(row.sample.id)
    if not hits:
        return None
    above = paired_difference(hits, chances, clusters=clusters, seed=seed)
    things = paired_difference(hits, among, clusters=clusters, seed=seed)
    right_hits = [hit for hit, good in zip(hits, right, strict=True) if good]
    return Pointing(
        on_thing=float(np.mean(hits)),
        interval=bootstrap_mean(hits, clusters, seed=seed),
        chance=float(np.mean(chances)),
        above_chance=above.difference,
        above_interval=above.interval,
        on_any=float(np.mean(any_hits)),
        chance_any=float(np.mean(any_chances)),
        chance_among_things=float(np.mean(among)),
        above_things=things.difference,
        above_things_interval=things.interval,
        right=sum(right),
        on_thing_right=float(np.mean(right_hits)) if right_hits else None,
        n=len(hits),
        images=len(set(clusters)),
        seed=seed,
    )


def asked_rows(rows: Sequence[Row], count: int) -> list[Row]:
    """The first `count` questions of drawn scenes that name one thing of several."""
    named = (row for row in rows if thing_asked_about(_scene(row), row.question or ""))
    return [row for row, _ in zip(named, range(count), strict=False)]


def _scene(row: Row) -> Scene:
    return sample_scene(row.sample.meta["seed"], row.sample.meta["index"])


def _noun(thing: Thing) -> str:
    """What a question calls a thing: `circle`, `letter B`, `digit four`."""
    if thing.kind == "shape":
        return thing.name
    return f"{thing.kind} {NUMBER_WORDS[int(thing.name)] if thing.kind == 'digit' else thing.name}"


def measure(model: str, *, questions: int, seed: int) -> Pointing:
    """How often a model's maps point at the thing asked about.

    Args:
        model: run folder, model folder or hub id.
        questions: how many, of scenes of seed `SCENES_SEED` with several things.
        seed: of the intervals.

    Raises:
        UserError: the model is not there or does not fit.
        FailedError: the model says nothing to any question.
    """
    opened = resolve_model(model)
    loaded = load_resolved(opened)
    scenes = read(f"seed={SCENES_SEED},count={100 * questions},size={SCENE_PX}")
    rows = asked_rows(evaluation_rows(scenes, texts="questions"), questions)
    decode = opened.recipe.eval
    texts = predict_texts(
        loaded.model,
        loaded.collator,
        rows,
        generation=generation_fields(opened.recipe),
        batch_size=decode.batch_size,
        workers=opened.recipe.data.num_workers,
    )
    found = pointing(
        loaded.model, loaded.collator, rows, texts, batch_size=decode.batch_size, seed=seed
    )
    if found is None:
        raise FailedError(f"the model says nothing to any of {len(rows)} questions")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints; returns the exit status."""
    parser = argparse.ArgumentParser(prog="tools.tiny_blip2.pointing", description=__doc__)
    parser.add_argument("model", help="run folder, model folder or hub id")
    parser.add_argument("questions", type=int, metavar="N", help="on N questions")
    parser.add_argument("--seed", type=int, default=0, help="of the intervals")
    parser.add_argument("--json", type=given_path, metavar="F", help="write what was measured to F")
    given = parser.parse_args(arguments)

    def run() -> None:
        found = measure(given.model, questions=given.questions, seed=given.seed)
        print(found.screen())
        if given.json is not None:
            write_json(given.json, {**dataclasses.asdict(found), "verdict": found.verdict})

    return exit_status(run)


if __name__ == "__main__":
    sys.exit(main())
