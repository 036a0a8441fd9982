# `make` lists the targets. Nothing here installs system packages: what is missing is named.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install -qq --disable-pip-version-check

# A stamp is newer than the metadata that its environment was installed from.
INSTALLED := $(VENV)/.installed
INSTALLED_DEV := $(VENV)/.installed-dev
INSTALLED_TRAIN := $(VENV)/.installed-train
INSTALLED_BENCH := $(VENV)/.installed-bench

# What users install: the wheel and its requirements, no source folder and no tools of ours.
RELEASE := .venv-release
EXTRAS := s3
WHEEL := dist/curation-$(shell sed -n 's/^version = //p' setup.cfg)-py3-none-any.whl
ARCHIVE := dist/environment.tar.gz
WHEEL_SOURCES := setup.cfg pyproject.toml README.md LICENSE NOTICE \
	$(shell find curation udfs -type f -not -path '*/__pycache__/*')
# The cluster brings Spark: its jars are half of the environment, and must be the cluster's.
SPARK_FILES := */pyspark/* */pyspark-* */py4j/* */py4j-* bin/*spark* bin/beeline* bin/run-example* \
	bin/docker-image-tool.sh

# Peers whose requirements do not agree with ours live apart, each pinned.
BENCH := .venv-bench
BENCH_PACKAGES := datatrove==0.10.1 trafilatura==1.11.0 lxml==6.1.3 lxml_html_clean==0.4.6 \
	warcio==1.8.1 faust-cchardet==3.2.0 python-magic==0.4.27 fasttext-numpy2-wheel==0.9.2 \
	tldextract==5.4.0 pyahocorasick==2.3.1 fasteners==0.20 orjson==3.13.0 regex==2026.11.19 \
	datasketch==2.0.0 rensa==0.5.0 spacy==3.8.18 jieba==0.42.1 tokenizers==0.23.3 xxhash==3.8.2 \
	pyarrow==26.0.1

# What schedules the pipeline: its requirements are many, and locked.
AIRFLOW := .venv-airflow
AIRFLOW_LOCK := jobs/dags/requirements.txt
EDITABLE := --editable

# Of tests; each that starts Spark has a JVM of its own.
NUM_PROCESSES := 2

.DEFAULT_GOAL := help
.PHONY: help prerequisites kenlm-tools fasttext-tool run test test-all test-train train-demo check bench bench-setup bench-corpus environment dist test-dist airflow audit clean
.DELETE_ON_ERROR:

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-14s %s\n", $$1, $$2}' Makefile

prerequisites: ## check Python, Java and g++, and say how to install what is missing
	@PYTHON='$(PYTHON)' sh .ci/prerequisites.sh

run: $(INSTALLED) ## curate the demo dumps and release them as token shards, into out/demo
	$(BIN)/curation run jobs/conf/demo.toml --release demo

kenlm-tools: $(BIN)/lmplz ## build lmplz and build_binary, which train perplexity models

fasttext-tool: $(BIN)/fasttext ## build fasttext, which trains quality classifiers

test: $(INSTALLED_DEV) ## run the tests that every change must pass, NUM_PROCESSES=2 at a time
	$(BIN)/python -m pytest -m "not slow" --numprocesses $(NUM_PROCESSES) --dist loadfile

test-all: $(INSTALLED_DEV) ## run all tests, the slow ones too
	$(BIN)/python -m pytest

test-train: $(INSTALLED_TRAIN) ## run the tests of the trainer, which need torch
	$(BIN)/python -m pytest tests/train

check: $(INSTALLED_DEV) ## run the linters, the format check and the type checker
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/hadolint --config docker/hadolint.yaml docker/Dockerfile
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.compose-spec docker/compose.yaml

bench: $(INSTALLED_BENCH) bench-setup bench-corpus ## measure speed against peers
	$(BIN)/python tests/bench/run.py

bench-setup: $(BENCH)/.installed ## make .venv-bench with datatrove, which `make bench` compares with

bench-corpus: $(INSTALLED_BENCH) ## build dated dumps of manuals for benchmarks: LANGUAGES="en-us zh-cn" SUITES="sid"
	$(BIN)/python tests/bench/corpus.py $(if $(SUITES),--suites $(SUITES)) $(if $(LANGUAGES),--languages $(LANGUAGES))
	$(BIN)/python tests/bench/mix.py
	$(BIN)/python tests/bench/other_tokenizers.py

train-demo: $(INSTALLED_TRAIN) run ## train a tiny model on the demo's shards, on the CPU: out/demo/train
	$(BIN)/python jobs/train.py --shards out/demo/shards/demo --to out/demo/train --preset tiny \
		--num-steps 200 --batch-size 4 --warmup-steps 20 --epochs 5 --learning-rate 3e-3 --max-loss 6

environment: $(RELEASE)/.installed ## make .venv-release: the wheel as users install it (EXTRAS=s3,train)

dist: $(ARCHIVE) ## build the wheel and the archive for spark-submit --archives, into dist/

test-dist: $(INSTALLED_DEV) dist ## run the archive on a Spark cluster on this machine, and kill a worker
	$(BIN)/python -m pytest tests/engine/test_archive.py

airflow: $(AIRFLOW)/.installed ## make .venv-airflow: Airflow and this package, for jobs/dags/

audit: $(INSTALLED_DEV) ## look up known vulnerabilities of everything installed in .venv
	@$(BIN)/python .ci/audit.py $(BIN)/pip-audit

clean: ## remove outputs and caches; .venv stays
	rm -rf out build dist spark-warehouse metastore_db derby.log
	rm -rf .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -path ./$(VENV) -prune -o -name __pycache__ -prune -exec rm -rf {} +

$(INSTALLED): setup.cfg pyproject.toml | prerequisites
	@echo "installing into $(VENV); the first time takes a minute or more"
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	$(PIP_INSTALL) --editable .
	@touch $@

$(BIN)/lmplz: | $(INSTALLED)
	$(BIN)/python -m curation.quality.tools kenlm

$(BIN)/fasttext: | $(INSTALLED)
	$(BIN)/python -m curation.quality.tools fasttext

$(INSTALLED_DEV): $(INSTALLED)
	$(PIP_INSTALL) --editable '.[dev]'
	@touch $@

$(INSTALLED_TRAIN): $(INSTALLED_DEV)
	$(PIP_INSTALL) --editable '.[train]'
	@touch $@

$(INSTALLED_BENCH): $(INSTALLED)
	$(PIP_INSTALL) --editable '.[bench,dev]'
	@touch $@

$(RELEASE)/.installed: $(WHEEL_SOURCES) | prerequisites
	@echo "installing into $(RELEASE); the first time takes a minute or more"
	@rm -rf build
	@$(PYTHON) -m venv --clear $(RELEASE)
	$(RELEASE)/bin/python -m pip wheel -qq --disable-pip-version-check --no-deps --wheel-dir dist .
	$(RELEASE)/bin/python -m pip install -qq --disable-pip-version-check '$(WHEEL)[$(EXTRAS)]'
	@touch $@

$(ARCHIVE): $(RELEASE)/.installed Makefile | $(INSTALLED_DEV)
	$(BIN)/venv-pack --quiet --force --prefix $(RELEASE) --output $@ \
		$(foreach pattern,$(SPARK_FILES),--exclude '$(pattern)')
	@chmod 644 $@

$(AIRFLOW)/.installed: setup.cfg pyproject.toml $(AIRFLOW_LOCK) | prerequisites
	@echo "installing into $(AIRFLOW); the first time takes some minutes"
	@$(AIRFLOW)/bin/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(AIRFLOW)
	$(AIRFLOW)/bin/python -m pip install -qq --disable-pip-version-check \
		--constraint $(AIRFLOW_LOCK) $(EDITABLE) '.[airflow]'
	@touch $@

$(BENCH)/.installed: Makefile | prerequisites
	@echo "installing into $(BENCH)"
	@$(BENCH)/bin/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/python -m pip install -qq --disable-pip-version-check $(BENCH_PACKAGES)
	@touch $@
