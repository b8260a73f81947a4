# `make tune` runs the main job on a fresh machine; `make test` passes the tests; `make lint` is the rest of CI; `make atlas` runs every paper.
# `make docs` builds docs/_build/html/index.html, `make docs-check` opens every page of it in a Chromium, which has to be there.
# `make test TESTS=tests/noise` tests a room; `make test-oldest` and `make test-newest` test with other versions of torch and the rest.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --constraint constraints.txt
OLDEST := $(VENV)-oldest
NEWEST := $(VENV)-newest
TESTS  ?=
PYTEST := -m pytest -n 2 --dist loadfile $(TESTS)

# `make install` makes the environment and nothing else.
.PHONY: install tune explain test test-oldest test-newest coverage atlas docs docs-check lint bench faults release clean

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

install: $(VENV)/.user

tune: $(VENV)/.user
	$(BIN)/sfumato tune

explain: $(VENV)/.user
	$(BIN)/sfumato explain

atlas: $(VENV)/.test
	$(BIN)/sfumato atlas run --all

test: $(VENV)/.test
	OMP_NUM_THREADS=1 $(BIN)/python $(PYTEST)

$(OLDEST)/.test: pyproject.toml constraints-oldest.txt
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet --constraint constraints-oldest.txt --editable '.[test]'
	@touch $@

test-oldest: $(OLDEST)/.test
	OMP_NUM_THREADS=1 $(OLDEST)/bin/python $(PYTEST)

$(NEWEST)/.test: pyproject.toml
	$(PYTHON) -m venv $(NEWEST)
	$(NEWEST)/bin/python -m pip install --quiet --upgrade --editable '.[test]'
	@touch $@

test-newest: $(NEWEST)/.test
	OMP_NUM_THREADS=1 $(NEWEST)/bin/python $(PYTEST)

$(VENV)/.coverage: $(VENV)/.test
	$(PIP) --editable '.[coverage]'
	@touch $@

coverage: $(VENV)/.coverage
	OMP_NUM_THREADS=1 $(BIN)/python $(PYTEST) --cov=sfumato --cov-branch --cov-report=json:$(VENV)/coverage.json
	$(BIN)/python scripts/coverage_rooms.py $(VENV)/coverage.json

lint: $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.test
	$(BIN)/python -m benchmarks

faults: $(VENV)/.test
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks faults

$(VENV)/.release: $(VENV)/.lint
	$(PIP) --editable '.[release]'
	@touch $@

$(VENV)/.docs: $(VENV)/.test
	$(PIP) --editable '.[docs]'
	@touch $@

docs: $(VENV)/.docs
	OMP_NUM_THREADS=1 $(BIN)/python -m sphinx -j 2 -W --keep-going -b html -d docs/_build/doctrees docs docs/_build/html

docs-check: docs
	SFUMATO_DOCS_CHECK=1 SFUMATO_SITE=docs/_build/html $(BIN)/python -m pytest -n 2 tests/docs/test_site.py

release: $(VENV)/.release
	$(BIN)/python scripts/release.py $(if $(TAG),--tag)

clean:
	rm -rf $(VENV) $(OLDEST) $(NEWEST) dist
