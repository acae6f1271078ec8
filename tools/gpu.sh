#!/usr/bin/env bash
# Everything there is to learn of a GPU in one call: is every kernel right there, how fast is each, how fast is a step, and
# how fast is PyTorch on the same machine right after.
#
#   tools/gpu.sh PROGRAM OUT
#
# PROGRAM is a `posteriori` built with the feature `cuda`; OUT gets a log and a CSV for each stage. A stage that fails or takes
# too long costs that stage only. Ends with a short table; exit 1 when a check failed. From the environment:
#
#   CHECKPOINTS  the tiny checkpoints, NAME or NAME-HASH for each tests/data/fixtures/NAME.safetensors (`cargo test` leaves
#                them in target/tmp/checkpoints); without it nothing is verified against PyTorch
#   MODEL        a full-size SD 2 checkpoint for whole steps; without it only launches are timed
#   PEER         a script that times PyTorch and writes into the folder $OUT; without it there is no peer
#   PRECISIONS   those that are verified, f32 bf16 f16 by default; the first 16-bit one, or the last, is benchmarked
#   DEVICE       cuda by default; native or emu to try this script where there is no GPU
#   LIMIT        seconds for each stage, 180 by default
set -uo pipefail
program=$(realpath "$1")
out=$(mkdir -p "$2" && realpath "$2")
cd "$(dirname "$0")/.." || exit
device=${DEVICE:-cuda}
precisions=${PRECISIONS:-f32 bf16 f16}
for timed in $precisions; do
  [ "$timed" = f32 ] || break
done
case $device in native) flag=cpu ;; *) flag=$device ;; esac

# The driver and NVRTC, where containers and PyTorch's wheels keep them.
for dir in /usr/local/nvidia/lib64 /usr/lib/x86_64-linux-gnu \
  $(python3 -c 'import nvidia, glob; print(*[d for p in nvidia.__path__ for d in glob.glob(p + "/*/lib")])' 2>/dev/null); do
  LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$dir
done
export LD_LIBRARY_PATH

table=()
failed=0
# stage NAME KIND COMMAND..: runs it into OUT/NAME.log; the last line of what it says goes to the table. KIND: check, bench.
stage() {
  local name=$1 kind=$2 begun=$SECONDS
  shift 2
  timeout "${LIMIT:-180}" "$@" >"$out/$name.log" 2>&1
  local rc=$?
  [ $rc -eq 0 ] || [ "$kind" != check ] || failed=1
  table+=("$(printf '%-28s rc %3d %5d s  %s' "$name" $rc $((SECONDS - begun)) "$(tail -n 1 "$out/$name.log" | cut -c -100)")")
}

{
  date -u
  nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm --format=csv 2>/dev/null
  git log -1 --format='%h %s' 2>/dev/null
} >"$out/machine.log" 2>&1

stage doctor check "$program" doctor --device "$flag"
stage check check "$program" check --runtime "$device"
if [ -n "${CHECKPOINTS:-}" ]; then
  for goldens in tests/data/fixtures/tiny-*.safetensors; do
    model=$(basename "$goldens" .safetensors)
    for precision in $precisions; do
      for folder in "$CHECKPOINTS/$model" "$CHECKPOINTS/$model"-*; do
        [ ! -d "$folder" ] ||
          stage "verify-$model-$precision" check "$program" verify --device "$flag" --precision "$precision" \
            --model "$folder" --goldens "$goldens"
      done
    done
  done
fi
sd2=(--model "${MODEL:-tests/data/sd2-base}" --task sr8 --method dps --precision "$timed")
stage bench-kernels bench "$program" bench --runtime "$device" --csv "$out/kernels.csv"
for batch in 1 4; do
  stage "bench-launches-$batch" bench "$program" bench --runtime "$device" "${sd2[@]}" --batch $batch --csv "$out/launches-$batch.csv"
done
if [ -n "${MODEL:-}" ]; then
  stage steps bench "$program" bench --runtime "$device" "${sd2[@]}" --step=1,4,8,16
fi
if [ -n "${PEER:-}" ]; then
  OUT=$out/peer stage peer bench python3 "$PEER"
fi

cat "$out/machine.log"
[ ! -f "$out/steps.log" ] || cat "$out/steps.log"
printf '%s\n' "${table[@]}"
exit $failed
