"""`qvft push` uploads what was proven and nothing else, to a private repository unless told."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import Hub, local_hub

from qvft.adapters.manifest import fingerprints
from qvft.files import sha256_file
from qvft.init import main as init
from qvft.push import main
from qvft.weights.merge import merge_run

REPO = "anna/scans"
# huggingface_hub 2.4 passes httpx2 the file of an LFS upload under the old name.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A local hub that the client of this process uses."""
    with local_hub() as hub:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.endpoint)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", hub.token)
        yield hub


@pytest.fixture(scope="module")
def run(make_run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the bundled model with a report and predictions."""
    folder = make_run(
        tmp_path_factory.mktemp("runs") / "scans",
        model={"id": "qvft/tiny-blip2"},
        data={"eval": {"format": "drawn", "path": "seed=2,count=1", "texts": "captions"}},
    )
    (folder / "eval" / "test").mkdir(parents=True)
    report = {
        "n": 2,
        "metrics": {"exact_match": 50.0},
        "model": {"adapter_sha256": fingerprints(folder / "adapter")},
    }
    (folder / "eval" / "test" / "report.json").write_text(json.dumps(report))
    row = {"image": "a.png", "question": "Who is it?", "prediction": "Mrs Smith"}
    (folder / "eval" / "test" / "predictions.jsonl").write_text(json.dumps(row) + "\n")
    return folder


@pytest.fixture(scope="module")
def written(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("merged") / "mine"
    merge_run(run, out)
    return out


@pytest.fixture
def own(written: Path, tmp_path: Path) -> Path:
    """A copy of the merged folder that a test may damage."""
    return Path(shutil.copytree(written, tmp_path / "mine"))


def refused(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 2) -> str:
    assert main(list(arguments)) == status
    message = capsys.readouterr().err
    assert message.count("qvft: ") == 1 and "Traceback" not in message
    return message


def test_a_merged_model_goes_to_a_private_repository_without_samples(
    written: Path, hub: Hub, capsys
) -> None:
    assert main([str(written), REPO]) == 0
    printed = capsys.readouterr().out
    assert f"next: hf download {REPO}" in printed and "model.safetensors" in printed
    assert hub.private == {REPO: True}
    stored = hub.files[REPO]
    assert set(stored) == {path.name for path in written.iterdir()}
    assert stored["model.safetensors"] == (written / "model.safetensors").read_bytes()
    card = stored["README.md"].decode()
    assert "Mrs Smith" in (written / "README.md").read_text()
    assert "Mrs Smith" not in card and "Who is it?" not in card
    assert f'model_id = "{REPO}"' in card and "exact_match" in card


def test_samples_and_reports_go_only_when_told(run: Path, hub: Hub) -> None:
    adapter = {"adapter_config.json", "adapter_model.safetensors", "bridge.safetensors"}
    assert main([str(run / "adapter"), REPO, "--public"]) == 0
    assert hub.private == {REPO: False}
    assert set(hub.files[REPO]) == adapter | {"manifest.json", "README.md"}
    assert b"Mrs Smith" not in b"".join(hub.files[REPO].values())
    assert main([str(run), "anna/told", "--with-samples"]) == 0
    more = set(hub.files["anna/told"]) - set(hub.files[REPO])
    assert more == {"eval/test/report.json", "eval/test/predictions.jsonl"}
    assert b"Mrs Smith" in hub.files["anna/told"]["README.md"]


def test_no_folder_of_this_machine_and_no_row_is_told(
    merged: Path, tiny_folder: Path, tmp_path: Path, hub: Hub
) -> None:
    own = Path(shutil.copytree(merged, tmp_path / "mine"))
    record = json.loads((own / "merge.json").read_text())
    assert record["base"]["id"] == str(tiny_folder)
    record["verification"]["behaviour"]["near_ties"] = [{"row": "smith.png#1", "token": 2}]
    (own / "merge.json").write_text(json.dumps(record))
    assert main([str(own), REPO]) == 0
    texts = [content for name, content in hub.files[REPO].items() if ".safetensors" not in name]
    assert not [text for text in texts if b"smith" in text or str(tiny_folder).encode() in text]


def test_a_dry_run_lists_and_asks_nobody(written: Path, hub: Hub, capsys) -> None:
    assert main([str(written), REPO, "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert all(path.name in printed for path in written.iterdir())
    assert "private" in printed and "nothing was uploaded" in printed
    assert hub.requests == []


def test_reports_of_a_merged_folder_stay_here(own: Path, hub: Hub, capsys) -> None:
    report = own / "eval" / "scans" / "predictions.jsonl"
    report.parent.mkdir(parents=True)
    report.write_text("{}")
    assert main([str(own), "anna/scans", "--dry-run"]) == 0
    assert "predictions.jsonl" not in capsys.readouterr().out


def test_what_is_not_what_was_proven_is_refused(own: Path, hub: Hub, capsys) -> None:
    (own / ".env").write_text("HF_TOKEN=x\n")
    assert ".env" in refused(capsys, str(own), REPO)
    (own / ".env").unlink()
    weights = own / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert "model.safetensors" in refused(capsys, str(own), REPO)
    weights.unlink()
    assert "model.safetensors" in refused(capsys, str(own), REPO)
    (own / "merge.json").unlink()
    assert "merge.json" in refused(capsys, str(own), REPO)
    assert hub.requests == []


def test_an_edited_card_goes_but_not_with_a_secret_or_invalid_metadata(
    own: Path, hub: Hub, capsys
) -> None:
    card = own / "README.md"
    text = card.read_text()
    card.write_text(text.replace("license: apache-2.0", "license: mit"))
    assert main([str(own), REPO]) == 0
    assert b"license: mit" in hub.files[REPO]["README.md"]
    capsys.readouterr()
    card.write_text(text.replace("license: apache-2.0", "license: my-own"))
    assert "license" in refused(capsys, str(own), REPO)
    card.write_text(text + "\nhf_" + "a" * 30 + "\n")
    assert "a Hugging Face token" in refused(capsys, str(own), REPO)


def test_a_public_repository_gets_nothing_private(own: Path, hub: Hub, capsys) -> None:
    hub.private[REPO] = False
    assert "--public" in refused(capsys, str(own), REPO)
    assert hub.files == {}
    assert main([str(own), REPO, "--public"]) == 0


def test_refusals_of_the_hub_and_its_absence_are_one_message(
    own: Path, hub: Hub, capsys, monkeypatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    assert "hf auth login" in refused(capsys, str(own), REPO)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert "cannot be reached" in refused(capsys, str(own), REPO, status=1)
    assert "OWNER/NAME" in refused(capsys, str(own), "scans")


def test_an_adapter_that_others_cannot_use_or_that_changed_is_refused(
    run: Path, drawn_run: Path, tmp_path: Path, hub: Hub, capsys
) -> None:
    assert "qvft merge" in refused(capsys, str(drawn_run), REPO)  # its base is a folder here
    changed = Path(shutil.copytree(run, tmp_path / "run"))
    bridge = changed / "adapter" / "bridge.safetensors"
    before = sha256_file(bridge)
    bridge.write_bytes(bridge.read_bytes()[:-1] + b"\x7f")
    assert sha256_file(bridge) != before
    assert "bridge.safetensors" in refused(capsys, str(changed), REPO)
    assert hub.requests == []


@pytest.fixture(scope="module")
def scans(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder of `qvft init` with its images in it."""
    out = tmp_path_factory.mktemp("data") / "scans_qvft"
    assert init([str(shapes / "train.jsonl"), "--out", str(out), "--copy-images"]) == 0
    return out


def test_of_a_data_folder_the_card_goes_without_a_text(scans: Path, hub: Hub, capsys) -> None:
    capsys.readouterr()
    assert main([str(scans), REPO, "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "README.md" in printed and "private dataset" in printed and "data.license" in printed
    assert hub.requests == []
    assert main([str(scans), REPO]) == 0
    assert "--repo-type dataset" in capsys.readouterr().out
    assert hub.private == {REPO: True} and f"POST /api/datasets/{REPO}" in " ".join(hub.requests)
    assert set(hub.files[REPO]) == {"README.md"}
    card = hub.files[REPO]["README.md"].decode()
    lines = (scans / "train.jsonl").read_text().splitlines()
    assert f"| train | {len(lines)} | {len(lines)} | {2 * len(lines)} |" in card
    assert "license: unknown" in card and "Which colour" not in card


def test_texts_and_images_go_when_told_with_the_licence_of_the_recipe(
    scans: Path, hub: Hub, tmp_path: Path, capsys
) -> None:
    own = Path(shutil.copytree(scans, tmp_path / "own"))
    recipe = own / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("data:\n", "data:\n  license: cc-by-4.0\n", 1))
    assert main([str(own), REPO, "--with-samples"]) == 0
    stored = hub.files[REPO]
    assert b"license: cc-by-4.0" in stored["README.md"]
    assert stored["train.jsonl"] == (own / "train.jsonl").read_bytes()
    image = json.loads(stored["test.jsonl"].splitlines()[0])["image"]
    assert stored[image] == (own / image).read_bytes()
    (tmp_path / "outside.png").write_bytes((own / image).read_bytes())
    row = {"image": str(tmp_path / "outside.png"), "captions": ["a"]}
    (own / "test.jsonl").write_text(json.dumps(row) + "\n")
    assert "--copy-images" in refused(capsys, str(own), "anna/other", "--with-samples")
