// Vectors of f32 from and to each storage type, for simd_elementwise-inl.h and simd_reduce-inl.h.
// Included once per instruction set, so the guard toggles.
#if defined(QCDQ_SIMD_VECTORS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef QCDQ_SIMD_VECTORS_INL_H_
#undef QCDQ_SIMD_VECTORS_INL_H_
#else
#define QCDQ_SIMD_VECTORS_INL_H_
#endif

#include <hwy/cache_control.h>
#include <hwy/highway.h>

#include <bit>
#include <cstring>
#include <type_traits>

#include "torch_plugin/kernels/float_types.h"

// Conversions in hardware, exact on specials: F16C comes with AVX2. Highway's emulation elsewhere
// is wrong for infinities, NaN and subnormals, so the integer forms below are used there; bf16 is
// done with integers everywhere, because Highway 1.0.3 truncates.
#undef QCDQ_F16_IN_HARDWARE
#if HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX3_DL || \
    HWY_TARGET == HWY_NEON
#define QCDQ_F16_IN_HARDWARE 1
#else
#define QCDQ_F16_IN_HARDWARE 0
#endif

HWY_BEFORE_NAMESPACE();
namespace qcdq {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// The value of each lane as f32.
template <class D>
HWY_INLINE hn::Vec<D> load_f32(D d, const float* p) {
  return hn::LoadU(d, p);
}

template <class D>
HWY_INLINE hn::Vec<hn::Rebind<uint32_t, D>> load_bits(D, const uint16_t* p) {
  const hn::Rebind<uint16_t, D> d16;
  const hn::Rebind<uint32_t, D> d32;
  return hn::PromoteTo(d32, hn::LoadU(d16, p));
}

template <class D>
HWY_INLINE hn::Vec<D> load_f32(D d, const BF16* p) {
  return hn::BitCast(d, hn::ShiftLeft<16>(load_bits(d, &p->bits)));
}

template <class D>
HWY_INLINE hn::Vec<D> load_f32(D d, const F16* p) {
#if QCDQ_F16_IN_HARDWARE
  const hn::Rebind<uint16_t, D> d16;
  const hn::Rebind<hwy::float16_t, D> half;
  return hn::PromoteTo(d, hn::BitCast(half, hn::LoadU(d16, &p->bits)));
#else
  const hn::Rebind<uint32_t, D> du;
  const auto bits = load_bits(d, &p->bits);
  const auto magnitude = hn::And(bits, hn::Set(du, 0x7FFFu));
  const auto sign = hn::ShiftLeft<16>(hn::And(bits, hn::Set(du, 0x8000u)));
  const auto finite =
      hn::BitCast(du, hn::Mul(hn::BitCast(d, hn::ShiftLeft<13>(magnitude)), hn::Set(d, 0x1p112f)));
  // Signed comparison: all magnitudes are small.
  const hn::Rebind<int32_t, D> di;
  const auto special =
      hn::BitCast(du, hn::VecFromMask(di, hn::Gt(hn::BitCast(di, magnitude), hn::Set(di, 0x7BFF))));
  const auto exponent = hn::And(special, hn::Set(du, 0x7F800000u));
  return hn::BitCast(d, hn::Or(hn::Or(finite, exponent), sign));
#endif
}

// The low 16 bits of each 32-bit lane.
template <class D>
HWY_INLINE hn::Vec<hn::Rebind<uint16_t, D>> low_halves(D, hn::Vec<hn::Rebind<uint32_t, D>> bits) {
  const hn::Rebind<uint16_t, D> d16;
  const hn::Rebind<int32_t, D> di;
  return hn::DemoteTo(d16, hn::BitCast(di, bits));  // saturates, but every value fits
}

// Rounds each lane once, to nearest, ties to even. No lane is NaN: values of codes never are.
template <class D>
HWY_INLINE void store_f32(D d, hn::Vec<D> v, float* p) {
  hn::StoreU(v, d, p);
}

// The bits of a bf16 in the upper half of each lane, and others below.
template <class D>
HWY_INLINE hn::Vec<hn::Rebind<uint32_t, D>> rounded_to_bf16(D, hn::Vec<D> v) {
  const hn::Rebind<uint32_t, D> du;
  const auto bits = hn::BitCast(du, v);
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 1u));
  return hn::Add(bits, hn::Add(odd, hn::Set(du, 0x7FFFu)));
}

template <class D>
using Bits16 = hn::Vec<hn::Rebind<uint16_t, D>>;

template <class D>
HWY_INLINE Bits16<D> bits_of(D d, hn::Vec<D> v, BF16) {
  return low_halves(d, hn::ShiftRight<16>(rounded_to_bf16(d, v)));
}

