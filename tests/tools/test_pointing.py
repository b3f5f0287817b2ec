"""Whether maps point at the thing asked about: regions, patches, shares."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qvft.data.rows import evaluation_rows
from qvft.evaluation.explanation.maps import explain_texts
from qvft.setup.model import Loaded
from qvft.setup.resolve_model import load_resolved, resolve_model
from tools.tiny_blip2.drawn import Scene, Thing, draw, questions, sample_scene
from tools.tiny_blip2.pointing import (
    Pointing,
    asked_rows,
    main,
    patches_of,
    pointing,
    points_at,
    thing_asked_about,
    thing_region,
)
from tools.tiny_blip2.scene_format import read


@pytest.fixture(scope="module")
def loaded(tiny_folder: Path) -> Loaded:
    return load_resolved(resolve_model(str(tiny_folder)))


THINGS = (
    Thing("circle", "pink", "large", "top left"),
    Thing("7", "purple", "small", "bottom right"),
    Thing("B", "pink", "small", "bottom left"),
)
SCENE = Scene(THINGS, "black", False, None, 11)


@pytest.mark.parametrize(
    ("question", "place"),
    [
        ("What is at the top left?", "top left"),
        ("Is the thing at the bottom left small or large?", "bottom left"),
        ("What is purple?", "bottom right"),
        ("Where is the digit seven?", "bottom right"),
        ("What color is the circle?", "top left"),
        ("Where is the letter B?", "bottom left"),
        ("What is pink?", None),
        ("What is at the top right?", None),
        ("How many things are there?", None),
    ],
)
def test_the_thing_asked_about_is_found(question: str, place: str | None) -> None:
    found = thing_asked_about(SCENE, question)
    assert (found.place if found else None) == place


def test_most_questions_that_drawn_scenes_ask_about_one_thing_are_understood() -> None:
    """Every question with `the`, but those about an empty place, is resolved in 200 scenes."""
    scenes = [sample_scene(9, index) for index in range(200)]
    for scene in (scene for scene in scenes if len(scene.things) > 1):
        for question, answer in questions(scene):
            if " the " in question and answer != "nothing":
                assert thing_asked_about(scene, question) is not None, question


def test_a_things_region_lies_in_its_quarter_and_moves_nothing_else() -> None:
    clean = next(
        scene
        for scene in (sample_scene(4, index) for index in range(100))
        if len(scene.things) > 2 and len(np.unique(np.asarray(draw(scene, 64)))) < 400
    )
    for thing in clean.things:
        region = thing_region(clean, thing, 64)
        top, left = ("bottom" in thing.place) * 32, ("right" in thing.place) * 32
        inside = region[top : top + 32, left : left + 32].sum()
        # A blurred edge may reach two pixels over a border.
        assert inside > 20 and region.sum() - inside <= 2 * 64


def test_patches_hold_a_pixel_of_the_region() -> None:
    region = np.zeros((64, 64), dtype=bool)
    region[15:17, 40] = True
    expected = np.zeros((4, 4), dtype=bool)
    expected[:2, 2] = True
    assert (patches_of(region, (4, 4)) == expected).all()
    assert patches_of(region, (2, 4)).tolist() == [[False, False, True, False], [False] * 4]
    map_ = np.zeros((4, 4))
    map_[1, 2] = 1
    assert points_at(map_, expected) and not points_at(map_.T, expected)


def test_pointing_counts_hits_against_chance(
    loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A map that is bright at the first patch alone hits exactly the things that lie there."""
    samples = read("seed=2,count=40,size=64")
    asked = asked_rows(evaluation_rows(samples, texts="questions"), 30)
    explain = explain_texts
    corner = np.zeros((4, 4))
    corner[0, 0] = 1

    def bright(*given: Any) -> list:
        return [replace(found, map=corner) for found in explain(*given)]

    monkeypatch.setattr("tools.tiny_blip2.pointing.explain_texts", bright)
    texts = [row.target for row in asked[:10]] + ["x"] * 20
    found = pointing(loaded.model, loaded.collator, asked, texts, batch_size=7)
    hits, shares = [], []
    for row in asked:
        scene = sample_scene(2, row.sample.meta["index"])
        thing = thing_asked_about(scene, row.question)
        region = thing_region(scene, thing, 64).reshape(4, 16, 4, 16).any(axis=(1, 3))
        hits.append(region[0, 0])
        shares.append(region.sum() / 16)
    assert (found.n, found.right) == (30, 10)
    assert found.on_thing == pytest.approx(np.mean(hits))
    assert found.chance == pytest.approx(np.mean(shares))
    assert found.on_any >= found.on_thing and found.chance_among_things > found.chance


@pytest.mark.parametrize(
    ("above", "above_things", "said"),
    [
        ((0.1, 0.2), (0.01, 0.1), "they tell it apart"),
        ((0.1, 0.2), (-0.01, 0.1), "they find things, not the one asked about"),
        ((-0.1, 0.2), (-0.2, 0.1), "no more often than a random patch would"),
        ((-0.2, -0.1), (-0.2, -0.1), "less often than a random patch would"),
        (None, None, "Too few scenes"),
    ],
)
def test_what_the_two_chances_say_is_said(above: Any, above_things: Any, said: str) -> None:
    found = Pointing(0.5, None, 0.3, 0.2, above, 0.9, 0.5, 0.4, 0.1, above_things, 3, 0.5, 9, 4, 0)
    assert said in found.verdict and found.verdict in found.screen()


def test_pointing_is_measured_and_written(drawn_run: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "found.json"
    assert main([str(drawn_run), "12", "--json", str(out)]) == 0
    found = json.loads(out.read_text())
    assert found["n"] == 12 and 0 < found["chance"] < found["chance_any"] < 1
    assert found["verdict"] in capsys.readouterr().out
