#!/usr/bin/env bash
# Makes the prior that ships with the crate, and its conditional score estimator, from nothing but seeds:
#
#     tools/make_prior.sh OUT_DIR
#
# About an hour and a half on two cores. A run that was stopped goes on where its last checkpoint is.
set -euo pipefail
out=${1:?where the model folder goes}
cd "$(dirname "$0")/.."
cargo build --release
train() { target/release/posteriori train "$@" --scenes-seed 1 --size 64x64 --seed 1 --device cpu --store f16; }

train autoencoder -o "$out" --scenes 1000000 --augment none --steps 5000 --batch 8 --micro 8 \
  --lr 1e-3 --warmup 100 --decay cosine --ema 0.998 --weight-decay 0 --kl-weight 3e-5
train denoiser -o "$out" --scenes 1000000 --augment none --steps 3500 --batch 32 --micro 32 \
  --lr 1.5e-3 --warmup 100 --decay cosine --ema 0.999 --weight-decay 0
train cse -o "$out/cse-sr4" --model "$out" --task sr4 --scenes 100 --steps 1200 --batch 32 --micro 32 \
  --lr 1e-3 --warmup 100 --decay cosine --ema 0.995
# What ships: no state of training, no curves.
rm -f "$out"/{vae,unet,cse-sr4}/{training.safetensors,loss.svg}
