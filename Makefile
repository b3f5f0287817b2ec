# `make quickstart`: fine-tune, evaluate and merge a small model on real images, in minutes.
# `make test`: the whole suite. Both set up .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: setup test quickstart lint clean

setup: $(READY)

# torch comes first and pinned, so that an index that offers a CPU build of it is asked for that one.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,quickstart]'
	@touch $(READY)

# A process a core, of one thread each: they would be in each other's way with more.
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

quickstart: $(READY)
	@PATH="$(CURDIR)/$(BIN):$$PATH" sh docs/quickstart.sh

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) runs/quickstart_digits merged/quickstart_digits data/digits
