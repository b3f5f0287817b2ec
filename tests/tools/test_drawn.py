"""Drawn scenes: deterministic, described truthfully, labelled by place."""

import random
from collections import Counter

import numpy as np
import pytest

from tools.tiny_blip2.drawn import (
    Scene,
    Thing,
    captions,
    draw,
    questions,
    sample_scene,
    targets,
    vocabulary_texts,
)
from tools.tiny_blip2.drawn.glyphs import DIGITS, LETTERS, SHAPES, glyph_mask
from tools.tiny_blip2.drawn.scenes import COLOURS, IGNORED, NAMES, PLACES
from tools.tiny_blip2.drawn.strokes import MASK_SIZE_PX, PEN_STROKES, handwritten_mask
from tools.tiny_blip2.drawn.texts import NUMBER_WORDS

SCENES = tuple(sample_scene(11, index) for index in range(400))
ONE_SEVEN = Scene(
    (Thing("7", "white", "large", "centre"),), "black", handwritten=True, coarse_px=8, style_seed=5
)
TWO_THINGS = Scene(
    (
        Thing("circle", "red", "small", "top left"),
        Thing("K", "orange", "large", "bottom right"),
    ),
    "white",
    handwritten=False,
    coarse_px=None,
    style_seed=6,
)


def test_equal_seed_and_index_give_the_equal_scene() -> None:
    assert sample_scene(3, 4) == sample_scene(3, 4)


def test_another_seed_gives_other_scenes() -> None:
    assert [sample_scene(3, i) for i in range(5)] != [sample_scene(4, i) for i in range(5)]


def test_drawing_twice_gives_equal_pixels() -> None:
    for scene in SCENES[:30]:
        assert np.array_equal(np.asarray(draw(scene, 48)), np.asarray(draw(scene, 48)))


@pytest.mark.parametrize("size_px", [16, 48, 65])
def test_an_image_has_the_asked_size(size_px: int) -> None:
    for scene in SCENES[:30]:
        image = draw(scene, size_px)
        assert (image.mode, image.size) == ("RGB", (size_px, size_px))


def test_an_image_too_small_for_quarters_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 16"):
        draw(ONE_SEVEN, 15)


def test_a_thing_stands_in_its_own_quarter() -> None:
    pixels = np.asarray(draw(TWO_THINGS, 48)).astype(int)
    saturation = pixels.max(axis=2) - pixels.min(axis=2)
    coloured = [
        int((saturation[rows, columns] > 100).sum())
        for rows in (slice(0, 24), slice(24, 48))
        for columns in (slice(0, 24), slice(24, 48))
    ]
    assert coloured[0] > 30 and coloured[3] > 30
    assert coloured[1] == coloured[2] == 0


def test_every_name_place_colour_and_layout_is_sampled() -> None:
    scenes = [sample_scene(0, index) for index in range(1500)]
    things = [thing for scene in scenes for thing in scene.things]
    assert {thing.name for thing in things} == set(NAMES)
    assert {thing.place for thing in things} == set(PLACES)
    assert {thing.colour for thing in things} == set(COLOURS) - {"gray"}
    assert {scene.single for scene in scenes} == {True, False}


def test_no_thing_has_the_colour_of_the_background() -> None:
    assert all(thing.colour != scene.background for scene in SCENES for thing in scene.things)


def test_targets_of_one_thing_count_at_the_centre_alone() -> None:
    values = targets(ONE_SEVEN)
    assert values["name"].tolist() == [IGNORED] * 4 + [1 + NAMES.index("7")]
    assert values["colour"].tolist() == [IGNORED] * 4 + [1 + list(COLOURS).index("white")]
    assert values["size"].tolist() == [IGNORED] * 5


def test_targets_of_quarters_mark_empty_places_with_zero() -> None:
    values = targets(TWO_THINGS)
    expected = [1 + NAMES.index("circle"), 0, 0, 1 + NAMES.index("K"), IGNORED]
    assert values["name"].tolist() == expected
    assert values["size"].tolist() == [1, 0, 0, 2, IGNORED]
    assert {value.dtype for value in values.values()} == {np.dtype(np.int64)}


def test_captions_name_every_thing() -> None:
    for scene in SCENES:
        for thing in scene.things:
            word = NUMBER_WORDS[int(thing.name)] if thing.kind == "digit" else thing.name
            assert all(word in caption.split() for caption in captions(scene))


def test_captions_of_two_things_say_where_they_are() -> None:
    assert captions(TWO_THINGS) == (
        "a red circle at the top left and an orange letter K at the bottom right",
        "a red circle and an orange letter K",
    )


def test_the_first_question_of_a_single_thing_asks_what_it_is() -> None:
    assert questions(ONE_SEVEN)[0][1] == "seven"


def test_answers_have_one_to_three_words() -> None:
    for scene in SCENES:
        for question, answer in questions(scene):
            assert question[-1] in "?." and 1 <= len(answer.split()) <= 3


def test_yes_and_no_are_balanced() -> None:
    answers = Counter(
        answer for index in range(3000) for _, answer in questions(sample_scene(1, index))
    )
    # About 4,700 answers: five standard deviations of a fair coin are 3.6 points.
    assert abs(answers["yes"] / (answers["yes"] + answers["no"]) - 0.5) < 0.036


def test_a_bound_on_a_digit_is_truthful() -> None:
    for index in range(300):
        scene = sample_scene(2, index)
        asked = dict(questions(scene))
        for question, answer in asked.items():
            if question.startswith("Is the number above"):
                bound = NUMBER_WORDS.index(question.removesuffix("?").split()[-1])
                assert answer == ("yes" if int(scene.things[0].name) > bound else "no")


def test_every_character_has_pen_strokes() -> None:
    assert set(PEN_STROKES) == set(DIGITS) | set(LETTERS)
    for character in PEN_STROKES:
        mask = handwritten_mask(character, random.Random(0))
        assert mask.size == (MASK_SIZE_PX, MASK_SIZE_PX) and mask.getbbox() is not None


@pytest.mark.parametrize("coarse_px", [None, 8])
def test_a_glyph_mask_is_neither_empty_nor_full(coarse_px: int | None) -> None:
    for name in (*DIGITS, *LETTERS, *SHAPES):
        mask = np.asarray(glyph_mask(name, (30, 40), random.Random(1), coarse_px=coarse_px))
        assert mask.shape == (40, 30)
        assert 0.05 < (mask > 127).mean() < 0.99


def test_an_unknown_glyph_is_refused() -> None:
    with pytest.raises(KeyError):
        glyph_mask("O", (30, 40), random.Random(1))


def test_vocabulary_texts_are_the_same_each_time() -> None:
    assert vocabulary_texts() == vocabulary_texts()
