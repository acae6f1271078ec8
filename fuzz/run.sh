#!/usr/bin/env bash
# Fuzzes the readers of files: fuzz/run.sh TARGET|all [SECONDS|-runs=N]; 60 seconds by default. `list` names the targets.
#
# libFuzzer on stable Rust, with debug assertions and overflow checks, memory and time of an input limited. It starts from
# corpus/TARGET and keeps what it finds in target/corpus/TARGET; an input that fails is written to target/artifacts.
# POSTERIORI_FUZZ_MINIMISE=1 writes the smallest set of both that reaches as much back to corpus/TARGET.
set -euo pipefail
cd "$(dirname "$0")"
target=${1:?wanted a target, all or list} limit=${2:-60}
all=$(sed -n 's/^name = "\([a-z_]*\)"$/\1/p' Cargo.toml)
case $target in
  list) echo "$all"; exit ;;
  all) ;;
  *) grep -qx "$target" <<< "$all" || { echo "wanted one of" $all >&2; exit 2; }; all=$target ;;
esac
case $limit in -runs=*) ;; *) limit=-max_total_time=$limit ;; esac

host=$(rustc -vV | sed -n 's/^host: //p')
# What `cargo fuzz -s none --strip-dead-code` passes; pulp holds code that must stay dead. `--cfg fuzzing` makes png and
# others take wrong checksums.
export RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares -Cllvm-args=-simplifycfg-branch-fold-threshold=0 \
-Ccodegen-units=1 -Cdebug-assertions -Coverflow-checks"
cargo build --release --locked --target "$host" $(printf -- '--bin %s ' $all)
out=$(cargo metadata --format-version 1 --no-deps --locked | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')

# Files are written for every input: in memory, where there is such a folder.
if [ -d /dev/shm ] && [ -z "${TMPDIR:-}" ]; then export TMPDIR=/dev/shm; fi
for name in $all; do
  echo "== $name"
  mkdir -p "target/corpus/$name" "target/artifacts/$name"
  # Longest inputs of each. Images may take a gibibyte by the library's own limit; everything else is small.
  case $name in
    image) length=4096 memory=1400 ;;
    png_text | safetensors | goldens | shards | plan | tokenizer) length=4096 memory=512 ;;
    task | prompt | table) length=256 memory=256 ;;
    *) length=2048 memory=512 ;;
  esac
  dict=()
  [ ! -f "dict/$name" ] || dict=("-dict=dict/$name")
  if [ -n "${POSTERIORI_FUZZ_MINIMISE:-}" ]; then
    mkdir -p "target/minimal/$name"
    find "target/minimal/$name" -type f -delete
    "$out/$host/release/$name" -set_cover_merge=1 -use_counters=0 -timeout=10 -rss_limit_mb=$((memory + 1024)) -malloc_limit_mb="$memory" \
      "target/minimal/$name" "corpus/$name" "target/corpus/$name"
    rm -rf "corpus/$name" && mv "target/minimal/$name" "corpus/$name"
    continue
  fi
  "$out/$host/release/$name" "$limit" -max_len="$length" -timeout=10 -rss_limit_mb=$((memory + 1024)) \
    -malloc_limit_mb="$memory" -print_final_stats=1 "${dict[@]}" -artifact_prefix="target/artifacts/$name/" \
    "target/corpus/$name" "corpus/$name"
done
