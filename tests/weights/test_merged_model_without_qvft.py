"""What is written needs no qvft: loaded in an interpreter that cannot import it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoProcessor, Blip2ForConditionalGeneration

from qvft.adapters.lora import load_lora
from qvft.recipe.recipe_lock import read_lock
from qvft.setup.model import trained_model
from qvft.weights.probe_outputs import make_probes, plain_outputs, toolkit_outputs
from qvft.weights.run_probes import require_rows

WITHOUT_QVFT = """
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
from peft import PeftModel
from PIL import Image
from transformers import AutoProcessor, Blip2ForConditionalGeneration
torch.set_num_threads(1)
folder, base, adapter, asked, out = sys.argv[1:]
asked = json.loads(asked)

processor = AutoProcessor.from_pretrained(folder)
model = Blip2ForConditionalGeneration.from_pretrained(folder)
texts = []
for image, prompt in asked:
    inputs = processor(Image.open(image), prompt, return_tensors="pt")
    written = model.generate(**inputs, max_new_tokens=10)[:, inputs["input_ids"].shape[1] :]
    texts.append(processor.batch_decode(written, skip_special_tokens=True)[0].strip())
print(json.dumps(texts))

processor = AutoProcessor.from_pretrained(base)
model = Blip2ForConditionalGeneration.from_pretrained(base)
model = PeftModel.from_pretrained(model, adapter).eval()
image, prompt = asked[0]
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


@pytest.fixture(scope="module")
def elsewhere(
    merged: Path, tiny_folder: Path, drawn_run: Path, asked, tmp_path_factory
) -> tuple[list[str], torch.Tensor]:
    """From an interpreter without qvft: texts of the merged folder, logits of the adapter folder
    on its base."""
    _, probes, files = asked
    place = tmp_path_factory.mktemp("elsewhere")
    prompts = [[file, probe.prompt] for file, probe in zip(files, probes, strict=True)]
    folders = [str(merged), str(tiny_folder), str(drawn_run / "adapter")]
    arguments = [*folders, json.dumps(prompts), str(place / "logits.pt")]
    done = subprocess.run(
        [sys.executable, "-I", "-W", "ignore", "-c", WITHOUT_QVFT, *arguments],
        cwd=place,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), torch.load(place / "logits.pt", weights_only=True)


def test_the_merged_folder_gives_the_same_greedy_text(asked, elsewhere) -> None:
    loaded, probes, _ = asked
    expected = [said.text for said in toolkit_outputs(loaded.model, loaded.template, probes)]
    assert elsewhere[0] == expected
    assert any(expected)


def test_the_adapter_folder_gives_plain_peft_the_same_logits(
    tiny_folder: Path, drawn_run: Path, asked, elsewhere
) -> None:
    loaded, probes, _ = asked
    model = Blip2ForConditionalGeneration.from_pretrained(tiny_folder)
    handle = load_lora(model, drawn_run / "adapter").eval()
    processor = AutoProcessor.from_pretrained(tiny_folder)
    (here,) = plain_outputs(handle, processor, loaded.template, probes[:1])
    theirs = elsewhere[1][0]
    # The same operations; rows of another length may be summed in another order (float32, spread
    # of the logits below 1).
    torch.testing.assert_close(here.logits[: len(theirs)], theirs, atol=1e-5, rtol=0)
    bridge = load_file(drawn_run / "adapter" / "bridge.safetensors")
    assert "query_tokens" in bridge
