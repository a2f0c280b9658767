// SPDX-License-Identifier: BSD-3-Clause
#include "ir/async_copy.h"
#include "ir/carried.h"
#include "templates/common/result_rows.h"
#include "templates/forward/sm80_decode/copy.h"
#include "templates/forward/sm80_decode/math.h"
#include "templates/forward/sm80_decode/merge.h"

namespace flashplus {
namespace sm80_decode {
namespace {

/// Between two segments: where the next one is, and the stage of the ring that its first step is in. Its
/// first `stages` steps are on their way, as far as there are so many.
struct Progress {
  Place place;
  Val stage;
  void fields(auto &&each) { each(place, stage); }
};

struct Step {
  softmax::State state;
  Val stage;
  void fields(auto &&each) { each(state, stage); }
};

Val nextStage(Ir &ir, Val stage, int stages) {
  return ir.select(stage == stages - 1, ir.i32(0), stage + 1);
}

class Loop {
public:
  explicit Loop(KernelView &kernel, const Line &line)
      : k_(kernel), ir_(kernel.ir), line_(line), copy_(kernel), merge_(kernel, line) {}

  void run() {
    const Progress start{line_.start(), ir_.i32(0)};
    const Segment first(k_.c, k_.l, line_, start.place);
    ir_.rareLoop(ir_.i32(0), ir_.i32(k_.l.stages), ir_.i32(1), [&](Val i) { copy_.step(first, i, i); });
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
    // A segment counts as at least `stages` steps, so that it always starts that many of the next one.
    Val steps = copy_.steps(own), slots = ir_.max(steps, ir_.i32(stages));
    auto refill = [&](Val step, Val stage) {
      Val later = step + stages; // which the segment has, if it is below steps, thus below slots
      ir_.ifElse(
          later < slots, [&] { return copy_.stepThatIs(own, later, stage), Vals(); },
          [&] { return copy_.step(next, later - slots, stage), Vals(); });
    };
    const Step done = carry::forLoop(
        ir_, ir_.i32(0), steps, ir_.i32(1), Step{math.start(), now.stage}, [&](Val step, const Step &at) {
          gpu::waitGroup(ir_, 2 * stages - 1);
          gpu::warpSync(ir_); // what the other lanes copied
          Math::Weights weights =
              math.weights(math.products(at.stage), copy_.tile(own, step), at.state);
          gpu::waitGroup(ir_, 2 * stages - 2);
          gpu::warpSync(ir_);
          softmax::State state = math.accumulate(std::move(weights), at.stage);
          gpu::warpSync(ir_); // every lane has read the stage
          refill(step, at.stage);
          return Step{std::move(state), nextStage(ir_, at.stage, stages)};
        });
    const Val stage =
        carry::forLoop(ir_, steps, slots, ir_.i32(1), done.stage, [&](Val step, const Val &at) {
          copy_.step(next, step, at); // `slots` is `stages`
          return nextStage(ir_, at, stages);
        });
    merge_.finish(own, done.state);
    return {own.next(), stage};
  }

  KernelView &k_;
  Ir &ir_;
  const Line &line_;
  Copy copy_;
  Merge merge_;
};

} // namespace
} // namespace sm80_decode

void emitSm80Decode(EmitContext &c) {
  using namespace sm80_decode;
  KernelView kernel(c);
  Line line(c, kernel.l);
  line.find(kernel.lane);
  c.ir.ifThen(line.start().at < line.end(), [&] { Loop(kernel, line).run(); });
}

} // namespace flashplus
