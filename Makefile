# valska: every target does its own set-up.
SHELL := /bin/bash
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest
STAMP := $(VENV)/.installed
CRATE := .venv-crate
CRATE_STAMP := $(CRATE)/.installed

.PHONY: help install demo test test-unit lint type images images-check docs bench clean

help: ## Say what can be made
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP) ## Virtual environment in .venv with valska (editable) and everything to develop it

$(STAMP): pyproject.toml tests/cluster/python.sh
	@tests/cluster/python.sh $(VENV)
	@echo "Installing valska into $(VENV) …"
	@$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	@$(BIN)/python -m pip install -qq --editable '.[plot]' --group dev
	@touch $@

# Judges of archives that are not ours; apart, since they bring a hundred packages of their own.
$(CRATE_STAMP): tests/cluster/python.sh
	@tests/cluster/python.sh $(CRATE)
	@echo "Installing validators of research objects into $(CRATE) …"
	@$(CRATE)/bin/python -m pip install -qq 'roc-validator>=0.13' 'rocrate>=0.16'
	@touch $@

demo: install ## A real pyuvsim run: image, bundle, run in the container, verify
	@PATH="$(CURDIR)/$(BIN):$$PATH" docs/demo.sh

test: export VALSKA_CRATE_PYTHON = $(CURDIR)/$(CRATE)/bin/python
test: install $(CRATE_STAMP) ## All tests, against real Apptainer and real Slurm (set up here on Debian as root)
	@tests/cluster/up.sh
	@PATH="$(CURDIR)/$(BIN):$$PATH" containers/build-images.sh pyuvsim || [[ -z $$VALSKA_REQUIRE_SERVICES ]]
	$(PYTEST) -n 6 --dist loadfile --no-loadscope-reorder $(ARGS)

test-unit: install ## Only the tests that need no service
	$(PYTEST) -n 2 --dist loadfile tests/unit tests/cli $(ARGS)

lint: install ## ruff, the import contract, shellcheck
	@tests/cluster/shellcheck.sh
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	git ls-files -z '*.sh' '.ci/run' ':!tests/golden' ':!src' | xargs -0 shellcheck --external-sources

type: install ## mypy, strict
	$(BIN)/mypy

images: install ## Build the images from containers/*.def
	@tests/cluster/apptainer.sh
	@PATH="$(CURDIR)/$(BIN):$$PATH" containers/build-images.sh

images-check: install ## Build pyuvsim's image twice, from nothing: one sha256, one answer of its simulation
	@tests/cluster/apptainer.sh
	@[[ $$EUID -ne 0 ]] || tests/cluster/user.sh
	@PATH="$(CURDIR)/$(BIN):$$PATH" tests/cluster/images-check.sh

docs: install ## Write the CLI reference anew and check every link
	$(BIN)/python docs/make_reference.py

bench: install ## Measure what valska adds, as ratios to a floor of the same run
	@tests/cluster/apptainer.sh
	@tests/cluster/programs.sh
	$(BIN)/python -m bench

clean: ## Remove what was made here (not the image store)
	rm -rf $(VENV) $(CRATE) build dist demo src/*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
