# Every target does its own set-up in .venv. Needed on the machine: Python 3.11 or later and a Rust toolchain.
# FUZZ_SECONDS bounds each target of `make fuzz`. TEST_WORKERS processes share the tests of `make test`, which wait more
# than they compute; 0 is for a debugger.
# PROFILE=dev builds the native module faster and unoptimised; SOAK_SECONDS bounds one battery of `make soak`.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
PROFILE ?= release
SOAK_SECONDS ?= 300
FUZZ_SECONDS ?= 300
PYTEST_ARGS ?=
TEST_WORKERS ?= 4
BENCH_ARGS ?=
PROFILE_ARGS ?=

BIN := .venv/bin
DEPS := .venv/.deps
COMPAT_DEPS := .venv/.deps-compat
NATIVE := .venv/.native-$(PROFILE)
RUST_SOURCES := Cargo.toml Cargo.lock $(shell find rust/ottla-core/src rust/ottla-python -name '*.rs' -o -name Cargo.toml)

# Tests start some two hundred interpreters, which compile everything again where they may not keep it.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: run test test-rust test-python check compat bench profile soak fuzz fmt clean

run: $(NATIVE)
	$(BIN)/ottla demo --logs-dir examples

# Rust's tests take what those in Python leave of the processors while they wait.
test: $(NATIVE)
	cargo test --quiet --package ottla-core --no-run
	$(MAKE) --no-print-directory --jobs=2 test-rust test-python

test-rust:
	+nice cargo test --quiet --package ottla-core

# PYTEST_ARGS may select tests of one kind only: then pytest says 5 of the other.
MAY_BE_NONE := $(if $(PYTEST_ARGS),|| [ $$? -eq 5 ])

test-python: $(NATIVE)
	$(BIN)/python -m pytest -m "not soak and not alone" --ignore tests/compat --numprocesses $(TEST_WORKERS) \
	  $(PYTEST_ARGS) $(MAY_BE_NONE)
	$(BIN)/python -m pytest -m alone --ignore tests/compat $(PYTEST_ARGS) $(MAY_BE_NONE)

check: $(NATIVE)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest --ignore-unused-allowlist --allowlist tests/arch/stubtest-allowlist.txt ottla._native
	$(BIN)/lint-imports
	$(BIN)/python -m ottla.protocol.generate --check
	cargo fmt --check
	cargo clippy --quiet --workspace --all-targets -- -D warnings

compat: $(NATIVE) $(COMPAT_DEPS)
	tests/compat/install.sh
	$(BIN)/python -m pytest -m "compat and not soak" -p no:unraisableexception $(PYTEST_ARGS) tests/compat
	$(BIN)/python -m tests.compat.report

bench: $(NATIVE) $(COMPAT_DEPS)
	tests/compat/install.sh
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group bench
	$(BIN)/python -m bench --jars .tools/java/lib $(BENCH_ARGS)

# Needs Linux's `perf` on the machine; takes the drawing from the crate inferno.
profile: $(NATIVE) $(COMPAT_DEPS)
	tests/compat/install.sh
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group bench
	test -x .tools/cargo/bin/inferno-flamegraph || cargo install --quiet --locked --root .tools/cargo inferno
	PATH="$(CURDIR)/.tools/cargo/bin:$$PATH" $(BIN)/python -m bench.profile --jars .tools/java/lib $(PROFILE_ARGS)

soak: $(NATIVE) $(COMPAT_DEPS)
	tests/compat/install.sh
	SOAK_SECONDS=$(SOAK_SECONDS) $(BIN)/python -m pytest -m soak -p no:unraisableexception $(PYTEST_ARGS)

# libFuzzer with the coverage that the stable compiler can give. Findings stay in rust/fuzz/artifacts.
FUZZ_FLAGS := --cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
  -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1
FUZZ_TARGET := x86_64-unknown-linux-gnu
FUZZ_NAMES := $(notdir $(basename $(wildcard rust/fuzz/fuzz_targets/*.rs)))

fuzz: $(NATIVE)
	$(BIN)/python rust/fuzz/seeds.py
	cd rust/fuzz && RUSTFLAGS="$(FUZZ_FLAGS)" cargo build --release --target $(FUZZ_TARGET)
	cd rust/fuzz && for name in $(FUZZ_NAMES); do \
	  mkdir -p corpus/$$name artifacts/$$name && \
	  target/$(FUZZ_TARGET)/release/$$name corpus/$$name -artifact_prefix=artifacts/$$name/ \
	    -max_total_time=$(FUZZ_SECONDS) -max_len=4096 -rss_limit_mb=1024 || exit 1; done

fmt: $(DEPS)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	cargo fmt

clean:
	rm -rf .venv .tools target python/ottla/_native*.so

$(BIN)/python:
	$(PYTHON) -m venv .venv

$(DEPS): pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --upgrade --constraint constraints.txt pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group build --group test --group check
	touch $@

$(COMPAT_DEPS): $(DEPS)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group compat
	touch $@

# Installed editable, so that only a change of Rust sources needs a build.
$(NATIVE): $(DEPS) $(RUST_SOURCES)
	PIP_CONSTRAINT=constraints.txt $(BIN)/maturin develop --quiet --profile $(PROFILE)
	$(BIN)/python -m compileall -q python/ottla
	rm -f .venv/.native-*
	touch $@
