// Sixteen bytes at a time: loaded as float, stored rounded once. Addresses must be multiples of 16.
#pragma once
#include "arch.cuh"

namespace vec {

// Elements in 16 bytes.
template <class T> static constexpr int WIDTH = 16 / static_cast<int>(sizeof(T));

template <int N, class T> ARCH_FN void load(float (&v)[N], const T* __restrict__ from) {
  static_assert(N % WIDTH<T> == 0, "whole packs");
#pragma unroll
  for (int k = 0; k < N; k += WIDTH<T>) {
    const auto pack = *reinterpret_cast<const Pack<T, WIDTH<T>>*>(from + k);
#pragma unroll
    for (int i = 0; i < WIDTH<T>; ++i) v[k + i] = arch::to_f32(pack.v[i]);
  }
}

template <int N, class T> ARCH_FN void store(T* __restrict__ to, const float (&v)[N]) {
  static_assert(N % WIDTH<T> == 0, "whole packs");
#pragma unroll
  for (int k = 0; k < N; k += WIDTH<T>) {
    Pack<T, WIDTH<T>> pack;
#pragma unroll
    for (int i = 0; i < WIDTH<T>; ++i) pack.v[i] = arch::from_f32<T>(v[k + i]);
    *reinterpret_cast<Pack<T, WIDTH<T>>*>(to + k) = pack;
  }
}

}  // namespace vec
