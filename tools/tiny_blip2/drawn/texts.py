"""What is said of a drawn scene: captions, questions with answers, text for a tokenizer."""

import random
from collections.abc import Callable

from tools.tiny_blip2.drawn.glyphs import DIGITS, LETTERS, SHAPES
from tools.tiny_blip2.drawn.scenes import COLOURS, PLACES, Scene, Thing, sample_scene
from tools.tiny_blip2.drawn.words import GENERAL_WORDS

NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
QuestionAnswer = tuple[str, str]


def _called(thing: Thing) -> str:
    if thing.kind == "digit":
        return NUMBER_WORDS[int(thing.name)]
    return thing.name


def _noun(thing: Thing) -> str:
    return _called(thing) if thing.kind == "shape" else f"{thing.kind} {_called(thing)}"


def _yes(truth: bool) -> str:
    return "yes" if truth else "no"


def _phrase(thing: Thing) -> str:
    article = "an" if thing.colour == "orange" else "a"
    return f"{article} {thing.colour} {_noun(thing)}"


def captions(scene: Scene) -> tuple[str, ...]:
    """Return two captions of a scene, lower case but for letter names, without a full stop."""
    rng = random.Random(scene.style_seed + 1)
    if scene.single:
        thing = scene.things[0]
        plain = f"the {_noun(thing)}" if thing.kind != "shape" else f"a {_noun(thing)}"
        written = "a handwritten" if scene.handwritten else "a printed"
        forms = [
            f"{_phrase(thing)} on a {scene.background} background",
            f"a picture of {plain}",
            f"{plain} in {thing.colour} on {scene.background}",
        ]
        if thing.kind != "shape":
            forms.append(f"{written} {_noun(thing)}")
        first, second = rng.sample(forms, 2)
        return first, second
    at = [f"{_phrase(thing)} at the {thing.place}" for thing in scene.things]
    return " and ".join(at), " and ".join(_phrase(thing) for thing in scene.things)


def _other(rng: random.Random, names: tuple[str, ...], *, avoid: set[str]) -> str:
    return rng.choice([name for name in names if name not in avoid])


def _choice(right: str, wrong: str, rng: random.Random) -> QuestionAnswer:
    first, second = (right, wrong) if rng.random() < 0.5 else (wrong, right)
    return f"Is it {first} or {second}?", right


def _digit_questions(thing: Thing, rng: random.Random) -> list[QuestionAnswer]:
    value, word = int(thing.name), _called(thing)
    guess = value if rng.random() < 0.5 else int(_other(rng, DIGITS, avoid={thing.name}))
    # A bound with both answers equally likely, whatever the digit: pick the answer first.
    bigger = rng.random() < 0.5
    below, above = range(value), range(value, 9)
    bound = rng.choice(below if (bigger and value > 0) or value == 9 else above)
    parity = rng.random() < 0.5
    return [
        (rng.choice(("What digit is this?", "Which number is shown?", "Read the digit.")), word),
        (f"Is this the digit {NUMBER_WORDS[guess]}?", _yes(guess == value)),
        (f"Is the number above {NUMBER_WORDS[bound]}?", _yes(value > bound)),
        ("Is it an odd number?", "yes" if value % 2 else "no")
        if parity
        else ("Is the number even or odd?", "odd" if value % 2 else "even"),
    ]


def _letter_questions(thing: Thing, rng: random.Random) -> list[QuestionAnswer]:
    same = rng.random() < 0.5
    guess = thing.name if same else _other(rng, LETTERS, avoid={thing.name})
    return [
        (
            rng.choice(("What letter is this?", "Which letter is shown?", "Read the letter.")),
            thing.name,
        ),
        (f"Is this the letter {guess}?", _yes(same)),
        _choice(thing.name, _other(rng, LETTERS, avoid={thing.name}), rng),
    ]


def _shape_questions(thing: Thing, rng: random.Random) -> list[QuestionAnswer]:
    same = rng.random() < 0.5
    guess = thing.name if same else _other(rng, SHAPES, avoid={thing.name})
    return [
        (rng.choice(("What shape is this?", "Which shape is shown?")), thing.name),
        (f"Is this the shape {guess}?", _yes(same)),
        _choice(thing.name, _other(rng, SHAPES, avoid={thing.name}), rng),
    ]


_BY_KIND: dict[str, Callable[[Thing, random.Random], list[QuestionAnswer]]] = {
    "digit": _digit_questions,
    "letter": _letter_questions,
    "shape": _shape_questions,
}


def _single_questions(scene: Scene, rng: random.Random) -> list[QuestionAnswer]:
    thing = scene.things[0]
    asked = _BY_KIND[thing.kind](thing, rng)
    asked.append((f"What color is the {thing.kind}?", thing.colour))
    asked.append(("What color is the background?", scene.background))
    asked.append(("Is it a digit, a letter or a shape?", thing.kind))
    if thing.kind != "shape":
        asked.append(("Is it handwritten?", _yes(scene.handwritten)))
    return asked


def _grid_questions(scene: Scene, rng: random.Random) -> list[QuestionAnswer]:
    things = scene.things
    thing = rng.choice(things)
    taken = {other.place: other for other in things}
    place = rng.choice(PLACES[:4]) if rng.random() < 0.4 else thing.place
    there = taken.get(place)
    asked = [
        (f"What is at the {place}?", _noun(there) if there else "nothing"),
        (f"What color is the thing at the {thing.place}?", thing.colour),
        ("How many things are there?", NUMBER_WORDS[len(things)]),
        (f"Is the thing at the {thing.place} small or large?", thing.size),
    ]
    colours = [other.colour for other in things]
    names = [other.name for other in things]
    if colours.count(thing.colour) == 1:
        asked.append((f"What is {thing.colour}?", _noun(thing)))
    if names.count(thing.name) == 1:
        asked.append((f"What color is the {_noun(thing)}?", thing.colour))
        asked.append((f"Where is the {_noun(thing)}?", thing.place))
    seen = rng.random() < 0.5
    if thing.kind == "shape":
        guess = thing.name if seen else _other(rng, SHAPES, avoid=set(names))
        asked.append((f"Is there any {guess}?", _yes(seen)))
    absent = {*colours, scene.background, "gray"}
    colour = thing.colour if seen else _other(rng, tuple(COLOURS), avoid=absent)
    asked.append((f"Is anything {colour}?", _yes(seen)))
    return asked


def questions(scene: Scene) -> tuple[QuestionAnswer, ...]:
    """Return questions with short answers (one to three words), the most telling ones first.

    Yes and no are about equally frequent in every question that names a guess.
    """
    rng = random.Random(scene.style_seed + 2)
    ask = _single_questions if scene.single else _grid_questions
    return tuple(ask(scene, rng))


def vocabulary_texts() -> tuple[str, ...]:
    """Return the text that the tokenizer of the embedded model is trained on.

    Captions, questions and answers of 4,000 scenes, as they stand in a training row, and the
    general and medical words of `words.py`, each often enough that common ones become one token.
    """
    rows: list[str] = []
    for index in range(4000):
        scene = sample_scene(0, index)
        rows.extend(f" {caption}\n" for caption in captions(scene))
        rows.extend(
            f"Question: {question} Answer: {answer}\n" for question, answer in questions(scene)
        )
    for word in GENERAL_WORDS:
        rows.extend([f" {word}"] * 40)
    return tuple(rows)
