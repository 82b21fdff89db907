#!/bin/sh
# Builds one target with coverage and runs it: run.sh TARGET SECONDS [CORPUS], from anywhere.
# Stable Rust does; `cargo fuzz` (with nightly) works too and adds the address sanitizer.
set -eu
target=$1
seconds=$2
here=$(cd "$(dirname "$0")" && pwd)
folder=${PTUNE_FUZZ_FOLDER:-${TMPDIR:-/tmp}/ptune-fuzz}
mkdir -p "$folder/$target/corpus" "$folder/$target/artifacts"
python3 "$here/seeds.py" "$target" "$folder/$target/corpus" ${3:+"$3"}
coverage="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares"
cd "$here"
RUSTFLAGS="--cfg fuzzing $coverage -Ccodegen-units=1" \
CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$folder/target}" \
    cargo build --release --target x86_64-unknown-linux-gnu --bin "$target"
exec "${CARGO_TARGET_DIR:-$folder/target}/x86_64-unknown-linux-gnu/release/$target" \
    -max_total_time="$seconds" -timeout=5 -rss_limit_mb=3000 -max_len=4096 \
    -dict="$here/words.dict" -artifact_prefix="$folder/$target/artifacts/" -print_final_stats=1 \
    "$folder/$target/corpus"
