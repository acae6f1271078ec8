#!/usr/bin/env bash
# Everything there is to learn of a GPU in one call: is every kernel right there, how fast is a step, how fast is PyTorch on the
# same machine, and how fast is each kernel.
#
#   tools/gpu.sh PROGRAM OUT
#
# PROGRAM is a `posteriori` built with the feature `cuda`. OUT gets table.txt and logs.tgz with a log and a CSV of each stage, both
# written anew after each. A stage is a process of its own: one that fails, hangs or takes its context with it costs that stage
# only. Ends with the table; exit 1 when a check failed. From the environment:
#
#   CHECKPOINTS  the folder of the tiny checkpoints, NAME or NAME-HASH for each tests/data/fixtures/NAME.safetensors
#                (`cargo test` leaves them in target/tmp/checkpoints); without it nothing is verified against PyTorch
#   MODEL        a full-size SD 2 checkpoint, text encoder and all, for whole steps; without it only launches are timed
#   PEER         a script that times PyTorch and writes into the folder $OUT, with its arguments; without it there is no peer
#   PRECISIONS   those that are verified, f32 bf16 f16 by default; the first 16-bit one, or the last, is benchmarked
#   BATCHES      whole steps of these, 1,4,8,16 by default
#   OPS          those that are timed launch by launch, conv2d attention linear group_norm by default
#   DEVICE       cuda by default; native or emu to try this script where there is no GPU
#   LIMIT        seconds for each stage, 60 by default; PEER_LIMIT for the peer, 240
set -uo pipefail
program=$(realpath "$1")
out=$(mkdir -p "$2" && realpath "$2")
for name in CHECKPOINTS MODEL; do
  [ -z "${!name:-}" ] || declare "$name=$(realpath "${!name}")"
done
cd "$(dirname "$0")/.." || exit
device=${DEVICE:-cuda}
precisions=${PRECISIONS:-f32 bf16 f16}
for timed in $precisions; do
  [ "$timed" = f32 ] || break
done
case $device in native) flag=cpu ;; *) flag=$device ;; esac

# The driver and NVRTC, where containers and PyTorch's wheels keep them. Only for this program: PyTorch knows its own.
libraries=${LD_LIBRARY_PATH:-}
for dir in /usr/local/nvidia/lib64 /usr/lib/x86_64-linux-gnu \
  $(python3 -c 'import nvidia, glob; print(*[d for p in nvidia.__path__ for d in glob.glob(p + "/*/lib")])' 2>/dev/null); do
  libraries=${libraries:+$libraries:}$dir
done
posteriori=(env "LD_LIBRARY_PATH=$libraries" "$program")

logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
table=()
failed=0
told() { table+=("$(printf '%-28s rc %3d %5d s  %s' "$1" "$2" "$3" "$(tail -n 1 "$logs/$1.log" | cut -c -100)")"); }
# stage NAME KIND COMMAND..: runs it into NAME.log; the last line of what it says goes to the table. KIND: check, bench, or
# part, of which only one that failed is told.
stage() {
  local name=$1 kind=$2 begun=$SECONDS
  shift 2
  timeout -k 5 "${limit:-${LIMIT:-60}}" "$@" >"$logs/$name.log" 2>&1
  local rc=$?
  [ $rc -eq 0 ] || [ "$kind" = bench ] || failed=1
  [ $rc -eq 0 ] && [ "$kind" = part ] || told "$name" $rc $((SECONDS - begun))
  printf '%s\n' "${table[@]}" >"$out/table.txt"
  tar czf "$out/logs.tgz" -C "$logs" .
}

{
  date -u
  nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm --format=csv 2>/dev/null
  git log -1 --format='%h %s' 2>/dev/null
} >"$logs/machine.log" 2>&1

stage doctor check "${posteriori[@]}" doctor --device "$flag"

begun=$SECONDS before=$failed
failed=0
for kernels in kernels/*/; do
  family=$(basename "$kernels")
  case $family in common | emu) continue ;; esac
  stage "check-$family" part "${posteriori[@]}" check --runtime "$device" --op "$family."
done
tail -qn 1 "$logs"/check-*.log | awk '{ ok += $1; bad += $3 } END { print ok " passed, " bad " failed" }' >"$logs/check.log"
told check $failed $((SECONDS - begun))
failed=$((failed | before))

if [ -n "${CHECKPOINTS:-}" ]; then
  for goldens in tests/data/fixtures/tiny-*.safetensors; do
    model=$(basename "$goldens" .safetensors)
    for precision in $precisions; do
      folder=$(printf '%s\n' "$CHECKPOINTS/$model" "$CHECKPOINTS/$model"-* | while read -r f; do [ ! -d "$f" ] || echo "$f"; done | head -n 1)
      stage "verify-$model-$precision" check "${posteriori[@]}" verify --device "$flag" --precision "$precision" \
        --model "${folder:-$CHECKPOINTS/$model}" --goldens "$goldens"
    done
  done
fi

sd2=(--model "${MODEL:-tests/data/sd2-base}" --task sr8 --method dps --precision "$timed")
if [ -n "${MODEL:-}" ]; then
  for batch in $(tr , ' ' <<<"${BATCHES:-1,4,8,16}"); do
    stage "steps-$batch" bench "${posteriori[@]}" bench --runtime "$device" "${sd2[@]}" --step="$batch"
  done
fi
if [ -n "${PEER:-}" ]; then
  # shellcheck disable=SC2086 # with its arguments
  OUT=$logs/peer limit=${PEER_LIMIT:-240} stage peer bench python3 $PEER
fi
for op in ${OPS:-conv2d attention linear group_norm}; do
  stage "launches-$op" bench "${posteriori[@]}" bench --runtime "$device" "${sd2[@]}" --batch 4 --op "$op." --csv "$logs/launches-$op.csv"
done
stage kernels bench "${posteriori[@]}" bench --runtime "$device" --csv "$logs/kernels.csv"

cat "$logs/machine.log"
cat "$logs"/steps-*.log 2>/dev/null
printf '%s\n' "${table[@]}" | tee "$out/table.txt"
exit $failed
