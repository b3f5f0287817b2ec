"""The preview page: what it holds, and that a browser shows it without a complaint."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from qvft.check import main
from qvft.checking.preview import PreviewRow, Token, write_preview

FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--enable-logging=stderr", "--v=0", "--virtual-time-budget=2000", "--dump-dom",
]  # fmt: skip
SECONDS = 60


def png() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (48, 48), (10, 200, 30)).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def page(tmp_path: Path) -> Path:
    tokens = (
        Token(2, "</s>", "start"),
        Token(41, "<script>alert(1)</script>", "prompt", cut=True),
        Token(42, "Q", "prompt"),
        Token(43, "·yes", "target"),
        Token(44, "·or", "target", cut=True),
        Token(45, "↵", "stop"),
    )
    rows = [
        PreviewRow("q<1>", "question", "longest", png(), (48, 48), 32, tokens),
        PreviewRow("q2", "question", "", None, (0, 0), 32, tokens[-1:]),
    ]
    path = tmp_path / "page.html"
    write_preview(path, rows, title="a split", lead="two rows")
    return path


def test_tokens_have_their_id_role_and_mark(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert '<span class="t target"><span>·yes</span><small>43</small></span>' in text
    assert '<span class="t target cut"><span>·or</span><small>44</small></span>' in text
    assert '<span class="t stop"><span>↵</span><small>45</small></span>' in text
    assert "&lt;image&gt; ×32" in text
    # 32 for the image and 4 that are kept; `·yes` and the line break are targets.
    assert "36 tokens, 2 of them targets, 2 cut" in text


def test_of_many_cut_tokens_forty_are_shown(tmp_path: Path) -> None:
    cut = tuple(Token(7, "x", "prompt", cut=True) for _ in range(1240))
    row = PreviewRow("a", "caption", "", None, (0, 0), 32, (*cut, Token(8, "y", "target")))
    write_preview(tmp_path / "page.html", [row], title="a split", lead="one row")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert text.count('class="t prompt cut"') == 40
    assert "... 1,200 more cut" in text
    assert "33 tokens, 1 of them targets, 1240 cut" in text


def test_everything_from_the_data_is_escaped(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "q&lt;1&gt;" in text


def test_the_page_needs_nothing_beside_it(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"(src|href)=\"(?!data:)", text)
    assert "url(" not in text and "@import" not in text


def test_a_browser_shows_it_without_a_complaint(page: Path, tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no browser: neither chromium nor google-chrome is installed")
    done = subprocess.run(
        [browser, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", page.as_uri()],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count('<article class="row">') == 2
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []


@pytest.fixture(scope="module")
def previewed(recipe_file: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("preview") / "deep" / "page.html"
    arguments = ["--only", "data", "--preview", str(path), "data.max_text_tokens=8"]
    assert main([str(recipe_file), *arguments]) == 0
    return path.read_text(encoding="utf-8")


def test_twenty_rows_of_a_recipe_are_shown_captions_and_questions_in_turn(previewed: str) -> None:
    kinds = re.findall(r"</b><span>(caption|question)</span>", previewed)
    assert len(kinds) == 20
    assert abs(kinds.count("caption") - kinds.count("question")) <= 2
    # The longest row is also the first of those that lose most, all questions being alike.
    assert previewed.count('class="tag"') in (1, 2)
    assert "longest" in previewed and "most tokens cut" in previewed


def test_the_image_is_what_the_preprocessing_left(previewed: str) -> None:
    from base64 import b64decode

    sources = re.findall(r'src="data:image/png;base64,([^"]+)"', previewed)
    assert len(sources) == 20
    image = Image.open(io.BytesIO(b64decode(sources[0])))
    # Images of one plain colour, so that resizing keeps it; rounding may move a level.
    low, high = zip(*image.getextrema(), strict=True)
    assert image.size == (48, 48)
    assert all(most - least <= 1 for least, most in zip(low, high, strict=True))
    assert max(high) - min(low) > 50


def test_cut_tokens_stand_where_they_were(recipe_file: Path, shapes: Path, tmp_path: Path) -> None:
    """Eight tokens are `</s>`, the stop and six more; half of the six are the prompt's at least."""
    words = "one two three four five six seven eight nine ten eleven twelve"
    row = {"id": "a", "image": str(shapes / "train0.png"), "captions": [words]}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    path = tmp_path / "page.html"
    overrides = [f"data.train.path={tmp_path / 'rows.jsonl'}", "data.max_text_tokens=8"]
    overrides.append("data.train.allow_paths_outside_root=true")
    assert main([str(recipe_file), "--only", "data", *overrides, "--preview", str(path)]) == 0
    article = path.read_text(encoding="utf-8").split("<article")[1]
    roles = re.findall(r'<span class="t (start|prompt|target|stop)( cut)?">', article)
    kept, cut = [role for role, mark in roles if not mark], [role for role, mark in roles if mark]
    assert kept == ["start", *["target"] * 6, "stop"]
    assert cut and set(cut) == {"target"}
    assert (
        roles[0] == ("start", "") and roles[-1] == ("stop", "") and roles[-2] == ("target", " cut")
    )


@pytest.mark.parametrize("part", ["recipe", "model"])
def test_a_preview_without_data_is_refused(recipe_file: Path, part: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([str(recipe_file), "--only", part, "--preview", "page.html"])
    assert stopped.value.code == 2
