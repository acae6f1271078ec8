// Scalar functions in float, the same formulas as the native engine's (src/dtype.rs).
#pragma once
#include "arch.cuh"

namespace math {

ARCH_FN float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

ARCH_FN float silu(float x) { return x * sigmoid(x); }

// d silu / dx
ARCH_FN float silu_slope(float x) {
  const float s = sigmoid(x);
  return s + x * s * (1.0f - s);
}

// x Phi(x), Phi by erf
ARCH_FN float gelu(float x) { return 0.5f * x * (1.0f + erff(x * 0.70710678118654752f)); }

// Phi(x) + x phi(x)
ARCH_FN float gelu_slope(float x) {
  const float below = 0.5f * (1.0f + erff(x * 0.70710678118654752f));
  return below + x * 0.39894228040143268f * expf(-0.5f * x * x);
}

}  // namespace math