template <class D>
HWY_INLINE Bits16<D> bits_of([[maybe_unused]] D d, hn::Vec<D> v, F16) {
#if QCDQ_F16_IN_HARDWARE
  const hn::Rebind<hwy::float16_t, D> half;
  return hn::BitCast(hn::Rebind<uint16_t, D>(), hn::DemoteTo(half, v));
#else
  // As from_compute<F16>; magnitudes fit int32, whose comparisons every target has.
  const hn::Rebind<uint32_t, D> du;
  const hn::Rebind<int32_t, D> di;
  const auto bits = hn::BitCast(du, v);
  const auto sign = hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 0x8000u));
  const auto magnitude = hn::And(bits, hn::Set(du, 0x7FFFFFFFu));
  const auto above = [&](int32_t bound) {
    return hn::RebindMask(du, hn::Gt(hn::BitCast(di, magnitude), hn::Set(di, bound)));
  };
  const auto odd = hn::And(hn::ShiftRight<13>(magnitude), hn::Set(du, 1u));
  const auto normal =
      hn::ShiftRight<13>(hn::Add(hn::Sub(magnitude, hn::Set(du, 0x38000000u - 0xFFFu)), odd));
  const auto subnormal =
      hn::Sub(hn::BitCast(du, hn::Add(hn::BitCast(d, magnitude), hn::Set(d, 0.5f))),
              hn::Set(du, 0x3F000000u));
  auto result = hn::IfThenElse(above(0x387FFFFF), normal, subnormal);
  result = hn::IfThenElse(above(0x477FFFFF), hn::Set(du, 0x7C00u), result);
  return low_halves(d, hn::Or(result, sign));
#endif
}

// As rounded_to_bf16, but what is half way between two goes away from 0.
template <class D>
HWY_INLINE hn::Vec<hn::Rebind<uint32_t, D>> rounded_half_away(D, hn::Vec<D> v) {
  const hn::Rebind<uint32_t, D> du;
  return hn::Add(hn::BitCast(du, v), hn::Set(du, 0x8000u));
}

template <class D>
HWY_INLINE Bits16<D> bits_half_away(D d, hn::Vec<D> v, BF16) {
  return low_halves(d, hn::ShiftRight<16>(rounded_half_away(d, v)));
}
template <class D>
HWY_INLINE Bits16<D> bits_half_away(D d, hn::Vec<D> v, F16) {
  return bits_of(d, v, F16{});
}

template <class D, typename X>
HWY_INLINE void store_f32(D d, hn::Vec<D> v, X* p) {
  hn::StoreU(bits_of(d, v, X{}), hn::Rebind<uint16_t, D>(), &p->bits);
}

// How results go to memory: into the caches, or past them.
enum class Stores { kCached, kStreamed };

// Addresses for kStreamed are multiples of a vector's size, and vectors whole.
template <Stores kStores, class D>
HWY_INLINE void store_vector(D d, hn::Vec<D> v, hn::TFromD<D>* p) {
  if constexpr (kStores == Stores::kStreamed) {
    hn::Stream(v, d, p);
  } else {
    hn::StoreU(v, d, p);
  }
}

template <class D, typename Y>
HWY_INLINE bool may_stream(D d, bool streamed, const Y* y) {
  return streamed && reinterpret_cast<uintptr_t>(y) % (hn::Lanes(d) * sizeof(float)) == 0;
}

// Asks for what the loop over `count` elements from p comes to kAhead bytes later: every line, or
// of each page of 4 KiB the first. Within a page the hardware goes ahead on its own; what this
// gains is the next page's address, looked up before it is needed, where arrays of some MiB are
// more pages than the processor remembers, and memory's latency. Measured with every line: Zen 3,
// STE at 4 MiB 3.0 to 2.65 times a copy, and 64 MiB with streamed stores takes two thirds of the
// time that it takes with a line a page; Zen 4, whose vector is a line, spends a tenth more at 4
// MiB on as many requests as loads. kAhead no multiple of 4 KiB: such a request waits for the
// stores at hand, whose addresses end in the same 12 bits.
constexpr uintptr_t kAhead = 2560;
constexpr uintptr_t kPage = 4096;
constexpr uintptr_t kCacheLine = 64;
template <Stores kStores, typename X>
HWY_INLINE void prefetch_ahead(const X* p, size_t count) {
  const uintptr_t first = reinterpret_cast<uintptr_t>(p) + kAhead;
  if constexpr (kStores == Stores::kStreamed || HWY_MAX_BYTES < kCacheLine) {
    for (uintptr_t at = 0; at < count * sizeof(X); at += kCacheLine) {
      hwy::Prefetch(reinterpret_cast<const uint8_t*>(first + at));
    }
  } else if (first % kPage < count * sizeof(X)) {
    hwy::Prefetch(reinterpret_cast<const uint8_t*>(first));
  }
}

