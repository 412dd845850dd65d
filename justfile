# `just` lists the recipes.
default:
    @just --list

# Both programs, optimised
build:
    cargo build --release --bins

# Everything that `cargo test` runs
test *ARGS:
    cargo test --workspace {{ARGS}}

# Only the tests that start real processes
integration-test *ARGS:
    cargo test -p trandb --test '*' {{ARGS}}

# A sweep of the deterministic simulation over so many seeds (docs/simulation.md)
sim SEEDS="200":
    .ci/run sim {{SEEDS}}

# The documentation, of private modules too
doc *ARGS:
    cargo doc --workspace --no-deps --document-private-items {{ARGS}}

# Line coverage (needs cargo-llvm-cov)
coverage:
    cargo llvm-cov --workspace --html

# Reliability runs on real processes, with figures, all optimised (bin/tests/chaos/main.rs lists the variables)
chaos *ARGS:
    cargo test --release -p trandb --test chaos -- --ignored --nocapture --test-threads=1 {{ARGS}}

# Real processes under faults, their histories judged; then faults planted in debug nodes, which must be found
histories *ARGS:
    cargo test -p trandb --test histories -- --ignored --nocapture --test-threads=1 {{ARGS}}

# A thousand power cuts of each recording of a node under load (bin/tests/power_cuts/main.rs)
power-cuts *ARGS:
    TRANDB_POWER_CUTS=1000 TRANDB_POWER_CUT_MS=12000 cargo test -p trandb --test power_cuts -- --nocapture --test-threads=1 no_cut {{ARGS}}

# Load against a node that is already running
bench *ARGS:
    cargo run --release --bin trandb -- bench {{ARGS}}

# What decides, beside `sim`: what CI runs, without installing anything
check:
    .ci/run check
