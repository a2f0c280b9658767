// SPDX-License-Identifier: BSD-3-Clause
// cp.async.bulk and cp.reduce.async.bulk from shared to global memory, of bytes and of a tensor, and their
// groups. What is read may not be written until its thread has waited for the read; what is written arrives
// when the thread waits for the group, at the latest when it exits (AsyncMode::Eager: at once).
#include "emulator/core/cluster.h"
#include "emulator/isa/bulk_copy.h"
#include "emulator/isa/float_bits.h"

#include <algorithm>

namespace flashplus::emu {
namespace {

enum class Reduction : uint8_t { None, Add, Min, Max, And, Or, Xor };

template <class T> T combine(Reduction op, T a, T b) {
  if constexpr (std::is_integral_v<T>) {
    switch (op) {
    case Reduction::And:
      return T(a & b);
    case Reduction::Or:
      return T(a | b);
    case Reduction::Xor:
      return T(a ^ b);
    case Reduction::Min:
      return std::min(a, b);
    case Reduction::Max:
      return std::max(a, b);
    default:
      return T(std::make_unsigned_t<T>(a) + std::make_unsigned_t<T>(b));
    }
  } else {
    return a + b;
  }
}

/// One element, atomically: other CTAs run on other host threads.
template <class Bits, class F> void update(uint8_t *at, F f) {
  auto *to = reinterpret_cast<Bits *>(at);
  Bits old = __atomic_load_n(to, __ATOMIC_RELAXED);
  while (!__atomic_compare_exchange_n(to, &old, Bits(f(old)), true, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED)) {
  }
}

void reduce(Reduction op, Type type, uint8_t *to, const uint8_t *from) {
  auto integer = [&]<class T, class Bits>() {
    T v;
    std::memcpy(&v, from, sizeof v);
    update<Bits>(to, [&](Bits old) { return Bits(combine(op, T(old), v)); });
  };
  switch (type) {
  case Type::U32:
  case Type::B32:
    return integer.template operator()<uint32_t, uint32_t>();
  case Type::S32:
    return integer.template operator()<int32_t, uint32_t>();
  case Type::U64:
  case Type::B64:
    return integer.template operator()<uint64_t, uint64_t>();
  case Type::F32: {
    float v;
    std::memcpy(&v, from, 4);
    return update<uint32_t>(
        to, [&](uint32_t old) { return std::bit_cast<uint32_t>(canonical(std::bit_cast<float>(old) + v)); });
  }
  default: { // F16, BF16: the sum of two is exact in fp32, or rounds as it would at once
    uint16_t v;
    std::memcpy(&v, from, 2);
    return update<uint16_t>(to, [&](uint16_t old) {
      return type == Type::F16 ? floatToHalf(halfToFloat(old) + halfToFloat(v))
                               : floatToBfloat(bfloatToFloat(old) + bfloatToFloat(v));
    });
  }
  }
}

/// False after a fault.
bool landStore(Warp &w, BulkStore &store) {
  store.landed = true;
  const Instruction &in = w.program().code[store.pc];
  const auto op = Reduction(in.mode);
  for (const BulkStore::Piece &p : store.pieces) {
    const auto bytes = uint32_t(p.data.size());
    uint8_t *to = access(w, Space::Global, p.to, bytes, 1, store.lane,
                         op == Reduction::None ? AccessKind::Write : AccessKind::Atomic);
    if (!to)
      return false;
    if (op == Reduction::None) {
      std::memcpy(to, p.data.data(), bytes);
      continue;
    }
    const auto type = Type(in.mode2);
    for (uint32_t at = 0; at < bytes; at += uint32_t(typeBits(type)) / 8)
      reduce(op, type, to + at, p.data.data() + at);
  }
  return true;
}

void runStore(Warp &w, const Instruction &in, uint32_t mask) {
  Cta &cta = w.cta();
  uint64_t first[kLanes], from[kLanes];
  w.widen(in.src(0), first); // the map, or the destination
  w.widen(in.src(1), from);
  const int rank = in.elements;
  for (uint32_t lane = 0; lane < kLanes; ++lane) {
    if (!(mask >> lane & 1))
      continue;
    from[lane] += uint64_t(in.immediate);
    TensorMapContents map;
    int64_t start[5] = {};
    for (int d = 0; d < rank; ++d)
      start[d] = int32_t(w.lanes<uint32_t>(in.src(2 + d))[lane]);
    if (rank && (!readMap(w, first[lane], lane, rank, map) || !checkBox(w, from[lane], start, lane, map)))
      return;
    const uint32_t bytes = rank ? boxBytes(map) : w.lanes<uint32_t>(in.src(2))[lane];
    if (!rank)
      for (uint64_t v : {first[lane], from[lane], uint64_t(bytes)})
        if (v % 16)
          return w.fault(FaultKind::Misaligned, "a bulk copy's addresses and size are multiples of 16",
                         int(lane), v);
    const SharedPlace place = sharedPlace(w, Space::Shared, from[lane], bytes, lane, "copies");
    if (!place.cta)
      return;
    BulkStore store;
    store.offset = place.offset;
    store.bytes = bytes;
    store.pc = w.pc();
    store.lane = uint8_t(lane);
    store.group = w.stores_committed[lane];
    SharedProblem problem;
    if (!cta.shared().onStoreBegin(place.offset, bytes, {w.thread(lane), w.pc()}, problem))
      return w.fault(problem, int(lane));
    BulkCopy box; // its pieces, the other way round
    if (rank) {
      cutBox(map, start, place.offset + kSharedBase, box);
    } else if (bytes) {
      box.pieces.push_back({place.offset, bytes, first[lane]});
    }
    for (const BulkPiece &p : box.pieces)
      if (p.from) { // what lies outside the tensor is not written
        // The destination must be there when the store is issued, whenever it is written.
        if (!cta.memory().find(p.from, p.bytes))
          return w.fault(FaultKind::OutOfBounds,
                         "copies " + std::to_string(p.bytes) + " bytes to outside memory; " +
                             cta.memory().describe(p.from),
                         int(lane), p.from, Space::Global);
        const uint8_t *data = cta.shared().data(p.to);
        store.pieces.push_back({p.from, std::vector<uint8_t>(data, data + p.bytes)});
      }
    Statistics &s = cta.statistics();
    s.shared_read += bytes;
    s.global_written += bytes;
    s.global_sectors_written += bytes / 32;
    s.by_pc[w.pc()].wavefronts += (bytes + 127) / 128;
    if (cta.options().async == AsyncMode::Eager && !landStore(w, store))
      return;
    w.stores.push_back(std::move(store));
  }
}

void runCommit(Warp &w, const Instruction &, uint32_t mask) {
  for (uint32_t lane = 0; lane < kLanes; ++lane)
    w.stores_committed[lane] += mask >> lane & 1;
}

/// All of a lane's groups but the last `immediate` are complete; with `mode` only what they read is free.
void runWait(Warp &w, const Instruction &in, uint32_t mask) {
  auto done = [&](BulkStore &s) {
    if (!(mask >> s.lane & 1))
      return false;
    const uint64_t pending = w.stores_committed[s.lane] - uint64_t(s.group); // 0: not committed
    if (pending == 0 || pending <= uint64_t(in.immediate))
      return false;
    if (!s.read)
      w.cta().shared().onStoreEnd(s.offset, s.bytes, {w.thread(s.lane), s.pc});
    s.read = true;
    if (in.mode)
      return false;
    return s.landed || landStore(w, s);
  };
  w.stores.erase(std::remove_if(w.stores.begin(), w.stores.end(), done), w.stores.end());
}

} // namespace

void landStores(Warp &w) {
  for (BulkStore &s : w.stores)
    if (!s.landed && !landStore(w, s))
      return;
}

void decodeBulkStore(Builder &b, int rank, bool reduces) {
  b.require("shared::cta");
  auto reduction = [&] { b.out.mode = uint8_t(1 + b.takeOneOf({"add", "min", "max", "and", "or", "xor"})); };
  if (rank && reduces)
    reduction();
  if (rank)
    (void)b.take("tile");
  b.require("bulk_group");
  const bool hint = b.take("L2::cache_hint");
  if (reduces) {
    if (!rank) {
      reduction();
      const bool keeps = b.take("noftz");
      const Type type = b.type();
      if ((type == Type::F16 || type == Type::BF16) != keeps)
        return b.fail("cp.reduce.async.bulk: .noftz belongs to .f16 and .bf16");
      b.out.mode2 = uint8_t(type);
    } else {
      return b.fail("cp.reduce.async.bulk.tensor is not modelled: the element's type is the map's");
    }
    const auto op = Reduction(b.out.mode);
    const auto type = Type(b.out.mode2);
    const bool is_float = type == Type::F16 || type == Type::BF16 || type == Type::F32;
    const bool bits = type == Type::B32 || type == Type::B64;
    const bool logic = op >= Reduction::And;
    if (!(is_float ? op == Reduction::Add
          : bits   ? logic
                   : !logic && (type == Type::U32 || type == Type::S32 || type == Type::U64)))
      return b.fail("cp.reduce.async.bulk does not exist (or is not modelled) in this form for ." +
                    std::string(typeName(type)));
  }
  b.wantOperands((rank ? 2 : 3) + size_t(hint));
  const OperandAst *map = nullptr;
  if (rank) {
    map = mapOperand(b, 0, rank);
  } else {
    b.address(0, Space::Global);
    if (b.out.immediate)
      return b.fail("cp.async.bulk: an offset in the destination's address is not modelled");
  }
  b.address(1, Space::Shared);
  if (map)
    coordinates(b, *map);
  else
    b.src(2, Type::U32);
  if (hint)
    b.src(rank ? 2 : 3, Type::B64);
  b.out.elements = uint8_t(rank);
  b.out.run = runStore;
  b.out.op_class = OpClass::AsyncCopy;
}

void decodeBulkCommit(Builder &b) {
  b.wantOperands(0);
  b.out.run = runCommit;
  b.out.op_class = OpClass::Barrier;
}

void decodeBulkWait(Builder &b) {
  b.out.mode = b.take("read");
  b.wantOperands(1);
  b.out.immediate = b.constant(0, 0, 1 << 20);
  b.out.run = runWait;
  b.out.op_class = OpClass::Barrier;
}

} // namespace flashplus::emu
