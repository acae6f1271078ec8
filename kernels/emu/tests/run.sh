#!/usr/bin/env bash
# Builds the emulator with its test kernels and runs them: run.sh [plain|asan|tsan|all], all by default.
# One line a check; the exit code is not 0 when one failed.
set -uo pipefail
cd "$(dirname "$0")/../../.."
source kernels/emu/tests/common.sh

mode=${1:-all}
out=target/emu-tests

# build NAME KERNEL_FLAGS EMULATOR_FLAGS: the emulator, its tests and their kernels to $out/NAME/driver.
build() {
  local name=$1 folder=$out/$1 kernel_flags=$2 emulator_flags=$3 source room
  mkdir -p "$folder"
  rm -f "$folder"/*.o "$folder"/*.log "$folder"/driver
  {
    for source in kernels/emu/*.cpp; do
      echo "$emulator_flags -c $source -o $folder/emu_$(basename "$source" .cpp).o"
    done
    for source in kernels/emu/tests/*.cpp; do
      echo "$kernel_flags -c $source -o $folder/driver_$(basename "$source" .cpp).o"
    done
    for source in kernels/emu/tests/*.cu; do
      room=$(basename "$(dirname "$source")")
      echo "$kernel_flags -x c++ -c $source -o $folder/kernel_${room}_$(basename "$source" .cu).o"
    done
  } | xargs -P "$jobs" -L 1 g++ $flags > "$folder/log" 2>&1 &&
    g++ $kernel_flags -pthread "$folder"/*.o -o "$folder/driver" >> "$folder/log" 2>&1
  local good=$?
  verdict "$name: builds" $good
  if [ $good != 0 ]; then cat "$folder/log"; return 1; fi
  [ -s "$folder/log" ] && cat "$folder/log"
  [ ! -s "$folder/log" ]
  verdict "$name: without warnings" $?
}

# reported MODE KERNEL WHAT: the fault must end the driver with a report that says so.
reported() {
  local log=$out/$1/$2.log
  timeout 60 "$out/$1/driver" fault "$2" > "$log" 2>&1
  local code=$?
  [ $code != 0 ] && [ $code != 124 ] && grep -q "$3" "$log"
  verdict "$1: fault $2 is reported" $?
}

driver() {  # MODE ARGUMENTS
  local name=$1
  shift
  timeout 300 "$out/$name/driver" "$@"
  verdict "$name: driver $*" $?
}

plain() {
  build plain "" "" && driver plain all 8
}

asan() {
  build asan "$address" "$address" || return
  driver asan right 1
  reported asan block_past_static use-after-poison
  reported asan block_past_dynamic use-after-poison
  reported asan block_just_past_output use-after-poison
  reported asan block_far_past_output "SEGV\|unknown-crash\|use-after-poison"
  reported asan block_division_by_zero "division by zero"
  reported asan block_null_pointer "null pointer"
}

tsan() {
  build tsan "$thread" "-DEMU_TSAN" || return
  driver tsan right 1
  local fault
  for fault in block_no_barrier block_no_barrier_before_reuse block_lost_updates block_no_syncwarp \
    block_no_syncwarp_but_a_shuffle cluster_no_sync cluster_no_sync_before_reuse gemm_no_barrier hopper_early_release hopper_no_full_wait; do
    reported tsan $fault "data race"
  done
}

case $mode in
  plain | asan | tsan) $mode ;;
  all) plain; asan; tsan ;;
  *) echo "run.sh [plain|asan|tsan|all]"; exit 2 ;;
esac
finish emulator
