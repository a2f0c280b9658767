// SPDX-License-Identifier: BSD-3-Clause
#include "templates/common/tile_dropout.h"

#include "ir/warp.h"
#include "ir/wgmma.h"
#include "spec/philox.h"

namespace flashplus {
namespace {

constexpr int64_t kHighBits = int32_t(0x80808080), kOtherBits = 0x7f7f7f7f;

/// The halves of the product of `a` and a constant, unsigned: {low, high}.
std::pair<Val, Val> product(Ir &ir, Val a, uint32_t constant) {
  auto both =
      mlir::arith::MulUIExtendedOp::create(ir.builder, ir.loc, a.value, ir.i32(int32_t(constant)).value);
  return {ir.wrap(both.getLow()), ir.wrap(both.getHigh())};
}

/// Bytes of `a` (0 to 3) and `b` (4 to 7) as the four nibbles of `selector` say.
Val permute(Ir &ir, Val a, Val b, int64_t selector) {
  return ir.intrinsic("llvm.nvvm.prmt", ir.i32(), {a, b, ir.i32(selector)});
}

} // namespace

/// As TileDropout::half has them.
KeptElements::Place KeptElements::place(int at) const {
  // Blocks of values are 16 x 8: two neighbours share a block of the mask.
  const int block = at / 4, row_block = block / layout_.column_blocks,
            column_block = block % layout_.column_blocks;
  const int row = at / 2 % 2, column = at % 2;
  const int pair = row_block * (layout_.column_blocks / 2) + column_block / 2;
  const int word = by_rows_ ? row : column_block % 2;
  return {size_t(2 * pair + word), by_rows_ ? column + 2 * (column_block % 2) : 2 * column + row};
}

Val KeptElements::keep(int at, Val x) const {
  const Place p = place(at);
  Ir &ir = *x.ir;
  Val bit = words_[p.word] & ir.i32(int32_t(0x80u << 8 * p.byte));
  return ir.select(bit != 0, x, ir.f32(0));
}

Val KeptElements::ofPair(const std::array<int, 2> &pair) const {
  const Place low = place(pair[0]), high = place(pair[1]); // of one word
  constexpr int kSign = 8;                                 // prmt: a byte's highest bit, eight times
  Val word = words_[low.word];
  return permute(*word.ir, word, word, (kSign | low.byte) * 0x11 + (kSign | high.byte) * 0x1100);
}

void KeptElements::computeBeforeWait() const {
  Val all = words_[0];
  for (size_t i = 1; i < words_.size(); ++i)
    all = all | words_[i];
  gpu::computeBeforeWait(*all.ir, all.ir->bitcast(all.ir->f32(), all));
}

Vals KeptElements::operandA(const Fragment &f, DType dtype, int row_block, int step) const {
  Vals a = flashplus::operandA(f, dtype, row_block, step);
  for (int reg = 0; reg < 4; ++reg)
    a[size_t(reg)] = a[size_t(reg)] & ofPair(layout_.operandA(row_block, step, reg));
  return a;
}

void KeptElements::apply(Fragment &f) const {
  for (int x = 0; x < f.layout.size(); ++x)
    f.values[size_t(x)] = keep(x, f.values[size_t(x)]);
}

TileDropout::TileDropout(Ir &ir, const ParamReader &params, Val lane, Axis queries)
    : ir_(ir), params_(params), queries_(queries), rng_(ir, params), lane_(lane) {}

/// Worked out for every tile anew: as registers through a kernel's loop they would make others spill.
TileDropout::Lane TileDropout::laneAnew() const {
  Lane own;
  Val lane = gpu::again(ir_, lane_) % 32;
  Val row = lane / 8, column = lane % 4; // of the lane's granule
  own.granule = queries_ == Axis::Rows ? row * 4 + column : column * 4 + row;
  own.odd = lane / 4 % 2 == 1;
  Words all;
  for (int word = 0; word < 4; ++word)
    all[size_t(word)] = params_.get("drop_thresholds", word);
  const Half first = half(all, 0), second = half(all, 1);
  for (size_t i = 0; i < 2; ++i)
    own.thresholds[i] = ir_.select(own.odd, second[i], first[i]);
  return own;
}

/// Philox 4x32.
TileDropout::Words TileDropout::random(const Lane &lane, const Block &at, Val head) const {
  Words counter = {at.key * 16 + lane.granule, at.query, head, rng_.offset};
  Val key[2] = {rng_.key[0], rng_.key[1]};
  for (int round = 0; round < kPhiloxRounds; ++round) {
    const auto [low0, high0] = product(ir_, counter[0], kPhiloxMultiplier0);
    const auto [low2, high2] = product(ir_, counter[2], kPhiloxMultiplier2);
    counter = {high2 ^ counter[1] ^ key[0], low2, high0 ^ counter[3] ^ key[1], low0};
    key[0] = key[0] + int64_t(int32_t(kPhiloxKeyStep0));
    key[1] = key[1] + int64_t(int32_t(kPhiloxKeyStep1));
  }
  return counter;
}

/// What one of the two lanes of a granule has of its words: the rows of its fragment's row, in a word each,
/// where those are queries; else the keys of its row, in bytes 0 and 1 (2 and 3) of every first (second) word
/// of a pair.
TileDropout::Half TileDropout::half(const Words &words, int which) const {
  if (queries_ == Axis::Rows)
    return {words[size_t(which)], words[size_t(which) + 2]};
  const int64_t selector = which ? 0x7531 : 0x6420;
  return {permute(ir_, words[0], words[1], selector), permute(ir_, words[2], words[3], selector)};
}

/// random <= threshold in every byte, as its highest bit; the others are anything.
TileDropout::Half TileDropout::kept(const Lane &lane, const Half &random) const {
  Half result;
  for (size_t i = 0; i < 2; ++i) {
    Val r = random[i], t = lane.thresholds[i];
    Val lower = (t | ir_.i32(kHighBits)) - (r & kOtherBits); // of the other bits; nothing is borrowed
    Val differ = t ^ r;
    result[i] = (t & differ) | (lower & (differ ^ ir_.i32(-1)));
  }
  return result;
}

KeptElements TileDropout::draw(FragmentLayout layout, Val batch, Val head, Val query, Val key) const {
  const Lane lane = laneAnew();
  const bool by_rows = queries_ == Axis::Rows;
  Val number = batch * params_.get("heads_q") + head;
  Val first_query = query / 16, first_key = key / 16;
  std::vector<Block> blocks;
  for (int row = 0; row < layout.row_blocks; ++row)
    for (int column = 0; column < layout.column_blocks / 2; ++column)
      blocks.push_back({first_query + (by_rows ? row : column), first_key + (by_rows ? column : row)});
  Vals words;
  auto add = [&](const Half &random) {
    for (Val word : kept(lane, random))
      words.push_back(word);
  };
  size_t i = 0;
  for (; i + 1 < blocks.size(); i += 2) { // two blocks: either lane draws one
    const Block mine = {ir_.select(lane.odd, blocks[i + 1].query, blocks[i].query),
                        ir_.select(lane.odd, blocks[i + 1].key, blocks[i].key)};
    const Words drawn = random(lane, mine, number);
    const Half even = half(drawn, 0), odd = half(drawn, 1);
    Half first, second;
    for (size_t w = 0; w < 2; ++w) {
      Val keep = ir_.select(lane.odd, odd[w], even[w]), give = ir_.select(lane.odd, even[w], odd[w]);
      Val got = gpu::shuffleXor(ir_, give, 4);
      first[w] = ir_.select(lane.odd, got, keep);
      second[w] = ir_.select(lane.odd, keep, got);
    }
    add(first);
    add(second);
  }
  if (i < blocks.size()) {
    const Words drawn = random(lane, blocks[i], number);
    const Half even = half(drawn, 0), odd = half(drawn, 1);
    add({ir_.select(lane.odd, odd[0], even[0]), ir_.select(lane.odd, odd[1], even[1])});
  }
  return {layout, by_rows, std::move(words)};
}

} // namespace flashplus