// A loop that loads from x and stores to y.
template <Stores kStores, typename X, typename Y>
HWY_INLINE void prefetch_around(const X* x, const Y* y, size_t count) {
  prefetch_ahead<kStores>(x, count);
  if constexpr (kStores == Stores::kCached) prefetch_ahead<kStores>(y, count);
}

// Vectors that go through each step together: as much independent work as that keeps the units
// busy, where a vector after the other would fill the scheduler with what waits for the one before.
template <class D, size_t kCount = 4>
struct Group {
  static constexpr size_t kVectors = kCount;
  using V = hn::Vec<D>;
  HWY_INLINE Group() {}  // an implicit one has no target attributes: NEON's vectors refuse it

  // step(vector) for each, or step(vector, number of the vector).
  template <class Step>
  HWY_INLINE void each(const Step& step) {
    for (size_t k = 0; k < kVectors; ++k) {
      if constexpr (std::is_invocable_v<const Step&, V, size_t>) {
        at[k] = step(at[k], k);
      } else {
        at[k] = step(at[k]);
      }
    }
  }

  // Lane i of vector k is element k * stride + i.
  template <typename X>
  HWY_INLINE void load_in_order(D d, const X* x, size_t stride) {
    for (size_t k = 0; k < kVectors; ++k) at[k] = load_f32(d, x + k * stride);
  }
  template <Stores kStores, typename X>
  HWY_INLINE void store_in_order(D d, X* out, size_t stride) const {
    for (size_t k = 0; k < kVectors; ++k) {
      if constexpr (std::is_same_v<X, float>) {
        store_vector<kStores>(d, at[k], out + k * stride);
      } else {
        store_f32(d, at[k], out + k * stride);
      }
    }
  }

  // In whichever order is fastest; store() stores what load() loaded.
  template <typename X>
  HWY_INLINE void load(D d, const X* x) {
    load_in_order(d, x, hn::Lanes(d));
  }
  template <Stores kStores, typename X>
  HWY_INLINE void store(D d, X* out) const {
    store_in_order<kStores>(d, out, hn::Lanes(d));
  }
  // As store(), but no element above `cap`, the bits of a value >= 0; and rounded as
  // bits_half_away does.
  template <Stores kStores, typename X>
  HWY_INLINE void store_capped(D d, uint16_t cap, X* out) const {
    const hn::Rebind<int16_t, D> d16;
    const auto most = hn::Set(d16, static_cast<int16_t>(cap));
    for (size_t k = 0; k < kVectors; ++k) {
      const auto bits = hn::BitCast(d16, bits_half_away(d, at[k], X{}));
      hn::StoreU(hn::BitCast(hn::Rebind<uint16_t, D>(), hn::Min(bits, most)),
                 hn::Rebind<uint16_t, D>(), &out[k * hn::Lanes(d)].bits);
    }
  }
#if QCDQ_F16_IN_HARDWARE
  // One store for two: vcvtps2ph into memory takes Zen 3 twice as long as into a register.
  template <Stores kStores>
  HWY_INLINE void store(D d, F16* out) const {
    for (size_t k = 0; k < kVectors; k += 2) {
      store_vector<kStores>(TwoHalves(), two_halves(d, k), &out[k * hn::Lanes(d)].bits);
    }
  }
  template <Stores kStores>
  HWY_INLINE void store_capped(D d, uint16_t cap, F16* out) const {
    const hn::RebindToSigned<TwoHalves> signed16;
    const auto most = hn::Set(signed16, static_cast<int16_t>(cap));
    for (size_t k = 0; k < kVectors; k += 2) {
      const auto bits = hn::Min(hn::BitCast(signed16, two_halves(d, k)), most);
      store_vector<kStores>(TwoHalves(), hn::BitCast(TwoHalves(), bits),
                            &out[k * hn::Lanes(d)].bits);
    }
  }
  using TwoHalves = hn::Twice<hn::Rebind<uint16_t, D>>;
  HWY_INLINE hn::Vec<TwoHalves> two_halves(D d, size_t k) const {
    return hn::Combine(TwoHalves(), bits_of(d, at[k + 1], F16{}), bits_of(d, at[k], F16{}));
  }
#endif
#if HWY_TARGET != HWY_SCALAR
  // Two vectors of bf16 are the lower and upper halves of 32-bit lanes: nothing is unpacked.
  HWY_INLINE void load(D d, const BF16* x) {
    static_assert(std::endian::native == std::endian::little);
    const hn::Rebind<uint32_t, D> du;
    const hn::Repartition<uint16_t, D> d16;
    for (size_t k = 0; k < kVectors; k += 2) {
      const auto both = hn::BitCast(du, hn::LoadU(d16, &x[k * hn::Lanes(d)].bits));
      at[k] = hn::BitCast(d, hn::ShiftLeft<16>(both));
      at[k + 1] = hn::BitCast(d, hn::And(both, hn::Set(du, 0xFFFF0000u)));
    }
  }
  template <Stores kStores>
  HWY_INLINE void store(D d, BF16* out) const {
    const hn::Repartition<uint16_t, D> d16;
    for (size_t k = 0; k < kVectors; k += 2) {
      store_vector<kStores>(d16,
                            joined(d, rounded_to_bf16(d, at[k]), rounded_to_bf16(d, at[k + 1])),
                            &out[k * hn::Lanes(d)].bits);
    }
  }
  template <Stores kStores>
  HWY_INLINE void store_capped(D d, uint16_t cap, BF16* out) const {
    const hn::Repartition<uint16_t, D> d16;
    const hn::Repartition<int16_t, D> signed16;
    const auto most = hn::Set(signed16, static_cast<int16_t>(cap));
    for (size_t k = 0; k < kVectors; k += 2) {
      const auto bits = joined(d, rounded_half_away(d, at[k]), rounded_half_away(d, at[k + 1]));
      store_vector<kStores>(d16, hn::BitCast(d16, hn::Min(hn::BitCast(signed16, bits), most)),
                            &out[k * hn::Lanes(d)].bits);
    }
  }
  // The upper halves of the lanes of both.
  static HWY_INLINE hn::Vec<hn::Repartition<uint16_t, D>> joined(
      D, hn::Vec<hn::Rebind<uint32_t, D>> even, hn::Vec<hn::Rebind<uint32_t, D>> odd) {
    const hn::Repartition<uint16_t, D> d16;
    return hn::OddEven(hn::BitCast(d16, odd), hn::BitCast(d16, hn::ShiftRight<16>(even)));
  }
#endif

