# Marquee's commands; `make help` lists them. Each does its own set-up.
#   DATA=<folder>       data to train on (default: see `make help`)
#   PYTHON=<python>     the Python, 3.11 or newer, that the virtual environment is made from
#   TORCH_INDEX=<url>   package index to take PyTorch's CPU build from

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet --constraint constraints.txt
# That index need not hold what PyTorch depends on: the next line installs that, from the usual one.
TORCH := $(PIP) $(if $(TORCH_INDEX),--index-url '$(TORCH_INDEX)' --no-deps) torch==2.13.0

# 3.11.3: below it one more package is needed.
LOCK := $(BIN)/uv pip compile --quiet pyproject.toml --constraint constraints.txt --generate-hashes --no-annotate \
	--python-version 3.11.3 --python-platform linux --custom-compile-command 'make lock'

PEERS_FLAGS = $(if $(ENVIRONMENTS),--environments "$$ENVIRONMENTS")

.DEFAULT_GOAL := help
.PHONY: help setup demo up test report lint format protos bench bench-growth bench-peers images lock clean

help: ## List the commands.
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 22
	@echo "  DATA=<folder> trains on your data; without it: data/ml-latest-small, a download, or the embedded sample."

setup: $(STAMP) ## Make the virtual environment with everything pinned.

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Marquee needs Python 3.11 or newer; name one with PYTHON=python3.11" >&2; exit 1; }
	@echo "Setting up $(VENV): about 450 MB to download with PyTorch's CPU build, 1.6 GB on disk."
	@test -n '$(TORCH_INDEX)' || test "$$(uname)" != Linux || \
		echo "On Linux the index may give PyTorch with CUDA, several GB: then stop, and set TORCH_INDEX to a CPU index."
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV) || \
		{ echo "$(PYTHON) cannot make a virtual environment; on Debian and Ubuntu install python3-venv," \
			"or name another Python with PYTHON=<python>" >&2; exit 1; }
	@$(TORCH)
	@$(PIP) --editable '.[dev]'
	@touch $@

demo: $(STAMP) ## Train, publish, serve and recommend, then stop everything.
	@$(BIN)/python -m clients.demo $(if $(DATA),--data "$$DATA")

up: $(STAMP) ## Serve what the demo made: both services and the web page, until Ctrl-C.
	@$(BIN)/python -m clients.web.up $(if $(DATA),--data "$$DATA")

report: $(STAMP) ## Train towers of several seeds, measure them beside all baselines, write one page.
	@$(BIN)/python -m training.report --data "$(or $(DATA),data/ml-latest-small)" --out .marquee/report

test: $(STAMP) ## Run the tests.
	@$(BIN)/python -m pytest

lint: $(STAMP) ## Check style, types, protos, and for what is unsafe.
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/python protos/check.py
	@$(BIN)/bandit --quiet --recursive --configfile pyproject.toml marquee services training clients

format: $(STAMP) ## Format the code.
	@$(BIN)/ruff check --fix --quiet .
	@$(BIN)/ruff format .

protos: ## Generate the stubs, with the oldest supported generator.
	@test -d .venv-protos || $(PYTHON) -m venv .venv-protos
	@.venv-protos/bin/python -m pip install --disable-pip-version-check --quiet -r protos/requirements.txt
	@.venv-protos/bin/python protos/generate.py

bench: $(STAMP) ## Measure the project's own ratios, and what moved since the last committed run; 15 minutes.
	@$(BIN)/python -m benchmarks $(if $(DATA),--data "$$DATA")

bench-growth: $(STAMP) ## Measure how figures grow with movies, people and histories; a quarter of an hour.
	@$(BIN)/python -m benchmarks.growth

bench-peers: $(STAMP) ## Measure beside what people would pick instead; ENVIRONMENTS=<folder> keeps the peers' environments.
	@ended=0; for each in peers peers_retrieval peers_training; do \
		$(BIN)/python -m benchmarks.$$each $(PEERS_FLAGS) || ended=$$?; \
		test $$ended != 130 || break; done; exit $$ended

images: ## Build the images on a base made here, run each, print their sizes: as root, with buildah and debootstrap.
	@PYTHON='$(PYTHON)' sh deploy/try_images.sh

lock: $(STAMP) ## Write the installed versions into constraints.txt, and those of the images with hashes.
	@$(BIN)/python -m pip freeze --all --exclude-editable > $(VENV)/frozen.txt
	@{ head -1 constraints.txt; sed '/^pip==/d; s/+cpu$$//' $(VENV)/frozen.txt; } > $(VENV)/constraints.txt
	@mv $(VENV)/constraints.txt constraints.txt
	@$(LOCK) --extra encoder --extra tracing --output-file deploy/requirements/user_encoder.txt
	@$(LOCK) --extra retriever --extra tracing --output-file deploy/requirements/retriever.txt

clean: ## Remove what was made: environment, caches, bundles, the demo's store.
	rm -rf $(VENV) .venv-protos .marquee .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist *.egg-info
