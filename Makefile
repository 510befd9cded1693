# make demo · make test · make test-locale · make docs · make lint · make bench · make evaluate · make clean
#
# PYTHON is the interpreter that creates .venv if it does not exist.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
OUT    := out/demo

.PHONY: demo test test-locale docs lint bench evaluate clean

# head-mr-to-ct was trained on data for non-commercial use, so a run has to accept its license.
# The demo accepts it explicitly, and `medgen demo` prints a note.
demo: $(VENV)/.installed
	$(BIN)/medgen demo -o $(OUT) --accept-license

# The parts of the tests, the longest first. Two of them run at the same time, each in a home of its own; the lines of a part
# are shown when it ends, and all parts run, also if one fails. The hundreds of processes that the tests start read the
# compiled library, and the threads of PyTorch sleep while they wait, because two processes that spin take three times as
# long.
APART := cli docs trainer worker
PARTS := 'slicer' 'library $(APART:%=--ignore=Testing/library/%)' $(APART:%='library/%')

test: export PYTHONDONTWRITEBYTECODE :=
test: export OMP_WAIT_POLICY := passive
test: $(VENV)/.installed-dev
	printf '%s\n' $(PARTS) | xargs -P 2 -I PART sh -c 'home=$$(mktemp -d); \
	echo "Testing/PART: started"; HOME=$$home $(BIN)/python -m pytest -q Testing/PART > $$home/log 2>&1; status=$$?; \
	cat $$home/log; rm -rf $$home; exit $$status'

# The library's tests in a locale with a decimal comma, which Qt sets where the user's language has one.
test-locale: $(VENV)/.installed-dev
	MEDGEN_TEST_LOCALE=de_DE $(BIN)/python -m pytest -q Testing/library

# The documentation site in out/docs, offline; a warning fails the build.
docs: $(VENV)/.installed-docs
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs out/docs

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# The slow code blocks of the documentation, the slow tests, then the benchmarks, most of which need the public scans in the folder
# MEDGEN_DATA, see Testing/benchmarks/RESULTS.md.
BENCHMARKS := ct_tissue ct_noise hippocampus brain heads segmenter utility distribution speed maisi memory metrics \
	reader_study slicer edit edit_slicer lesion lesion_texture steps conditioning checks anatomy damage trainer cohort \
	cohort_simulation breathe organs enhance deghost body intervals remote federated

bench: $(VENV)/.installed-dev
	MEDGEN_SLOW_DOCS=1 $(BIN)/python -m pytest -q -m "slow or not slow" Testing/library/docs/test_code_blocks.py
	$(BIN)/python -m pytest -q -m slow Testing/library
	$(BIN)/python -m pytest -q -m slow Testing/slicer
	set -e; for name in $(BENCHMARKS); do $(BIN)/python Testing/benchmarks/$$name.py; done

# Updates the tables of the embedded models in RESULTS.md and in their model cards.
evaluate: $(VENV)/.installed-dev
	$(BIN)/python Testing/benchmarks/embedded.py

clean:
	rm -rf out build dist *.egg-info .pytest_cache .ruff_cache */.ruff_cache */*/.ruff_cache
	find MedGen MedGenLib Testing -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# The stamp files avoid a second call of pip until the dependencies change.
$(VENV)/.installed: pyproject.toml MedGenLib/requirements.txt constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install -q -c constraints.txt -e .
	touch $@

$(VENV)/.installed-dev: pyproject.toml MedGenLib/requirements.txt constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[dev]"
	touch $@ $(VENV)/.installed

$(VENV)/.installed-docs: pyproject.toml MedGenLib/requirements.txt constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[docs]"
	touch $@ $(VENV)/.installed
