// What both fake libraries share: the switches that make them misbehave, and a log of what was asked of them.
//
// FAKE_CUDA holds words: `no_device`, `driver=12040`, `arch=75`, `memory=1000000`, .. FAKE_CUDA_LOG names a file.
#pragma once
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

namespace fake {

// The text behind `name=`, empty for a bare `name`; null when the word is not there.
inline const char* text(const char* name) {
  static thread_local std::string value;
  const char* words = getenv("FAKE_CUDA");
  const size_t length = strlen(name);
  for (const char* at = words ? words : ""; *at; at += strcspn(at, " "), at += strspn(at, " ")) {
    const size_t word = strcspn(at, " ");
    if (word < length || strncmp(at, name, length) != 0) continue;
    if (word == length) return "";
    if (at[length] != '=') continue;
    value.assign(at + length + 1, word - length - 1);
    return value.c_str();
  }
  return nullptr;
}

inline bool is_set(const char* name) { return text(name) != nullptr; }

inline long long number(const char* name, long long otherwise) {
  const char* value = text(name);
  return value ? atoll(value) : otherwise;
}

__attribute__((format(printf, 1, 2))) inline void log(const char* format, ...) {
  const char* path = getenv("FAKE_CUDA_LOG");
  FILE* file = path ? fopen(path, "a") : nullptr;
  if (!file) return;
  va_list list;
  va_start(list, format);
  vfprintf(file, format, list);
  va_end(list);
  fputc('\n', file);
  fclose(file);
}

}  // namespace fake
