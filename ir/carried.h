// SPDX-License-Identifier: BSD-3-Clause
// What a loop or a branch carries, as a struct instead of a list of values counted by hand. A struct names
// its values once,
//   struct Statistics {
//     Val max, sum;
//     Vals parts;
//     void fields(auto &&each) { each(max, sum, parts); }
//   };
// and then
//   Statistics s = carry::forLoop(ir, begin, end, step, start, [&](Val i, Statistics now) { ...; return now;
//   });
// Fields are Val, Vals, arrays, vectors and structs of these; their order is that of the loop's values. How
// many values a Vals has is what it has at the start, which the body must keep; an absent Val is not carried.
// A Val is a struct of one.
#pragma once

#include "ir/ir.h"

namespace flashplus::carry {

template <class T>
concept Struct = requires(T t) {
  t.fields([](auto &...) {});
};

/// Calls each(Val &) for all values in order.
template <class T, class Each> void visit(T &field, Each &&each) {
  if constexpr (std::same_as<T, Val>) {
    each(field);
  } else if constexpr (Struct<T>) {
    field.fields([&](auto &...members) { (visit(members, each), ...); });
  } else {
    for (auto &element : field) // an array, a Vals, a vector
      visit(element, each);
  }
}

template <class T> Vals flatten(T state) {
  Vals values;
  visit(state, [&](Val &v) {
    if (v)
      values.push_back(v);
  });
  return values;
}

/// `shape` with `values` in place of its own.
template <class T> T refilled(T shape, const Vals &values) {
  size_t next = 0;
  visit(shape, [&](Val &v) {
    if (v)
      v = values[next++];
  });
  assert(next == values.size() && "a branch or an iteration has more values than the first one");
  return shape;
}

/// body(index, state) -> state of the next iteration.
template <class T, class Body> T forLoop(Ir &ir, Val begin, Val end, Val step, const T &start, Body &&body) {
  return refilled(start, ir.forLoop(begin, end, step, flatten(start), [&](Val index, const Vals &values) {
    return flatten<T>(body(index, refilled(start, values)));
  }));
}

/// start -> body(state) as long as more(state) holds; the last state.
template <class T, class More, class Body> T whileLoop(Ir &ir, const T &start, More &&more, Body &&body) {
  return refilled(start,
                  ir.whileLoop(
                      flatten(start), [&](const Vals &values) { return Val(more(refilled(start, values))); },
                      [&](const Vals &values) { return flatten<T>(body(refilled(start, values))); }));
}

/// The state that the branch taken returns; both have as many values.
template <class Yes, class No> auto ifElse(Ir &ir, Val condition, Yes &&yes, No &&no) {
  using T = std::invoke_result_t<Yes>;
  static_assert(std::same_as<T, std::invoke_result_t<No>>);
  T shape;
  Vals values = ir.ifElse(
      condition,
      [&] {
        shape = yes();
        return flatten(shape);
      },
      [&] { return flatten<T>(no()); });
  return refilled(std::move(shape), values);
}

} // namespace flashplus::carry
