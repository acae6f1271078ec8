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

// Puts da and dg in the places of a and g: d is the cotangent of a gelu(g).
ARCH_FN void geglu_vjp(float& a, float& g, float d) {
  const float da = d * gelu(g), dg = d * a * gelu_slope(g);
  a = da;
  g = dg;
}

// x sigmoid(1.702 x): CLIP's
ARCH_FN float quick_gelu(float x) { return x * sigmoid(1.702f * x); }

ARCH_FN float quick_gelu_slope(float x) { return silu_slope(1.702f * x); }

// An activation as a type: `of(x)` and its slope.
struct Silu {
  ARCH_FN float of(float x) { return silu(x); }
  ARCH_FN float slope(float x) { return silu_slope(x); }
};
struct Gelu {
  ARCH_FN float of(float x) { return gelu(x); }
  ARCH_FN float slope(float x) { return gelu_slope(x); }
};
struct QuickGelu {
  ARCH_FN float of(float x) { return quick_gelu(x); }
  ARCH_FN float slope(float x) { return quick_gelu_slope(x); }
};

// The same to a few units in the last place of a float: by ex2 and an approximate reciprocal.
ARCH_FN float fast_sigmoid(float x) { return __fdividef(1.0f, 1.0f + arch::ex2(-1.4426950408889634f * x)); }

ARCH_FN float fast_silu(float x) { return x * fast_sigmoid(x); }

ARCH_FN float fast_silu_slope(float x) {
  const float s = fast_sigmoid(x);
  return s + x * s * (1.0f - s);
}

// Phi(x) and phi(x).
struct Gaussian {
  float below, density;
};

// Both by one exponential, Phi to 3e-7: Abramowitz and Stegun, Handbook of Mathematical Functions, formula 26.2.17.
ARCH_FN Gaussian fast_gaussian(float x) {
  const float density = 0.39894228040143268f * arch::ex2(-0.72134752044448170f * x * x);
  const float t = __fdividef(1.0f, 1.0f + 0.2316419f * fabsf(x));
  const float third = 1.781477937f + t * (-1.821255978f + t * 1.330274429f);
  const float beyond = density * t * (0.319381530f + t * (-0.356563782f + t * third));  // Phi(-|x|)
  return {x < 0.0f ? beyond : 1.0f - beyond, density};
}

ARCH_FN void fast_geglu_vjp(float& a, float& g, float d) {
  const Gaussian phi = fast_gaussian(g);
  const float da = d * g * phi.below, dg = d * a * (phi.below + g * phi.density);
  a = da;
  g = dg;
}

struct FastSilu {
  ARCH_FN float of(float x) { return fast_silu(x); }
  ARCH_FN float slope(float x) { return fast_silu_slope(x); }
};
struct FastQuickGelu {
  ARCH_FN float of(float x) { return x * fast_sigmoid(1.702f * x); }
  ARCH_FN float slope(float x) { return fast_silu_slope(1.702f * x); }
};

}  // namespace math
