# Two commands on a fresh machine: `make demo` and `make test`. They need Python 3.11 or newer with pip, and make.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# compat: a link into the tree, so that type checkers and editors see the package too.
EDITABLE := --config-settings editable_mode=compat --editable

# The newest CPU-only build of a package of torch's family that pip can have here, else nothing. The ordinary Linux
# wheels carry gigabytes of CUDA, which an export does not use.
cpu_build = $(shell $(PIP) index versions $(1) 2>/dev/null | tr -d ',' | tr ' ' '\n' | grep -m 1 '+cpu$$')
CPU_TORCH = $(addprefix torch==,$(call cpu_build,torch))
# The tests need torchvision (through timm), and the two must be of one build.
CPU_PAIR = $(if $(call cpu_build,torchvision),$(CPU_TORCH) torchvision==$(call cpu_build,torchvision))

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow test-tools lint clean

help:  ## Show this list.
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: $(VENV)/demo.stamp  ## Install, then train, export, check and run a small ViT on real digits.
	@$(BIN)/vit-edge demo

# Waiting threads that spin slow torch down tenfold as soon as anything else runs, as a test's child processes do.
test: test-tools  ## Install what the tests need, and run all but the slow ones.
	OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -m 'not slow' $(PYTEST_ARGS)

test-slow: test-tools  ## Run the tests that take longer than ten seconds each.
	OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -m slow $(PYTEST_ARGS)

test-tools: $(VENV)/test.stamp

lint: test-tools  ## Run the linter and the type checker.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:  ## Remove the environment and what was built.
	rm -rf $(VENV) build dist vit_edge.egg-info

# Without pip first: Debian and Ubuntu leave out ensurepip, and refuse pip outside an environment, but let the
# system's pip install into one.
$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "vit-edge needs Python 3.11 or newer, this is " + sys.version.split()[0] + "; give another with make PYTHON=...")'
	$(PYTHON) -m venv --without-pip $(VENV)
	$(PYTHON) -m pip --disable-pip-version-check --python $(BIN)/python install --quiet --upgrade pip

$(VENV)/demo.stamp: pyproject.toml | $(BIN)/python
	@echo "Installing into $(VENV): a few minutes on the first run."
	@if [ -e $(VENV)/test.stamp ]; then $(MAKE) --no-print-directory test-tools; else $(install_demo); fi
	$(usable_opencv)
	@touch $@

# What the tests need includes what the demo needs, and another build of torch on top would break torchvision.
install_demo = $(PIP) install $(CPU_TORCH) $(EDITABLE) '.[demo]'

$(VENV)/test.stamp: pyproject.toml | $(BIN)/python
	@echo "Installing into $(VENV): a few minutes on the first run."
	$(PIP) install --upgrade $(or $(CPU_PAIR),torch torchvision) $(EDITABLE) '.[dev]'
	$(usable_opencv)
	@touch $@

# A machine without a screen often lacks the libraries that OpenCV's windows need; the headless wheel does without.
define usable_opencv
@$(BIN)/python -c 'import cv2' 2>/dev/null || { \
	echo 'OpenCV cannot load its window libraries here: taking the headless wheel instead.'; \
	$(PIP) uninstall --yes opencv-python; $(PIP) install opencv-python-headless; }
endef
