# The main targets are `make demo`, `make report`, `make test` and `make docs`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CONSTRAINTS := constraints.txt
PIP_INSTALL := $(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS)

# Compiled files are kept, whatever the environment says: the runs, and the processes that tests start, share them.
PYTEST := PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile

# Tests that compare results of products, whose rounding depends on the instructions of the processor
# and on the number of threads. Left out are long ones without products of this package.
# Processors and libraries ignore settings that they do not know.
NUMERIC_TESTS := tests/backend/scoring tests/backend/sparse_coding tests/estimation/test_bad_input.py \
	tests/test_sklearn_contracts.py tests/test_bulk.py tests/persistence/test_stored_objects.py \
	-k 'not (scikit_learn_check or test_no_check or test_no_tag or in_parallel or other_estimators \
	or read_into_memory or bad_input_is_refused or former_name)'
PLAIN_PROCESSOR := ATEN_CPU_CAPABILITY=default MKL_CBWR=COMPATIBLE OPENBLAS_CORETYPE=Nehalem \
	DNNL_MAX_CPU_ISA=SSE41 OMP_NUM_THREADS=1 FLIP_TEST_THREADS=1
FOUR_THREADS := ATEN_CPU_CAPABILITY=avx2 MKL_CBWR=AVX2 DNNL_MAX_CPU_ISA=AVX2 \
	OMP_NUM_THREADS=4 OMP_WAIT_POLICY=passive FLIP_TEST_THREADS=4

# Tests that compute on a GPU where there is one, without the longest ones and those that start processes.
GPU_TESTS := tests/gpu tests/backend/scoring tests/backend/sparse_coding tests/splice tests/diagnostics \
	tests/metrics/test_perplexity.py tests/test_path.py tests/test_sklearn_contracts.py \
	tests/estimation/test_bad_input.py \
	-k 'not test_scale_of_the_weights and not test_compare_encoders and not test_informative_words \
	and not test_rank_analysis_of and not test_path_begins and not test_data_formats_give \
	and not in_parallel and not in_another_process and not real_gpu'

.PHONY: demo report test docs style unit-tests test-lowest test-processors test-standin-gpu fuzz bench release-check clean

demo: $(VENV)/.demo
	$(BIN)/python examples/quickstart.py

report: $(VENV)/.demo
	$(BIN)/python examples/report.py

test: $(VENV)/.test
	$(MAKE) style
	$(MAKE) unit-tests
	$(MAKE) test-processors
	$(MAKE) test-standin-gpu

# The site, in build/docs/index.html: its gallery runs examples/plot_*.py. Warnings are errors.
docs: $(VENV)/.docs
	$(BIN)/python -m sphinx -W --keep-going --quiet -d build/doctrees docs build/docs
	$(BIN)/python docs/check_site.py build/docs

style: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

unit-tests: $(VENV)/.test
	OMP_NUM_THREADS=1 $(PYTEST)

# With the lowest versions that pyproject.toml promises, in an environment of its own; Python 3.11.
test-lowest:
	$(MAKE) unit-tests VENV=.venv-lowest CONSTRAINTS=constraints-lowest.txt

test-processors: $(VENV)/.test
	$(PLAIN_PROCESSOR) $(PYTEST) $(NUMERIC_TESTS)
	$(FOUR_THREADS) $(PYTEST) $(NUMERIC_TESTS)

# Without a GPU: its tensors lie in host memory, and what CUDA refuses is refused.
test-standin-gpu: $(VENV)/.test
	OMP_NUM_THREADS=1 $(PYTEST) --dist load --standin-gpu $(GPU_TESTS)

# 30,000 generated inputs instead of the 1,000 of `make test`.
fuzz: $(VENV)/.test
	OMP_NUM_THREADS=1 FLIP_FUZZ_CASES=30000 $(PYTEST) --dist load tests/test_generated_inputs.py

bench: $(VENV)/.test
	$(BIN)/python -m benchmarks.bench_fit

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or later is needed; name one with: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# The build for the CPU, where an index offers it (PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu);
# otherwise pip installs PyPI's build, which has CUDA packages of several GB on Linux.
$(VENV)/.torch: $(CONSTRAINTS) | $(BIN)/python
	$(PIP_INSTALL) "$$(grep '^torch==' $(CONSTRAINTS))+cpu" 2>/dev/null || $(PIP_INSTALL) torch
	@touch $@

$(VENV)/.demo: pyproject.toml $(CONSTRAINTS) $(VENV)/.torch
	@echo "Installing the demo (once)..."
	$(PIP_INSTALL) --editable '.[demo]'
	@touch $@

$(VENV)/.test: pyproject.toml $(CONSTRAINTS) $(VENV)/.torch
	@echo "Installing the test tools (once)..."
	$(PIP_INSTALL) --editable '.[test]'
	@touch $@

$(VENV)/.docs: pyproject.toml $(CONSTRAINTS) $(VENV)/.torch
	@echo "Installing the tools of the site (once)..."
	$(PIP_INSTALL) --editable '.[docs]'
	@touch $@

# Both distributions as they would be uploaded. The wheel is installed with the core dependencies only, and used outside
# this folder; tests run from the unpacked source distribution.
RELEASE := build/release
RELEASE_TESTS := tests/test_release.py tests/test_docs.py tests/test_imports.py tests/test_installation.py tests/test_views.py
release-check: $(VENV)/.test
	rm -rf dist $(RELEASE)
	$(PYTHON) -m venv $(RELEASE)/tools
	$(RELEASE)/tools/bin/python -m pip install --quiet build twine
	$(RELEASE)/tools/bin/python -m build
	$(RELEASE)/tools/bin/python -m twine check --strict dist/*
	$(MAKE) VENV=$(RELEASE)/core $(RELEASE)/core/.torch
	$(RELEASE)/core/bin/python -m pip install --quiet --constraint constraints.txt dist/*.whl
	cd $(RELEASE) && core/bin/python -I $(CURDIR)/tests/helpers/core_only.py
	mkdir $(RELEASE)/sdist && tar -xzf dist/*.tar.gz -C $(RELEASE)/sdist --strip-components 1
	cd $(RELEASE)/sdist && OMP_NUM_THREADS=1 PYTHONPATH=$(CURDIR)/$(RELEASE)/sdist $(CURDIR)/$(BIN)/python -m pytest -p no:cacheprovider $(RELEASE_TESTS) \
		-k 'not page_runs'

clean:
	rm -rf $(VENV) .venv-lowest build dist outputs docs/gallery docs/generated