  V at[kVectors];
};

// y = x where the mask is set, else +0; the bits of x are kept.
template <Stores kStores = Stores::kCached, class D, class M>
HWY_INLINE void store_where(D d, M mask, const float* x, float* y) {
  store_vector<kStores>(d, hn::IfThenElseZero(mask, hn::LoadU(d, x)), y);
}

template <Stores kStores = Stores::kCached, class D, class M, class X>
HWY_INLINE void store_where(D d, M mask, const X* x, X* y) {
  const hn::Rebind<uint32_t, D> du;
  const auto kept = hn::IfThenElseZero(hn::RebindMask(du, mask), load_bits(d, &x->bits));
  hn::StoreU(low_halves(d, kept), hn::Rebind<uint16_t, D>(), &y->bits);
}

// Integral lanes as codes; every lane fits Code.
template <class D, typename Code>
HWY_INLINE void store_codes(D, hn::Vec<D> v, Code* p) {
  const hn::Rebind<int32_t, D> di;
  if constexpr (sizeof(Code) == 4) {
    hn::StoreU(hn::ConvertTo(di, v), di, p);
  } else {
    const hn::Rebind<Code, D> dc;
    hn::StoreU(hn::DemoteTo(dc, hn::ConvertTo(di, v)), dc, p);
  }
}

template <class D, typename Code>
HWY_INLINE hn::Vec<D> load_codes(D d, const Code* p) {
  const hn::Rebind<int32_t, D> di;
  const hn::Rebind<Code, D> dc;
  return hn::ConvertTo(d, hn::PromoteTo(di, hn::LoadU(dc, p)));
}

// The formula of affine.h, a vector at a time.
template <class D>
struct Formula {
  using V = hn::Vec<D>;
  Formula(D, float lowest, float highest) : lo(hn::Set(D(), lowest)), hi(hn::Set(D(), highest)) {}

  static HWY_INLINE V unclamped(V ratio, V zero_point) {
    return hn::Add(hn::Round(ratio), zero_point);
  }
  // Min(Max()) in this order: NaN becomes lo; the other order would give hi.
  HWY_INLINE V clamp(V code) const { return hn::Min(hn::Max(code, lo), hi); }
  HWY_INLINE auto inside(V unclamped) const {
    return hn::And(hn::Ge(unclamped, lo), hn::Le(unclamped, hi));
  }

  V lo;
  V hi;
};

}  // namespace HWY_NAMESPACE
}  // namespace qcdq
HWY_AFTER_NAMESPACE();

#endif  // per-target guard
