// A fake libcuda.so.1: the driver's entry points that this project calls, over the emulator. It is no GPU; it tests
// the code that talks to one.
//
// It is as late as a driver may be: what is enqueued happens when somebody waits for it, with pinned memory read only
// then. And it is as strict: addresses must be inside allocations; what is not allowed during a capture is an error.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <vector>

#include "fake.h"

extern "C" {
const void* emu_function(const char* name);
uint32_t emu_arg_count(const void* function);
uint32_t emu_arg_size(const void* function, uint32_t i);
struct emu_schedule { uint32_t threads, order, async, pad; uint64_t seed; };
int32_t emu_launch(const void* function, const uint32_t grid[3], const uint32_t block[3], uint32_t smem, void** args,
                   const emu_schedule* schedule, char* error, size_t error_length);
int emu_tensor_map(void* map, int rank, int element_bytes, void* base, const uint64_t* dims, const uint64_t* strides,
                   const uint32_t* box, int swizzle_bytes, char* error, size_t error_length);
void* emu_alloc(size_t bytes);
void emu_free(void* start, size_t bytes);
}

namespace {

enum Result : int {
  Success = 0,
  InvalidValue = 1,
  OutOfMemory = 2,
  NoDevice = 100,
  InvalidDevice = 101,
  InvalidImage = 200,
  NoBinaryForGpu = 209,
  NotFound = 500,
  IllegalAddress = 700,
  CaptureUnsupported = 900,
};

using Work = std::function<Result()>;

struct Stream {
  std::vector<Work> pending;
  std::vector<Work>* capture = nullptr;
};
struct Event {
  Stream* stream = nullptr;
  std::chrono::steady_clock::time_point passed;
};
struct Graph { std::vector<Work> nodes; };

struct Function {
  const void* kernel;
  std::string name;
  uint32_t shared = 48 << 10;
};

std::recursive_mutex lock;
std::map<uint64_t, size_t> allocations;
std::map<uint64_t, size_t> pinned;
std::map<std::string, Function> functions;
size_t used = 0;
long long launches = 0, allocated = 0;
Result broken = Success;  // an error of a kernel stays

// Whether [at, at + bytes) is inside one of the ranges.
bool inside(const std::map<uint64_t, size_t>& ranges, uint64_t at, size_t bytes) {
  auto range = ranges.upper_bound(at);
  if (range == ranges.begin()) return false;
  --range;
  return at + bytes <= range->first + range->second;
}

Result drain(Stream* stream) {
  if (stream->capture) return CaptureUnsupported;
  std::vector<Work> work;
  work.swap(stream->pending);
  for (const Work& one : work) {
    if (broken != Success) break;
    broken = one();
  }
  return broken;
}

Result enqueue(Stream* stream, Work work) {
  if (broken != Success) return broken;
  (stream->capture ? *stream->capture : stream->pending).push_back(std::move(work));
  return Success;
}

// A kernel with copies of its arguments, as a driver makes them.
struct Launch {
  Function* function;
  uint32_t grid[3], block[3], shared;
  std::vector<std::vector<unsigned char>> args;

  Result operator()() const {
    auto values = args;
    std::vector<void*> pointers;
    for (auto& value : values) pointers.push_back(value.data());
    if (++launches == fake::number("fail_launch", 0)) return IllegalAddress;
    const emu_schedule schedule = {2, 0, 0, 0, 1};
    char error[4096];
    if (emu_launch(function->kernel, grid, block, shared, pointers.data(), &schedule, error, sizeof error) == 0) {
      return Success;
    }
    fake::log("error %s", error);
    return IllegalAddress;
  }
};

int attribute(int which) {
  const int arch = static_cast<int>(fake::number("arch", 90));
  switch (which) {
    case 16: return 2;                  // multiprocessors
    case 38: return 1 << 20;            // L2 cache
    case 75: return arch / 10;          // compute capability, major
    case 76: return arch % 10;          // .. minor
    case 97: return 227 << 10;          // shared memory of a block, opted in
    default: return 0;
  }
}

size_t memory() { return static_cast<size_t>(fake::number("memory", 1ll << 30)); }

}  // namespace

#define LOCKED std::lock_guard<std::recursive_mutex> locked(lock)

