"""What is written needs no qvft: loaded in an interpreter that cannot import it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from qvft.adapters.lora import load_lora
from qvft.recipe.recipe_lock import read_lock
from qvft.setup.model import trained_model
from qvft.weights.probe_outputs import make_probes, plain_outputs, toolkit_outputs
from qvft.weights.run_probes import require_rows

BLOCKED = """
import sys

class NoQvft:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "qvft":
            raise ModuleNotFoundError("blocked: " + name)

sys.meta_path.insert(0, NoQvft())
try:
    import qvft
except ModuleNotFoundError:
    pass
else:
    raise SystemExit("qvft is importable")
import json
import torch
from PIL import Image
from transformers import AutoProcessor, Blip2ForConditionalGeneration
torch.set_num_threads(1)
"""

MERGED = """
folder, asked = sys.argv[1], json.loads(sys.argv[2])
processor = AutoProcessor.from_pretrained(folder)
model = Blip2ForConditionalGeneration.from_pretrained(folder)
texts = []
for image, prompt in asked:
    inputs = processor(Image.open(image), prompt, return_tensors="pt")
    written = model.generate(**inputs, max_new_tokens=10)[:, inputs["input_ids"].shape[1] :]
    texts.append(processor.batch_decode(written, skip_special_tokens=True)[0].strip())
print(json.dumps(texts))
"""

ADAPTER = """
from peft import PeftModel
base, adapter, image, prompt, out = sys.argv[1:]
processor = AutoProcessor.from_pretrained(base)
model = Blip2ForConditionalGeneration.from_pretrained(base)
model = PeftModel.from_pretrained(model, adapter).eval()
inputs = processor(Image.open(image), prompt, return_tensors="pt")
with torch.no_grad():
    torch.save(model(**inputs).logits, out)
"""


@pytest.fixture(scope="module")
def asked(drawn_run: Path, tmp_path_factory: pytest.TempPathFactory):
    """The unmerged model, probes, and each probe's image in a file."""
    recipe = read_lock(drawn_run)
    loaded = trained_model(drawn_run, recipe)
    probes = make_probes(loaded.collator, require_rows(recipe, loaded.base)[:4])
    folder = tmp_path_factory.mktemp("images")
    files = []
    for number, probe in enumerate(probes):
        probe.image.save(folder / f"{number}.png")
        files.append(str(folder / f"{number}.png"))
    return loaded, probes, files


def run_blocked(script: str, *arguments: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-I", "-W", "ignore", "-c", BLOCKED + script, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_merged_folder_gives_the_same_greedy_text(merged: Path, asked, tmp_path: Path) -> None:
    loaded, probes, files = asked
    prompts = [[file, probe.prompt] for file, probe in zip(files, probes, strict=True)]
    printed = run_blocked(MERGED, str(merged), json.dumps(prompts), folder=tmp_path)
    expected = [said.text for said in toolkit_outputs(loaded.model, loaded.template, probes)]
    assert json.loads(printed) == expected
    assert any(expected)


def test_the_adapter_folder_gives_plain_peft_the_same_logits(
    tiny_folder: Path, drawn_run: Path, asked, tmp_path: Path
) -> None:
    import torch
    from transformers import AutoProcessor, Blip2ForConditionalGeneration

    loaded, probes, files = asked
    out = tmp_path / "logits.pt"
    folders = (str(tiny_folder), str(drawn_run / "adapter"))
    run_blocked(ADAPTER, *folders, files[0], probes[0].prompt, str(out), folder=tmp_path)
    model = Blip2ForConditionalGeneration.from_pretrained(tiny_folder)
    handle = load_lora(model, drawn_run / "adapter").eval()
    processor = AutoProcessor.from_pretrained(tiny_folder)
    (here,) = plain_outputs(handle, processor, loaded.template, probes[:1])
    theirs = torch.load(out, weights_only=True)[0]
    # The same operations; rows of another length may be summed in another order (float32, spread
    # of the logits below 1).
    torch.testing.assert_close(here.logits[: len(theirs)], theirs, atol=1e-5, rtol=0)
    bridge = load_file(drawn_run / "adapter" / "bridge.safetensors")
    assert "query_tokens" in bridge
