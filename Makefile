# make demo: a first table. make test: the quick tests. make help: the rest.
# PYTHON=/path/to/python chooses another Python than the preflight does (3.11 to 3.14).

PY := .venv/bin/python
PIP := $(PY) -m pip --disable-pip-version-check
INSTALL := $(PIP) install -c constraints.txt

# The grids of results/, from cheap to dear: hours from nothing, but what is done is not done again.
GRIDS := mnist_pgd mnist_breaks mnist_detectors purifier cifar10_pgd cifar10_breaks noise_fusion mnist_noise cifar10_noise \
	mnist_full cifar10_full

.DEFAULT_GOAL := help
.PHONY: help install dev browser picture results demo test slow fuzz faults check docs preflight links clean

help:
	@echo "make demo    set up .venv, then FGSM and PGD on bundled images and models (no data to fetch)"
	@echo "make test    the quick test suite"
	@echo "make slow    the slow tests"
	@echo "make fuzz    20,000 hostile inputs, new ones each time"
	@echo "make faults  600 kills, full disks, damaged files: nothing is lost, no number is wrong; long"
	@echo "make check   ruff, mypy --strict, and the documentation with its links"
	@echo "make docs    the documentation, into site/index.html"
	@echo "make install .venv with what a run needs; make dev adds what the tests need"
	@echo "make browser Chromium, axe-core and SARIF's schema, which tests of pages need; make test tries it once"
	@echo "make picture docs/assets/adversarial.png, and results/leaderboard.png from a page of results/"
	@echo "make results the committed grids and their pages; resumes, hours"
	@echo "make clean   remove .venv and caches; results stay"

demo: .venv/.installed
	$(PY) -m experiments.run grid=quickstart

# Compiled modules are kept, also where the environment says not to: tests start some hundred processes.
test: .venv/.installed-dev .venv/.browser
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(PY) -m pytest -n 2

slow: .venv/.installed-dev
	$(PY) -m pytest -m slow

fuzz: .venv/.installed-dev
	ROBUSTBENCH_LOCAL_FUZZ=10 $(PY) -m pytest -s tests/config/test_fuzz.py tests/models/formats/test_fuzz.py

faults: .venv/.installed-dev
	OMP_NUM_THREADS=1 $(PY) -m pytest -s tests/storage/test_damage.py tests/storage/test_kills.py tests/faults \
		-m 'faults or not faults'

check: .venv/.installed-dev
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(PY) .ci/links.py
	$(MAKE) docs

# Ends where a link leads nowhere. The variable silences an advertisement.
docs: .venv/.installed-dev
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict

install: .venv/.installed

dev: .venv/.installed-dev

browser:
	@sh .ci/browser

picture: .venv/.installed-dev
	$(PY) .ci/adversarial.py
	$(PY) -W ignore::UserWarning .ci/picture.py

results: .venv/.installed
	for grid in $(GRIDS); do $(PY) -m experiments.run grid=$$grid || exit 1; done
	.venv/bin/robustbench-local pack $(GRIDS:%=results/%)

preflight:
	@sh .ci/preflight

# The symbolic links of the checkout, where a copy of it has none.
links:
	@test -d robustbench_local/attacks || ln -sfn ../attacks robustbench_local/attacks
	@test -d robustbench_local/defenses || ln -sfn ../defenses robustbench_local/defenses
	@test -e docs/leaderboard.png || ln -sfn ../results/leaderboard.png docs/leaderboard.png

# The stamps make a second call instant; a changed pyproject.toml or constraints.txt installs again.
.venv/.installed: pyproject.toml constraints.txt | links
	@python=$$(sh .ci/preflight) || exit 1; \
	$(PY) -c 'import pip' 2>/dev/null || { echo "Making .venv with $$($$python --version)"; $$python -m venv --clear .venv; }
	@echo "Installing into .venv: some minutes the first time"
	$(INSTALL) setuptools
	$(INSTALL) --no-build-isolation -e .
	@touch $@

# torchattacks asks for an old requests, which the rest cannot live with: without its dependencies it works as well.
.venv/.installed-dev: .venv/.installed
	$(INSTALL) --no-build-isolation -e '.[dev]'
	$(INSTALL) --no-deps torchattacks
	@touch $@

# Tried once: where a browser cannot be had, its tests skip and say so (in CI they fail).
.venv/.browser: .venv/.installed-dev .ci/browser
	@sh .ci/browser || true
	@touch $@

clean:
	rm -rf .venv build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
