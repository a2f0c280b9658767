// SPDX-License-Identifier: BSD-3-Clause
#include "ir/carried.h"
#include "ir/grid.h"
#include "templates/common/result_rows.h"
#include "templates/forward/decode/math.h"
#include "templates/forward/decode/merge.h"
#include "templates/forward/decode/ring.h"

namespace flashplus {
namespace decode {
namespace {

/// Between two segments: where the next one is, and where in the ring its first step is. Its first `stages`
/// steps are on their way, as far as there are so many.
struct Progress {
  Place place;
  gpu::Position ring;
  void fields(auto &&each) { each(place, ring); }
};

struct Step {
  softmax::State state;
  gpu::Position ring;
  void fields(auto &&each) { each(state, ring); }
};

class Loop {
public:
  Loop(KernelView &kernel, const Line &line, Ring &ring)
      : k_(kernel), ir_(kernel.ir), line_(line), ring_(&ring), merge_(kernel, line) {}

  void run() {
    const Progress start{line_.start(), ring_->start()};
    const Segment first(k_.c, k_.l, line_, start.place);
    if (k_.l.overlaps()) {
      gpu::waitForGridBefore(ir_);
      gpu::releaseGridBehind(ir_);
    }
    ir_.rareLoop(ir_.i32(0), ir_.i32(k_.l.stages), ir_.i32(1), [&](Val i) {
      ring_->step(first, i, {i, ir_.i32(0)});
    });
    carry::whileLoop(
        ir_, start, [&](const Progress &now) { return now.place.at < line_.end(); },
        [&](const Progress &now) { return segment(now); });
  }

private:
  Progress segment(const Progress &now) {
    const int stages = k_.l.stages;
    const Segment own(k_.c, k_.l, line_, now.place), next(k_.c, k_.l, line_, own.next());
    countTiles(
        ir_, k_.c.params, [&] { return ir_.max(ir_.i32(0), own.end - own.begin); },
        [&](Val counting) { return counting & (k_.thread == 0); });
    const Math math(k_, own);
    // A stage whose step is done takes the step that is `stages` further, of this segment or the next one's.
    // A segment that is not the last counts as at least `stages` steps, so that it always starts that many of
    // the next one.
    Val steps = ring_->steps(own), more = own.next().at < line_.end();
    Val slots = ir_.max(steps, ir_.select(more, ir_.i32(stages), ir_.i32(0)));
    auto refill = [&](Val step, gpu::Position at) {
      Val later = step + stages; // which the segment has, if it is below steps, thus below slots
      ir_.ifElse(
          later < slots, [&] { return ring_->stepThatIs(own, later, at), Vals(); },
          [&] { return ring_->step(next, later - slots, at), Vals(); });
    };
    const Step done = carry::forLoop(
        ir_, ir_.i32(0), steps, ir_.i32(1), Step{math.start(), now.ring}, [&](Val step, const Step &at) {
          Val tile = ring_->tile(own, step);
          ring_->waitKeys(at.ring);
          Math::Weights weights = math.weights(math.products(ring_->keys(at.ring)), tile, at.state);
          ring_->waitValues(own, tile, at.ring);
          softmax::State state = math.accumulate(std::move(weights), ring_->values(at.ring));
          gpu::warpSync(ir_); // every lane has read the stage
          refill(step, at.ring);
          return Step{std::move(state), ring_->next(at.ring)};
        });
    const gpu::Position ring =
        carry::forLoop(ir_, steps, slots, ir_.i32(1), done.ring, [&](Val step, const gpu::Position &at) {
          ring_->pass(at);
          ring_->step(next, step, at); // `slots` is `stages`
          return ring_->next(at);
        });
    merge_.finish(own, done.state);
    return {own.next(), ring};
  }

  KernelView &k_;
  Ir &ir_;
  const Line &line_;
  Ring *ring_;
  Merge merge_;
};

} // namespace
} // namespace decode

void emitDecode(EmitContext &c) {
  using namespace decode;
  KernelView kernel(c);
  if (kernel.l.overlaps())
    gpu::declareOverlap(c.ir);
  const std::unique_ptr<Ring> ring = kernel.l.tma ? boxRing(kernel) : copyRing(kernel);
  ring->init();
  Line line(c, kernel.l);
  line.find(kernel.lane);
  c.ir.ifElse(
      line.start().at < line.end(), [&] { return Loop(kernel, line, *ring).run(), Vals(); },
      [&] {
        if (kernel.l.overlaps())
          gpu::waitForGridBefore(c.ir);
        return Vals();
      });
}

} // namespace flashplus
