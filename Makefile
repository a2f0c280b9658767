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

.PHONY: help setup build size test demo wheel clean

help:
	@echo "make setup   install missing packages (packages.txt)"
	@echo "make build   configure and build into $(BUILD) (PRESET=dev|release|asan|tsan)"
	@echo "make demo    build, then run the main job twice: cold, then from the cache"
	@echo "make test    build and run every test, then unit and CPU conformance tests under sanitizers and the fuzz targets"
	@echo "make wheel   pack the Python wheel from $(BUILD) into build/"
	@echo "make clean   remove build/"

setup:
	@scripts/setup.sh

build: setup
	cmake --preset $(PRESET)
	cmake --build --preset $(PRESET) --parallel $(JOBS)
	@if [ "$(PRESET)" = release ]; then scripts/size.sh $(BUILD)/bin/libflashplus-compiler.so 24; fi

demo: build
	@rm -rf build/demo-cache
	@echo; echo "== first run: nothing in the cache"
	@$(DEMO)
	@echo; echo "== second run: a new process, a warm cache"
	@$(DEMO)

test: build
	@scripts/setup.sh --assemblers
	@[ $(PRESET) != release ] || scripts/python_env.py --install newest oldest >/dev/null || echo "make: no PyTorch to test with; the Python tests are skipped"
	FLASHPLUS_NVJITLINK="$$(scripts/nvjitlink.sh)" FLASHPLUS_PTXAS="$$(scripts/ptxas.sh)" \
	  ctest --test-dir $(BUILD) --output-on-failure --parallel $(JOBS)
ifeq ($(PRESET),release)
	@$(MAKE) --no-print-directory test PRESET=asan
	@$(MAKE) --no-print-directory test PRESET=tsan
endif

wheel: build
	@scripts/python_env.py --install newest >/dev/null
	"$$(scripts/python_env.py newest)" -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir build . \
	  -C cmake.define.FLASHPLUS_PREBUILT="$$PWD/$(BUILD)/bin" -C build-dir=build/wheel-pack
	@ls -l build/*.whl

clean:
	rm -rf build
