#!/usr/bin/env bash
# The engine's own kernels under a sanitizer, on every case of `posteriori check`: check.sh address|thread [OP].
# OP is a text that names of ops contain, all by default. Any report ends the program, and the exit code is not 0.
set -euo pipefail
cd "$(dirname "$0")/../../.."
source kernels/emu/tests/common.sh

mode=${1:-} op=${2:-}
case $mode in
  address)
    emulator_flags=$address kernel_flags=$address runtime=libasan.so
    file=residual/fwd_1_plain.cu edit='/double sum = 0.0;/{n;s/i < end/i <= end/}' report=use-after-poison
    ;;
  thread)
    emulator_flags=-DEMU_TSAN kernel_flags=$thread runtime=libtsan.so
    # The rest of the program is not instrumented, and its locks are unknown to the sanitizer.
    TSAN_OPTIONS+=:ignore_interceptors_accesses=1
    file=common/reduce.cuh edit='s/^  __syncthreads();$//' report="data race"
    ;;
  *) echo "check.sh address|thread [OP]"; exit 2 ;;
esac
out=target/emu-tests/check-$mode

check() {  # LIBRARY OP [--variant|--except VARIANT]
  LD_PRELOAD=$(g++ -print-file-name=$runtime) POSTERIORI_EMU_KERNELS=$PWD/$1 "$posteriori" check --runtime emu --op "${@:2}"
}

cargo build --quiet --features emu
kernels=(kernels/*/*.cu)
if [ -n "$op" ] && [ -d "kernels/${op%%.*}" ]; then kernels=("kernels/${op%%.*}"/*.cu); fi
compile "$out/emulator" "$emulator_flags" kernels/emu/*.cpp
compile "$out/kernels" "$types $kernel_flags" "${kernels[@]}"
plant "$out/planted" residual/fwd_1_plain "$file" "$edit" "$kernel_flags"
link "$out/planted/library.so" "$kernel_flags" "$out"/emulator/*.o "$out/planted/kernel.o"
link "$out/library.so" "$kernel_flags" "$out"/emulator/*.o "$out"/kernels/*.o

# First a planted mistake: that it is reported gives the silence afterwards its meaning.
if check "$out/planted/library.so" residual > "$out/planted/log" 2>&1 || ! grep -q "$report" "$out/planted/log"; then
  echo "FAIL  a planted mistake is reported, see $out/planted/log"
  exit 1
fi

# Each folder's ops in a process of their own, most kernels first, and so are clusters: what a sanitizer keeps of many
# threads burdens no others.
parts() {
  local room
  for room in $(printf '%s\n' "${kernels[@]}" | cut -d / -f 2 | sort | uniq -c | sort -rn | awk '{print $2}'); do
    if grep -q __cluster_dims__ "kernels/$room"/*.cu; then
      printf '%s\n' "$room. --variant cluster" "$room. --except cluster"
    else
      echo "$room."
    fi
  done
}
part() {  # as check, but for the library
  local log="$out/$*.log"
  if check "$out/library.so" "$@" > "$log" 2>&1; then
    echo "$mode, $*: $(tail -n 1 "$log")"
  else
    cat "$log"
    return 255  # xargs begins no other
  fi
}
export -f check part
export mode out runtime posteriori
if [ -n "$op" ]; then check "$out/library.so" "$op"; else parts | xargs -P "$jobs" -L 1 bash -c 'part "$@"' part; fi
