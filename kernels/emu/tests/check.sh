#!/usr/bin/env bash
# The engine's own kernels under a sanitizer, on every case of `posteriori check`: check.sh address|thread [OP].
# OP is a text that names of ops contain, all by default. Any report ends the program, and the exit code is not 0.
set -euo pipefail
cd "$(dirname "$0")/../../.."
source kernels/emu/tests/common.sh

mode=${1:-} op=${2:-}
out=target/emu-tests/library-$mode
case $mode in
  address)
    emulator_flags=$address kernel_flags=$address runtime=libasan.so
    ;;
  thread)
    emulator_flags=-DEMU_TSAN kernel_flags=$thread runtime=libtsan.so
    # The rest of the program is not instrumented, and its locks are unknown to the sanitizer.
    TSAN_OPTIONS+=:ignore_interceptors_accesses=1
    ;;
  *) echo "check.sh address|thread [OP]"; exit 2 ;;
esac

cargo build --quiet --features emu
kernels=(kernels/*/*.cu)
if [ -d "kernels/${op%%.*}" ] && [ -n "$op" ]; then kernels=("kernels/${op%%.*}"/*.cu); fi
compile "$out" "$emulator_flags" kernels/emu/*.cpp
compile "$out" "$kernel_flags" "${kernels[@]}"
g++ -shared $kernel_flags -pthread "$out"/*.o -o "$out/library.so"
LD_PRELOAD=$(g++ -print-file-name=$runtime) POSTERIORI_EMU_KERNELS=$PWD/$out/library.so \
  "$posteriori" check --runtime emu --op "$op"
