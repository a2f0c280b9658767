// SPDX-License-Identifier: BSD-3-Clause
#include "templates/common/work.h"

namespace flashplus {

namespace {

/// Where an item is: its section, its number there, and how many triples that has.
struct InSection {
  Val section, inside, present;
};

/// Of `items` with `m_tiles` a triple, `section_heads` triples a section.
InSection inSection(Ir &ir, Val item, Val items, Val m_tiles, Val section_heads) {
  Val section_items = m_tiles * section_heads;
  Val section = item / section_items, inside = item % section_items;
  // The last section may be smaller.
  return {section, inside, ir.min(section_heads, (items - section * section_items) / m_tiles)};
}

} // namespace

WorkItem decodeWorkItem(Ir &ir, const ParamReader &params, const KernelSpec &spec, Val item,
                        HeadsOfItem heads_of_item, Val m_tiles) {
  WorkItem w;
  Val items = params.get("num_work_items"), section_heads = params.get("heads_per_section");
  if (m_tiles)
    items = items / params.get("num_m_tiles") * m_tiles;
  else
    m_tiles = params.get("num_m_tiles");
  const auto [section, inside, present] = inSection(ir, item, items, m_tiles, section_heads);
  w.m = inside / present;
  if (heads_of_item != HeadsOfItem::Keys)
    w.m = m_tiles - w.m - 1;
  Val rest = section * section_heads + inside % present;
  w.group = params.get("heads_q") / params.get("heads_k");
  Val heads = params.get(heads_of_item == HeadsOfItem::One ? "heads_q" : "heads_k");
  if (heads_of_item == HeadsOfItem::One) {
    w.head = rest % heads;
    w.head_k = w.head / w.group;
  } else if (heads_of_item != HeadsOfItem::Groups) {
    w.head_k = rest % heads;
    w.head = w.head_k * w.group;
  } else {
    Val key_heads = heads;
    heads = items / (params.get("batch") * params.get("num_splits") * m_tiles);
    Val size = (key_heads + heads - 1) / heads;
    w.head_k = rest % heads * size;
    w.head = w.head_k * w.group;
    w.key_heads = ir.max(ir.i32(0), ir.min(size, key_heads - w.head_k));
  }
  rest = rest / heads;
  if (spec.sharesKeys()) {
    Val splits = params.get("num_splits");
    w.split = rest % splits;
    rest = rest / splits;
  } else {
    w.split = ir.i32(0);
  }
  w.batch = rest;
  return w;
}

WorkItem decodeSequenceItem(Ir &ir, const ParamReader &params, const KernelSpec &spec, Val batch, Val m_tiles,
                            Val item) {
  Val section_heads = params.get("heads_per_section"), heads = params.get("heads_q");
  const auto [section, inside, present] =
      inSection(ir, item, itemsOfTile(params, spec) * m_tiles, m_tiles, section_heads);
  Val triple = section * section_heads + inside % present;
  WorkItem w;
  w.m = m_tiles - inside / present - 1;
  w.batch = batch;
  w.group = heads / params.get("heads_k");
  w.head = spec.sharesKeys() ? triple % heads : triple;
  w.split = spec.sharesKeys() ? triple / heads : ir.i32(0);
  w.head_k = w.head / w.group;
  return w;
}

Val itemsOfTile(const ParamReader &params, const KernelSpec &spec) {
  Val heads = params.get("heads_q");
  return spec.sharesKeys() ? heads * params.get("num_splits") : heads;
}

} // namespace flashplus
