#!/usr/bin/env bash
# Makes the conditional score estimators that the studies of scenes compare, over the prior that ships with the crate:
#
#     tools/make_estimators.sh [OUT_DIR]
#
# An hour on two cores. A run that was stopped goes on where its last checkpoint is.
set -euo pipefail
out=${1:-estimators}
cd "$(dirname "$0")/.."
cargo build --release
estimator() {  # NAME TASK DATA...: the settings of tools/make_prior.sh
  target/release/posteriori train cse -o "$out/$1" --model embedded --task "$2" "${@:3}" --steps 1200 --batch 32 \
    --micro 32 --lr 1e-3 --warmup 100 --decay cosine --ema 0.995 --scenes-seed 1 --size 64x64 --seed 1 --device cpu --store f16
}
estimator blur-100 blur:1.5:31 --scenes 100
estimator sr4-25 sr4 --scenes 25
estimator sr4-1000 sr4 --scenes 1000
estimator sr4-self sr4 --self-generated 400
