# Every task of this repository. Each installs what it needs first and says so.
# The paths below target/ are promised to readers, so the folder cannot be moved.
unexport CARGO_TARGET_DIR

.PHONY: help setup build demo test torture tenfold lint bench bench-languages bench-peers bench-reload bench-scale audit
.DEFAULT_GOAL := help

help: ## This list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | awk -F'\t' '{ printf "make %-16s %s\n", $$1, $$2 }'

setup: ## Install what the tests need (redis-server, Wasm targets, compilers of other languages into target/tools)
	@.ci/setup test

build: ## target/release/wasmhost and every shipped jumpscript as target/scripts/NAME.wasm
	@.ci/setup build
	@.ci/build

demo: ## Count the words of every file of this repository, one job and one sandbox each
	@.ci/setup demo
	@.ci/build
	@.ci/demo

lint: ## Format, clippy and the documentation's links, as the tests check them
	@.ci/setup build
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --quiet

test: setup lint ## Everything that must hold before a change is taken; REDIS_ADDR names a Redis to use
	cargo test --workspace

torture: setup build ## The engine against its model and under faults, about 40 minutes; CAMPAIGN=kill plays one of the campaigns alone
	$(if $(CAMPAIGN),,MODEL_SEQUENCES=20000 cargo test --package wasmhost --test it engine::model -- --nocapture)
	$(if $(CAMPAIGN),,BAD_WASM_AT_LENGTH=1 cargo test --package wasmhost --test it bad_wasm::files::w1 -- --nocapture)
	CAMPAIGN='$(CAMPAIGN)' WASMHOST_PROGRAM='$(CURDIR)/target/release/wasmhost' cargo test --package wasmhost --test it torture::at_length -- --ignored --nocapture

tenfold: setup ## Raise every limit of a sandbox tenfold in a copy, and demand that the test of each limit fails there
	@.ci/tenfold

bench: setup build ## Measure the sandbox, the queue and HTTP; tables here, figures in target/bench
	cargo bench --package wasmhost --bench sandbox
	target/release/wasmhost bench
	target/release/wasmhost bench --http

bench-scale: setup build ## Measure queues with a million due, scheduled and dead jobs; figures in target/bench/scale.json
	target/release/wasmhost bench --scale

bench-reload: setup build ## Measure how soon new code is live, warm starts and runaway guests; figures in target/bench/reload.json
	javascript=target/scripts/javascript.wasm; \
	target/release/wasmhost bench --reload $$([ ! -f $$javascript ] || echo --javascript $$javascript)

bench-languages: setup ## Measure a fresh sandbox per job in every language; figures in target/bench/languages.json
	cargo bench --package wasmhost --bench languages

bench-peers: ## Measure other job queues and ours in turn; one table here, figures in target/bench/peers.json
	@.ci/setup bench-peers
	@.ci/build
	target/peers/release/measure $(PEERS)

audit: ## Known faults, licences and sources of all dependencies (cargo-deny)
	@.ci/setup audit
	target/tools/bin/cargo-deny --all-features check licenses bans sources --allow duplicate
	target/tools/bin/cargo-deny --all-features check advisories
