# One environment in .venv, made again whenever pyproject.toml or constraints.txt change.

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

# One thread per process: the networks of demo and tests are so small that threads wait for each other more than they
# work, two workers have two cores, and sums stay in one order.
demo test test-thorough test-all soak: export OMP_NUM_THREADS = 1
demo test test-thorough test-all soak: export MKL_NUM_THREADS = 1

.PHONY: help venv demo test test-thorough test-all bench soak docs lint format clean

help:  ## this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile

venv: $(STAMP)  ## make .venv and install everything into it

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "ebmzoo needs Python 3.11 or newer: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,docs,wandb]'
	@touch $@

demo: $(STAMP)  ## train EC-VAE on digits, evaluate it, and say where everything is
	@run="runs/ecvae_digits/demo_$$(date +%Y%m%d_%H%M%S)"; \
	$(BIN)/ebmzoo fit --config configs/ecvae_digits.yaml --run_dir "$$run" && \
	$(BIN)/ebmzoo test --ckpt_path "$$run/checkpoints/last.ckpt" && \
	echo && echo "Everything of this run:" && \
	for file in samples.png results.json metrics.csv config.yaml checkpoints/last.ckpt; do ls "$$run/$$file"; done

lint: $(STAMP)  ## style, types, and who may import whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint  ## the same and the tests
	$(BIN)/pytest -q -n 2 --dist worksteal

test-thorough: $(STAMP)  ## the tests that take seconds each: with `test`, what must pass
	$(BIN)/pytest -q -n 2 --dist worksteal -m thorough

test-all: lint  ## the same with the tests that take minutes
	$(BIN)/pytest -q -n 2 --dist worksteal -m ''

bench: $(STAMP)  ## the figures of docs/results.md: some hours
	for script in foundation shelf dual_mcmc denoising_ebm baselines extensions tasks ood; do \
		$(BIN)/python benchmarks/$$script.py || exit 1; \
	done

soak: $(STAMP)  ## what a training has to endure: kills, damaged files, faults, 500 odd configs; an hour
	$(BIN)/python -m benchmarks.soak

docs: $(STAMP)  ## the site of docs/ in build/site
	$(BIN)/mkdocs build --strict
	@ls build/site/index.html

format: $(STAMP)  ## mend what can be mended by machine
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove the environment and all caches; runs/ stays
	rm -rf .venv build dist .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	find . -maxdepth 1 -name '*.egg-info' -exec rm -rf {} +
