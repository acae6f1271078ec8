// A fake libnvrtc.so.13: it compiles nothing, but looks at what it is given and makes something that the fake driver
// takes for code.
#include <vector>

#include "fake.h"

namespace {

enum Result : int { Success = 0, InvalidInput = 3, Compilation = 6 };

struct Program {
  std::string source, name, log, code;
  std::vector<std::string> headers;
};

}  // namespace

extern "C" {

Result nvrtcVersion(int* major, int* minor) { *major = 13; *minor = 0; return Success; }
Result nvrtcGetNumSupportedArchs(int* count) { *count = 5; return Success; }
Result nvrtcGetSupportedArchs(int* archs) {
  const int all[] = {80, 89, 90, 100, 120};
  memcpy(archs, all, sizeof all);
  return Success;
}
const char* nvrtcGetErrorString(Result result) { return result == Success ? "success" : "as the fake NVRTC says"; }

Result nvrtcCreateProgram(Program** program, const char* source, const char* name, int count, const char* const*,
                          const char* const* names) {
  *program = new Program{source, name, "", "", {names, names + count}};
  return Success;
}
Result nvrtcDestroyProgram(Program** program) { delete *program; *program = nullptr; return Success; }
Result nvrtcCompileProgram(Program* program, int count, const char* const* options) {
  std::string arch;
  for (int i = 0; i < count; ++i) {
    if (strncmp(options[i], "--gpu-architecture=", 19) == 0) arch = options[i] + 19;
  }
  fake::log("nvrtc %s %s", program->name.c_str(), arch.c_str());
  // Every file it includes must have come along.
  for (size_t at = 0; (at = program->source.find("#include \"", at)) != std::string::npos; ++at) {
    const size_t start = at + 10, end = program->source.find('"', start);
    const std::string included = program->source.substr(start, end - start);
    bool found = false;
    for (const auto& header : program->headers) found = found || header == included;
    if (!found) program->log += "no header " + included + "\n";
  }
  if (fake::is_set("fail_nvrtc")) program->log += program->name + "(1): error: as FAKE_CUDA wants\n";
  if (arch.empty() || !program->log.empty()) return Compilation;
  program->code = "FAKECUBIN " + program->name + " " + arch;
  return Success;
}
Result nvrtcGetCUBINSize(Program* program, size_t* size) { *size = program->code.size(); return Success; }
Result nvrtcGetCUBIN(Program* program, char* code) {
  memcpy(code, program->code.data(), program->code.size());
  return program->code.empty() ? InvalidInput : Success;
}
Result nvrtcGetProgramLogSize(Program* program, size_t* size) { *size = program->log.size() + 1; return Success; }
Result nvrtcGetProgramLog(Program* program, char* log) {
  memcpy(log, program->log.c_str(), program->log.size() + 1);
  return Success;
}

}  // extern "C"
