// The tests' entry: `driver all [seeds]`, `driver right [seeds]` (no planted faults: for sanitizers), `driver fault
// NAME` (one fault, which a sanitizer must report), `driver speed`.
#include "support.h"

int failures = 0, checks = 0;

int main(int count, char** arguments) {
  const std::string command = count > 1 ? arguments[1] : "all";
  const u64 seeds = count > 2 ? strtoull(arguments[2], nullptr, 10) : 8;
  if (command == "fault") {
    if (count > 2 && run_fault(arguments[2])) return 0;
    fprintf(stderr, "no such fault\n");
    return 2;
  }
  if (command == "speed") {
    measure();
    return 0;
  }
  test_conversions();
  test_units(seeds);
  test_products(seeds);
  if (command == "all") {
    test_interface();
    test_faults(seeds);
  }
  printf("%d checks, %d failed\n", checks, failures);
  return failures ? 1 : 0;
}
