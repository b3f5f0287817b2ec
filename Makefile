# `make quickstart`: fine-tune, evaluate and merge a small model on real images, in minutes.
# `make test`: the whole suite. `make test-fast`: the tests of a minute, for the inner loop. All set up
# .venv first.
# `make lint`: style and types. `make docs`: the site, in build/docs. `make wheel`: builds the wheel and
# runs it outside the checkout. `make ci`: all of that but the site.
# `make real`: builds a Q-Former model from pretrained parts (a download of 270 MB) and trains it on
# VQA-RAD in VQA_RAD, hours on a CPU; see docs/real_parts.md.
# `make test-newest`: the whole suite with the newest release of every dependency, in .venv-newest.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

NEWEST := .venv-newest/bin/python
NEWEST_TORCH ?= torch==2.13.0

.PHONY: setup test test-fast test-newest quickstart real lint docs wheel ci clean

setup: $(READY)

# torch comes first and pinned, so that an index that offers a CPU build of it is asked for that one.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,quickstart]'
	@touch $(READY)

# One process per core with one thread each. Files in the order of their names: by their number of
# tests, as xdist orders them, the few long ones would come last.
XDIST := -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder
TESTS := OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(XDIST)

test: $(READY)
	$(TESTS)

# Leaves out the tests that start programs or train: those of tests/programs.txt.
test-fast: $(READY)
	$(TESTS) -m 'not programs and not slow and not fullsize'

# Without constraints.txt and without the upper bounds of pyproject.toml: it shows what they can be
# raised to. Every wheel of torch is large, so a newer one is asked for by name:
# make test-newest NEWEST_TORCH=torch
test-newest:
	test -x $(NEWEST) || $(PYTHON) -m venv .venv-newest
	$(NEWEST) -m pip install --quiet '$(NEWEST_TORCH)'
	$(NEWEST) tests/newest_requirements.py '$(NEWEST_TORCH)' > .venv-newest/requirements.txt
	$(NEWEST) -m pip install --quiet --upgrade --upgrade-strategy eager -r .venv-newest/requirements.txt
	$(NEWEST) -m pip install --quiet --no-deps --editable .
	$(NEWEST) -m pip list
	OMP_NUM_THREADS=1 $(NEWEST) -m pytest $(XDIST)

quickstart: $(READY)
	@PATH="$(CURDIR)/$(BIN):$$PATH" sh docs/quickstart.sh

VQA_RAD ?= data/vqa_rad
REAL := runs/real_parts
real: $(READY)
	$(BIN)/python -m pip install --quiet onnx==1.23.2 gguf==0.19.0
	test -d $(REAL)/model || $(BIN)/python -m tools.real_parts $(REAL)
	$(BIN)/python -m tools.real_parts.study $(REAL) $(VQA_RAD)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

DOCS := .venv-docs
$(DOCS)/.ready: pyproject.toml
	$(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/python -m pip install --quiet 'mkdocs-material>=9.7,<10' 'mkdocstrings[python]>=1,<2' 'mkdocs-jupyter>=0.25,<0.27'
	@touch $@

# Docstrings are read, not imported, so that the site needs no torch.
docs: $(DOCS)/.ready
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --quiet --strict --site-dir build/docs

# Installed alone: what answers without torch answers without any dependency.
wheel:
	rm -rf build/wheel
	$(PYTHON) -m pip wheel --quiet --no-deps --wheel-dir build/wheel .
	$(PYTHON) -m venv build/wheel/venv
	build/wheel/venv/bin/python -m pip install --quiet --no-deps build/wheel/qvft-*.whl
	cd build/wheel && venv/bin/qvft --help

# The fast tests first.
ci: lint test-fast wheel
	$(TESTS) -m 'programs and not slow and not fullsize'

clean:
	rm -rf $(VENV) .venv-newest $(DOCS) build runs/quickstart_digits merged/quickstart_digits data/digits
