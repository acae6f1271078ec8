#!/usr/bin/env bash
# Measures the paper's three observations over held-out scenes with the prior that ships with the crate, and prints tables:
#
#     tools/observations.sh [OUT_DIR] [SCENES]
#
# The reference is `sr4-1000` of tools/make_estimators.sh, looked for in estimators/. Half an hour on two cores; what a
# stopped run has finished is not measured again.
set -euo pipefail
out=${1:-observations} scenes=${2:-10}
cd "$(dirname "$0")/.."
cargo build --release
reference=estimators/sr4-1000
diagnose() {  # FOLDER ARGS...
  [ ! -d "$out/$1" ] || return 0
  rm -rf "$out/unfinished"
  target/release/posteriori diagnose "${@:2}" -o "$out/unfinished" --model embedded --task sr4 --device cpu --quiet > /dev/null
  mkdir -p "$(dirname "$out/$1")"
  mv "$out/unfinished" "$out/$1"
}
for ((scene = 0; scene < scenes; ++scene)); do
  diagnose "$scene/score-error" score-error --scene "$scene" --cse embedded --reference "$reference" --steps 50 --zetas 1.6,4.8,9.6
  diagnose "$scene/score-mean" score-mean --scene "$scene" --cse embedded --steps 50 --draws 200 --batch 8
  diagnose "$scene/diversity/reference" diversity --scene "$scene" --cse "$reference" --method ancestral --steps 50 --samples 12 --batch 12
  diagnose "$scene/diversity/dps" diversity --scene "$scene" --method dps --zeta 9.6 --steps 50 --samples 12 --batch 12
  diagnose "$scene/diversity/dmap-same" diversity --scene "$scene" --method dmap-same --zeta 9.6 --steps 25 --samples 12 --batch 12
done
tools/observations.py "$out" "$scenes"
