# SPDX-License-Identifier: BSD-3-Clause
# From a fresh clone: `make demo` and `make test` do everything, packages included (scripts/setup.sh).
SHELL := /bin/bash
PRESET ?= release
BUILD := build/$(PRESET)
JOBS ?= $(shell nproc)
FLASHPLUS := $(BUILD)/bin/flashplus
# The demo's cache is its own and starts empty, so that the first run shows a cold compile and the second a warm start.
DEMO := $(FLASHPLUS) run --in tests/data/minilm_layer0_qkv.safetensors --check --device auto \
        --cache-dir build/demo-cache

.PHONY: help setup build demo test soak release-check assemblers wheel clean

help:
	@echo "make setup   install missing packages (packages.txt)"
	@echo "make build   configure and build into $(BUILD) (PRESET=dev|release|asan|tsan)"
	@echo "make demo    build the libraries and the command, then run the main job twice: cold, then from the cache"
	@echo "make test    build and run every test, then unit and CPU conformance tests under sanitizers and the fuzz targets;"
	@echo "             a sanitizer begins whatever failed before it, and the end lists what failed in which preset"
	@echo "make soak    the tests of which 'make test' runs a share, whole: kills, faults, threads, mutants, emulated cases"
	@echo "make release-check   assemble every kernel of every variant for every chip (tests/assemble)"
	@echo "make wheel   pack the Python wheel from $(BUILD) into build/"
	@echo "make clean   remove build/"

setup:
	@scripts/setup.sh

build: setup
	cmake --preset $(PRESET)
	cmake --build --preset $(PRESET) --parallel $(JOBS)
	@if [ "$(PRESET)" = release ]; then scripts/size.sh $(BUILD)/bin/libflashplus-compiler.so 24; fi

# Of all that is built only what the demo runs (the target `command` of tools/CMakeLists.txt).
demo: setup
	cmake --preset $(PRESET)
	cmake --build --preset $(PRESET) --parallel $(JOBS) --target command
	@rm -rf build/demo-cache
	@echo; echo "== first run: nothing in the cache"
	@$(DEMO)
	@echo; echo "== second run: a new process, a warm cache"
	@$(DEMO)

# Every preset is built and tested whatever became of the one before; one verdict at the end (scripts/test.sh).
test: assemblers
	@[ $(PRESET) != release ] || scripts/python_env.py --install newest oldest >/dev/null || echo "make: no PyTorch to test with; the Python tests are skipped"
	@JOBS=$(JOBS) scripts/test.sh $(if $(filter release,$(PRESET)),release asan tsan,$(PRESET))

# The tests that CI runs a share of, whole.
soak: assemblers
	@JOBS=$(JOBS) FLASHPLUS_SOAK=1 scripts/test.sh $(if $(filter release,$(PRESET)),release asan tsan,$(PRESET)) -- -L soak

release-check: assemblers
	@JOBS=$(JOBS) FLASHPLUS_SOAK=1 scripts/test.sh $(PRESET) -- -L assemble

assemblers: setup
	@scripts/setup.sh --assemblers

wheel: build
	@scripts/python_env.py --install newest >/dev/null
	"$$(scripts/python_env.py newest)" -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir build . \
	  -C cmake.define.FLASHPLUS_PREBUILT="$$PWD/$(BUILD)/bin" -C build-dir=build/wheel-pack
	@ls -l build/*.whl

clean:
	rm -rf build
