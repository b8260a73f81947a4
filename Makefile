# `make tune` runs the main job on a fresh machine; `make test` passes the tests; `make lint` is the rest of CI; `make atlas` runs every paper.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --constraint constraints.txt

.PHONY: tune explain test atlas lint bench clean

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.user: $(BIN)/python pyproject.toml constraints.txt
	@echo "installing sfumato and what it needs into $(VENV) (torch is large: a few minutes once)"
	$(PIP) --editable '.[data,diffusers]'
	@touch $@

$(VENV)/.test: $(VENV)/.user
	$(PIP) --editable '.[test]'
	@touch $@

$(VENV)/.lint: $(VENV)/.test
	$(PIP) --editable '.[lint]'
	@touch $@

tune: $(VENV)/.user
	$(BIN)/sfumato tune

explain: $(VENV)/.user
	$(BIN)/sfumato explain

atlas: $(VENV)/.test
	$(BIN)/sfumato atlas run --all

test: $(VENV)/.test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.test
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV)
