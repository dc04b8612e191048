# `make` lists the commands. It needs GNU make 3.81 or newer.

SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help setup reproduce mini test test-all test-slow bench check format lock dashboard docs archive

help: ## list these commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

OFFLINE := mgm: the packages of requirements.lock could not be installed, for the reason above; connect to a package index and run make setup again
# If the home folder is not writable, uv, Snakemake and Matplotlib keep their files in .venv.
CACHE := "$${XDG_CACHE_HOME:-$$HOME/.cache}"
ifneq ($(shell mkdir -p $(CACHE) 2> /dev/null && test -w $(CACHE) && echo yes),yes)
export XDG_CACHE_HOME := $(CURDIR)/.venv/.cache
export MPLCONFIGDIR := $(CURDIR)/.venv/.cache/matplotlib
endif

setup: .venv/.ready ## make .venv with the pinned versions (7.3 GB, most of it PyTorch and CUDA)

.venv/.ready: requirements.lock pyproject.toml
	@command -v $(PYTHON) > /dev/null || { echo "mgm: $(PYTHON) is not found: install Python 3.11 to 3.13, or run make setup PYTHON=/path/to/python"; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' || { echo "mgm: $$($(PYTHON) --version) is not 3.11 to 3.13; run make setup PYTHON=/path/to/python3.11"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -c 'import ensurepip, venv' 2> /dev/null || { echo "mgm: this Python cannot make virtual environments; on Debian: apt install python3-venv"; exit 2; }
	@test -e $(BIN)/torchrun || test $$(df -Pk . | awk 'NR == 2 {print int($$4 / 1e6)}') -ge 8 || { echo "mgm: less than 8 GB are free in $(CURDIR); make room, or clone to another disk"; exit 2; }
	@echo "Setting up .venv: 7.3 GB on disk. uv shows the progress; later calls take a second."
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@test -x $(BIN)/uv || $(BIN)/pip install --quiet --disable-pip-version-check uv || { echo "$(OFFLINE)"; exit 2; }
	@$(BIN)/uv pip sync --compile-bytecode --python $(BIN)/python --require-hashes requirements.lock || { echo "$(OFFLINE)"; exit 2; }
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@
	@echo "Ready. Next: source $(BIN)/activate && mgm report mini   (20 s: the page of README's figure)"

reproduce: setup ## run every experiment at toy scale: tables, figures and page in reports/smoke
	@$(BIN)/snakemake --cores all --quiet all
	@echo "The page: $(CURDIR)/reports/smoke/index.html"

mini: setup ## run 8 minutes of scale mini (Table 4e, edge ablation, Figure 4a)
	@timeout --signal=TERM 470 $(BIN)/snakemake --cores all --quiet all --config scale=mini -- table4e table4_edge figure4a || test $$? = 124
	@$(BIN)/mgm report mini

# A file's tests run in one process, so that its fixtures are made once.
PYTEST := $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder
SLOW := slow or smoke or mlflow or postgres or chromium or slurm

test: setup ## run the fast tests (5 minutes on two cores)
	@$(PYTEST) -m "not ($(SLOW))"

test-all: setup ## run all tests, also of servers, Slurm, a browser and killed runs (half an hour); needs `make reproduce`
	@$(PYTEST) -m "not ($(SLOW))"
	@$(MAKE) --no-print-directory test-slow

test-slow: setup ## run the tests that `make test` leaves out; needs `make reproduce`
	@$(PYTEST) -m "$(SLOW)"

bench: setup ## compare loading and a step with peers, in reports/bench
	@OMP_NUM_THREADS=1 $(BIN)/python bench

check: setup ## check format, lint, types and import contracts
	@$(BIN)/ruff format --check . > .check.log && $(BIN)/ruff check . > .check.log && $(BIN)/snakefmt --check workflow 2> .check.log \
		|| { cat .check.log; echo "next: make format"; exit 1; }
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/lint-imports --no-cache > .check.log 2>&1 || { cat .check.log; exit 1; }
	@echo "check: clean"

format: setup ## format the code
	@$(BIN)/ruff format --quiet . && $(BIN)/ruff check --quiet --fix . && $(BIN)/snakefmt workflow

lock: ## pin the newest versions that pyproject.toml allows
	@$(BIN)/uv pip compile pyproject.toml --all-extras --group dev --generate-hashes --universal --python-version 3.11 --no-header \
		--no-emit-index-url --no-emit-find-links --quiet --upgrade --output-file requirements.lock

docs: setup ## write the results in README and docs from the archives; build the site in site/ (opens from disk)
# A page of a study ends with its command. A new one is first copied from reports/NAME/index.md.
	@for name in $$(sed -n 's/^Written by .mgm report \([a-z-]*\).*/\1/p' docs/*.md); do $(BIN)/mgm report $$name > /dev/null && \
		sed "s,](figures/,]($$name-," reports/$$name/index.md > docs/$$name.md && \
		for figure in $$(grep -o 'figures/[^)]*' reports/$$name/index.md); do \
			cp reports/$$name/$$figure docs/$$name-$${figure#figures/}; done; done
	@$(BIN)/python -m mgm.report.markdown README.md docs/*.md
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet && echo "The site: $(CURDIR)/site/index.html"

ARCHIVE = mgm-$(shell $(BIN)/mgm --version | cut -d' ' -f2).tar.gz
archive: setup ## pack code, lock, page and results without weights for Zenodo; NAME=mini for other results
	@$(BIN)/mgm report $(NAME) > /dev/null
	@{ git ls-files; find results/$(NAME) reports/$(NAME) -type f ! -name '*.safetensors' ! -name 'checkpoint*' ! -name writer.lock \
		! -path 'results/$(NAME)/datasets/*' ! -path 'results/$(NAME)/jobs/*'; } | sort -u \
		| tar --create --gzip --transform='flags=rh;s,^,mgm/,' --files-from=- --file=$(ARCHIVE)
	@echo "$(CURDIR)/$(ARCHIVE), described by .zenodo.json in it"

archive: NAME ?= smoke
PORT ?= 5000
dashboard: setup ## start MLflow on http://127.0.0.1:5000 and follow running jobs; NAME=mine for one of them, PORT=5001
	@! (exec 3<>/dev/tcp/127.0.0.1/$(PORT)) 2>/dev/null || { echo "port $(PORT) is in use: end the program that listens there, or run make dashboard PORT=$$(($(PORT) + 1))"; exit 1; }
	@set -o pipefail; $(BIN)/mgm sync $(NAME) | sed 's,#/,http://127.0.0.1:$(PORT)/#/,' && { $(BIN)/mgm sync $(NAME) --every 10 & trap "kill $$!" EXIT; \
	MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false $(BIN)/mlflow server --host 127.0.0.1 --port $(PORT) --workers 1 \
	--backend-store-uri sqlite:///results/mlflow.db --uvicorn-opts "--no-access-log --log-level warning"; }
