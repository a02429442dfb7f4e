# The project's commands, thin on purpose. tools/install-needs installs what they need beyond cargo.

.PHONY: demo test lint fuzz bench package

# Boots a throwaway VM with the agent in it, and drives it from the host.
demo:
	@tools/demo

# Every ring of tests there is. A need that is missing skips its tests with a reason, unless VMTEST_REQUIRE=all.
test:
	tools/install-needs
	tools/fetch-kernel
	@# A failure skips the tests that need the disk; they say why.
	-tools/make-debian
	cargo build --workspace
	cargo test --workspace --doc
	cargo test -p qga --features schema --test contract
	tools/fuzz 20
	cargo test --workspace --lib --bins --tests

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo clippy -p qga --all-targets --features schema -- -D warnings
	tools/check-dependencies

# Fuzzes the framer and the arguments, SECONDS per target.
fuzz:
	tools/fuzz $(or $(SECONDS),600)

# Measures the agent against Debian's, and writes docs/benchmarks.md.
bench:
	tools/install-needs
	tools/fetch-kernel
	cargo build --release -p qgad -p vmtest --bin qgad --bin bench --bin vmtest-guest
	target/release/bench --write docs/benchmarks.md target/release/qgad

# Makes target/packages: a .deb, an .rpm, and an archive with one static binary.
package:
	tools/install-needs build package
	-rustup target add $(shell uname -m)-unknown-linux-musl
	tools/package
