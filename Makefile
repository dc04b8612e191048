# `make` lists the commands. It needs GNU make 3.81 or newer.

SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help setup reproduce mini test test-all test-slow bench check format lock dashboard docs

help: ## list these commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

OFFLINE := mgm: the packages of requirements.lock could not be installed, for the reason above; connect to a package index, or name yours as UV_DEFAULT_INDEX, and run make setup again
# uv does not read pip's settings.
INDEX = $${UV_DEFAULT_INDEX:-$${PIP_INDEX_URL:-$$($(BIN)/pip config get global.index-url 2> /dev/null)}}
# If the home folder is not writable, uv, Snakemake and Matplotlib keep their files in .venv.
CACHE := "$${XDG_CACHE_HOME:-$$HOME/.cache}"
ifneq ($(shell mkdir -p $(CACHE) 2> /dev/null && test -w $(CACHE) && echo yes),yes)
export XDG_CACHE_HOME := $(CURDIR)/.venv/.cache
export MPLCONFIGDIR := $(CURDIR)/.venv/.cache/matplotlib
endif

setup: .venv/.ready ## make .venv with the pinned versions (7.3 GB, most of it PyTorch and CUDA)

.venv/.ready: requirements.lock pyproject.toml
	@command -v $(PYTHON) > /dev/null || { echo "mgm: $(PYTHON) is not found: install Python 3.11 to 3.14, or run make setup PYTHON=/path/to/python"; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 15))' || { echo "mgm: $$($(PYTHON) --version) is not 3.11 to 3.14; run make setup PYTHON=/path/to/python3.11"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -c 'import ensurepip, venv' 2> /dev/null || { echo "mgm: this Python cannot make virtual environments; on Debian: apt install python3-venv"; exit 2; }
	@test -e $(BIN)/torchrun || test $$(df -Pk . | awk 'NR == 2 {print int($$4 / 1e6)}') -ge 8 || { echo "mgm: less than 8 GB are free in $(CURDIR); make room, or clone to another disk"; exit 2; }
	@echo "Setting up .venv: 7.3 GB on disk. uv shows the progress; later calls take a second."
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@test -x $(BIN)/uv || $(BIN)/pip install --quiet --disable-pip-version-check uv || { echo "$(OFFLINE)"; exit 2; }
	@index=$(INDEX); $${index:+env UV_DEFAULT_INDEX=$$index} $(BIN)/uv pip sync --compile-bytecode --python $(BIN)/python --require-hashes requirements.lock || { echo "$(OFFLINE)"; exit 2; }
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@
	@echo "Ready. Next: source $(BIN)/activate && mgm show docs/walk.mp4"

reproduce: setup ## run every experiment at toy scale: tables, figures and page in reports/smoke
	@$(BIN)/snakemake --cores all --quiet all || { echo "mgm: stopped before the end; make reproduce continues"; exit 1; }
	@echo "The page: $(CURDIR)/reports/smoke/index.html"

mini: setup ## run 8 minutes of Table 4e at scale mini; again continues
	@timeout --signal=TERM 470 $(BIN)/snakemake --cores all --quiet all --config study=mini -- table4e || test $$? = 124
	@$(BIN)/mgm report mini

# A file's tests run in one process, so that its fixtures are made once.
PYTEST := $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder
SLOW := slow or smoke or mlflow or chromium or slurm

test: setup ## run the fast tests (2 to 12 minutes on two cores)
	@$(PYTEST) -m "not ($(SLOW))"

test-all: setup ## run all tests, also of servers, Slurm, a browser and killed runs (15 minutes); needs `make reproduce`
	@$(PYTEST) -m "not ($(SLOW))"
	@$(MAKE) --no-print-directory test-slow

test-slow: setup ## run the tests that `make test` leaves out; needs `make reproduce`
	@$(PYTEST) -m "$(SLOW)"

VIDEOS ?= docs
bench: setup ## compare loading with peers, on VIDEOS=FOLDER, and time a training step
	@OMP_NUM_THREADS=1 $(BIN)/python bench/peers.py $(VIDEOS)
	@OMP_NUM_THREADS=1 $(BIN)/python bench/step.py step --tiny

check: setup ## check format, lint, types and import contracts
	@$(BIN)/ruff format --check . > .check.log && $(BIN)/ruff check . > .check.log && $(BIN)/snakefmt --check Snakefile 2> .check.log \
		|| { cat .check.log; echo "next: make format"; exit 1; }
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/lint-imports --no-cache > .check.log 2>&1 || { cat .check.log; exit 1; }
	@echo "check: clean"

format: setup ## format the code
	@$(BIN)/ruff format --quiet . && $(BIN)/ruff check --quiet --fix . && $(BIN)/snakefmt Snakefile

lock: ## pin the newest versions that pyproject.toml allows
	@$(BIN)/uv pip compile pyproject.toml --all-extras --group dev --generate-hashes --universal --python-version 3.11 --no-header \
		--no-emit-index-url --no-emit-find-links --quiet --upgrade --output-file requirements.lock

docs: setup ## build the site in site/ (opens from disk)
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet && echo "The site: $(CURDIR)/site/index.html"

PORT ?= 5000
dashboard: setup ## start MLflow, follow running jobs, and print the address of the newest runs; PORT=5001 for another port
	@! (exec 3<>/dev/tcp/127.0.0.1/$(PORT)) 2>/dev/null || { echo "port $(PORT) is in use: end the program that listens there, or run make dashboard PORT=$$(($(PORT) + 1))"; exit 1; }
	@{ $(BIN)/mgm sync --every 10 --server http://127.0.0.1:$(PORT) & trap "kill $$!" EXIT; \
	MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false $(BIN)/mlflow server --host 127.0.0.1 --port $(PORT) --workers 1 \
	--backend-store-uri sqlite:///results/mlflow.db --uvicorn-opts "--no-access-log --log-level warning"; }
