# Read by the scripts beside it, in the root of the repository: how the host compiler takes kernels, and verdicts.

jobs=2
flags="-std=c++17 -O2 -g1 -fno-strict-aliasing -ffp-contract=off -fno-exceptions -fstack-clash-protection"
flags+=" -Wall -Wextra -Wno-unknown-pragmas -Wno-unused-parameter -Wno-psabi -Ikernels/common -Ikernels/emu"
# Kernels and emulator alike.
address="-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer"
# Kernels only: the emulator, which is given -DEMU_TSAN, tells the sanitizer what the emulated instructions do.
thread="-fsanitize=thread"
# The engine's kernels: f16 has the source of bf16, and with it mistakes and races.
types="-DWITHOUT_F16"
export ASAN_OPTIONS=detect_leaks=0:detect_stack_use_after_return=0
export TSAN_OPTIONS=halt_on_error=1:exitcode=66:report_signal_unsafe=0

failed=0
verdict() {  # description, 0 when good
  if [ "$2" = 0 ]; then echo "ok    $1"; else echo "FAIL  $1"; failed=$((failed + 1)); fi
}
finish() {  # what was tested
  if [ $failed = 0 ]; then echo "$1: all good"; else echo "$1: $failed failed"; exit 1; fi
}

# The program with the emulated runtime, which takes kernels from the library that POSTERIORI_EMU_KERNELS names.
posteriori=${CARGO_TARGET_DIR:-target}/debug/posteriori

# compile FOLDER FLAGS SOURCE...: for a library, those that have changed since the last time.
compile() {
  local folder=$1 more=$2 source object kind
  shift 2
  mkdir -p "$folder"
  for source in "$@"; do
    object=$folder/$(basename "$(dirname "$source")")_$(basename "$source").o
    if [ -e "$object" ] && [ -z "$(find "$source" kernels/common kernels/emu/*.h -newer "$object")" ]; then continue; fi
    kind=""
    [ "$source" != "${source%.cu}" ] && kind="-x c++"
    echo "$kind -c $source -o $object"
  done | xargs -r -P "$jobs" -L 1 g++ $flags $more -fPIC -ftls-model=initial-exec
}

# link LIBRARY FLAGS OBJECT...
link() { g++ -shared -pthread $2 "${@:3}" -o "$1"; }

# plant FOLDER KERNEL FILE EDIT FLAGS: compiles KERNEL with a mistake, which EDIT, for sed, makes in one line of FILE.
plant() {
  local folder=$1 kernel=$2 file=$3 edit=$4 more=$5
  mkdir -p "$folder" && cp -r kernels/common "kernels/${kernel%/*}" "$folder" && sed -i "$edit" "$folder/$file" || return
  if [ "$(diff "kernels/$file" "$folder/$file" | grep -c '^<')" != 1 ]; then echo "edits no line, or many"; return 1; fi
  g++ -I"$folder/common" $flags $types $more -fPIC -ftls-model=initial-exec -x c++ -c "$folder/$kernel.cu" -o "$folder/kernel.o"
}