extern "C" {

Result cuDriverGetVersion(int* version) {
  *version = static_cast<int>(fake::number("driver", 13000));
  return Success;
}
Result cuInit(unsigned) { return fake::is_set("no_device") ? NoDevice : Success; }
Result cuDeviceGetCount(int* count) { *count = 1; return Success; }
Result cuDeviceGet(int* device, int ordinal) { *device = ordinal; return ordinal == 0 ? Success : InvalidDevice; }
Result cuDeviceGetName(char* name, int length, int) {
  snprintf(name, static_cast<size_t>(length), "Fake GPU (an emulator)");
  return Success;
}
Result cuDeviceGetAttribute(int* value, int which, int) { *value = attribute(which); return Success; }
Result cuDeviceTotalMem_v2(size_t* bytes, int) { *bytes = memory(); return Success; }
Result cuDevicePrimaryCtxRetain(void** context, int) { *context = &lock; return Success; }
Result cuDevicePrimaryCtxRelease_v2(int) { return Success; }
Result cuCtxSetCurrent(void*) { return Success; }
Result cuGetErrorName(Result error, const char** name) {
  static const std::map<Result, const char*> names = {
      {InvalidValue, "CUDA_ERROR_INVALID_VALUE"}, {OutOfMemory, "CUDA_ERROR_OUT_OF_MEMORY"},
      {NoDevice, "CUDA_ERROR_NO_DEVICE"}, {InvalidDevice, "CUDA_ERROR_INVALID_DEVICE"},
      {InvalidImage, "CUDA_ERROR_INVALID_IMAGE"}, {NoBinaryForGpu, "CUDA_ERROR_NO_BINARY_FOR_GPU"},
      {NotFound, "CUDA_ERROR_NOT_FOUND"}, {IllegalAddress, "CUDA_ERROR_ILLEGAL_ADDRESS"},
      {CaptureUnsupported, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"}};
  const auto found = names.find(error);
  *name = found == names.end() ? "CUDA_ERROR_UNKNOWN" : found->second;
  return Success;
}
Result cuGetErrorString(Result, const char** text) { *text = "as the fake driver says"; return Success; }

// ---- memory -------------------------------------------------------------------------------------------------------

Result cuMemGetInfo_v2(size_t* free, size_t* total) {
  LOCKED;
  *total = memory();
  *free = *total > used ? *total - used : 0;
  return Success;
}
Result cuMemAlloc_v2(uint64_t* address, size_t bytes) {
  LOCKED;
  if (broken != Success) return broken;
  if (++allocated == fake::number("fail_alloc", 0) || used + bytes > memory()) return OutOfMemory;
  void* start = emu_alloc(bytes);
  if (!start) return OutOfMemory;
  *address = reinterpret_cast<uint64_t>(start);
  allocations[*address] = bytes;
  used += bytes;
  return Success;
}
Result cuMemFree_v2(uint64_t address) {
  LOCKED;
  const auto found = allocations.find(address);
  if (found == allocations.end()) return InvalidValue;
  used -= found->second;
  emu_free(reinterpret_cast<void*>(address), found->second);
  allocations.erase(found);
  return broken;
}
Result cuMemHostAlloc(void** start, size_t bytes, unsigned flags) {
  LOCKED;
  if (flags != 0) return InvalidValue;
  *start = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
  pinned[reinterpret_cast<uint64_t>(*start)] = bytes;
  return Success;
}
Result cuMemFreeHost(void* start) {
  LOCKED;
  if (pinned.erase(reinterpret_cast<uint64_t>(start)) == 0) return InvalidValue;
  free(start);
  return Success;
}
Result cuMemcpyHtoDAsync_v2(uint64_t to, const void* from, size_t bytes, Stream* stream) {
  LOCKED;
  if (!inside(allocations, to, bytes)) return InvalidValue;
  if (inside(pinned, reinterpret_cast<uint64_t>(from), bytes)) {
    return enqueue(stream, [=] { memcpy(reinterpret_cast<void*>(to), from, bytes); return Success; });
  }
  if (stream->capture) return CaptureUnsupported;
  const auto* start = static_cast<const unsigned char*>(from);
  std::vector<unsigned char> copy(start, start + bytes);
  return enqueue(stream, [=] { memcpy(reinterpret_cast<void*>(to), copy.data(), bytes); return Success; });
}
Result cuMemcpyDtoHAsync_v2(void* to, uint64_t from, size_t bytes, Stream* stream) {
  LOCKED;
  if (!inside(allocations, from, bytes)) return InvalidValue;
  const auto copy = [=] { memcpy(to, reinterpret_cast<const void*>(from), bytes); return Success; };
  if (inside(pinned, reinterpret_cast<uint64_t>(to), bytes)) return enqueue(stream, copy);
  const Result before = drain(stream);
  return before == Success ? copy() : before;
}
Result cuMemsetD8Async(uint64_t to, unsigned char value, size_t bytes, Stream* stream) {
  LOCKED;
  if (!inside(allocations, to, bytes)) return InvalidValue;
  return enqueue(stream, [=] { memset(reinterpret_cast<void*>(to), value, bytes); return Success; });
}

// ---- modules and launches -----------------------------------------------------------------------------------------

Result cuModuleLoadData(void** module, const void* image) {
  LOCKED;
  const bool fatbin = memcmp(image, "\x50\xed\x55\xba", 4) == 0;
  const bool cubin = memcmp(image, "\x7f" "ELF", 4) == 0 || memcmp(image, "FAKECUBIN", 9) == 0;
  if (fatbin && fake::is_set("refuse_fatbins")) return NoBinaryForGpu;
  if (!fatbin && !cubin) return InvalidImage;
  *module = &functions;
  fake::log("load %s", fatbin ? "fatbin" : "cubin");
  return Success;
}
Result cuModuleGetFunction(Function** function, void*, const char* name) {
  LOCKED;
  const void* kernel = emu_function(name);
  if (!kernel) return NotFound;
  *function = &functions.emplace(name, Function{kernel, name}).first->second;
  return Success;
}
Result cuFuncLoad(Function*) { return Success; }
#ifndef FAKE_OLD_SYMBOLS
Result cuFuncGetParamInfo(Function* function, size_t index, size_t* offset, size_t* size) {
  if (index >= emu_arg_count(function->kernel)) return InvalidValue;
  *offset = 0;
  *size = emu_arg_size(function->kernel, static_cast<uint32_t>(index));
  return Success;
}
#endif
Result cuFuncSetAttribute(Function* function, int which, int value) {
  LOCKED;
  if (which != 8 || value > attribute(97)) return InvalidValue;  // dynamic shared memory
  function->shared = static_cast<uint32_t>(value);
  return Success;
}
Result cuTensorMapEncodeTiled(void* map, int type, uint32_t rank, void* base, const uint64_t* dims,
                              const uint64_t* strides, const uint32_t* box, const uint32_t* steps, int interleave,
                              int swizzle, int, int fill) {
  LOCKED;
  const bool halves = type == 1, dense = std::all_of(steps, steps + rank, [](uint32_t step) { return step == 1; });
  if (!halves || !dense || interleave != 0 || swizzle != 3 || fill != 0 || rank < 2) return InvalidValue;
  const uint64_t at = reinterpret_cast<uint64_t>(base);
  if (!inside(allocations, at, strides[rank - 2] * dims[rank - 1])) return InvalidValue;
  char error[256];
  return emu_tensor_map(map, static_cast<int>(rank), 2, base, dims, strides, box, 128, error, sizeof error) ? InvalidValue
                                                                                                            : Success;
}
Result cuLaunchKernel(Function* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                      unsigned shared, Stream* stream, void** args, void**) {
  LOCKED;
  if (shared > function->shared || gx * gy * gz == 0 || bx * by * bz == 0 || bx * by * bz > 1024) return InvalidValue;
  Launch launch = {function, {gx, gy, gz}, {bx, by, bz}, shared, {}};
  for (uint32_t i = 0; i < emu_arg_count(function->kernel); ++i) {
    const auto* value = static_cast<unsigned char*>(args[i]);
    launch.args.emplace_back(value, value + emu_arg_size(function->kernel, i));
  }
  fake::log("%s %s", stream->capture ? "capture" : "launch", function->name.c_str());
  return enqueue(stream, launch);
}

// ---- streams, events, graphs --------------------------------------------------------------------------------------

Result cuStreamCreate(Stream** stream, unsigned) { *stream = new Stream; return Success; }
Result cuStreamDestroy_v2(Stream* stream) { delete stream; return Success; }
Result cuStreamSynchronize(Stream* stream) { LOCKED; return drain(stream); }
Result cuStreamBeginCapture_v2(Stream* stream, int) {
  LOCKED;
  if (stream->capture) return CaptureUnsupported;
  stream->capture = new std::vector<Work>;
  return Success;
}
Result cuStreamEndCapture(Stream* stream, Graph** graph) {
  LOCKED;
  if (!stream->capture) return InvalidValue;
  *graph = new Graph{*stream->capture};
  delete stream->capture;
  stream->capture = nullptr;
  return Success;
}
Result cuGraphInstantiateWithFlags(Graph** executable, Graph* graph, unsigned long long) {
  fake::log("instantiate");
  *executable = new Graph(*graph);
  return Success;
}
Result cuGraphDestroy(Graph* graph) { delete graph; return Success; }
Result cuGraphExecDestroy(Graph* graph) { fake::log("destroy graph"); delete graph; return Success; }
Result cuGraphLaunch(Graph* graph, Stream* stream) {
  LOCKED;
  if (stream->capture) return CaptureUnsupported;
  fake::log("graph");
  for (const Work& node : graph->nodes) {
    const Result result = enqueue(stream, node);
    if (result != Success) return result;
  }
  return Success;
}
Result cuEventCreate(Event** event, unsigned) { *event = new Event; return Success; }
Result cuEventDestroy_v2(Event* event) {
  LOCKED;
  if (event->stream) drain(event->stream);
  delete event;
  return Success;
}
Result cuEventRecord(Event* event, Stream* stream) {
  LOCKED;
  if (stream->capture) return CaptureUnsupported;
  event->stream = stream;
  return enqueue(stream, [=] { event->passed = std::chrono::steady_clock::now(); return Success; });
}
Result cuEventSynchronize(Event* event) {
  LOCKED;
  return event->stream ? drain(event->stream) : Success;
}
Result cuEventElapsedTime_v2(float* milliseconds, Event* start, Event* end) {
  *milliseconds = std::chrono::duration<float, std::milli>(end->passed - start->passed).count();
  return Success;
}

}  // extern "C"
