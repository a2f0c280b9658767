// SPDX-License-Identifier: BSD-3-Clause
#include "tools/flashplus/pages.h"

#include "tools/io/convert.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <random>

namespace flashplus::tool {

Result<PagedKeys> makePages(const Problem &problem) {
  const int64_t size = problem.page_size, first = problem.ragged() ? 0 : 1;
  const auto lengths = sequenceLengths(problem);
  const auto batch = static_cast<int64_t>(lengths.size());
  int64_t total = 0, most = 0;
  for (auto [queries, keys] : lengths) {
    const int64_t pages = (keys + size - 1) / size;
    total += pages;
    most = std::max(most, pages);
  }
  std::vector<int32_t> order(static_cast<size_t>(total));
  std::iota(order.begin(), order.end(), 0);
  if (problem.random_pages)
    std::shuffle(order.begin(), order.end(), std::mt19937(1));

  PagedKeys paged;
  for (auto [type, shape, to] :
       {std::tuple(io::ElementType::I32, std::vector<int64_t>{batch, most}, &paged.block_table),
        std::tuple(io::ElementType::I32, std::vector<int64_t>{batch}, &paged.seqused_k)}) {
    Result<io::Tensor> made = io::makeTensor(type, shape);
    if (!made)
      return made.status();
    *to = std::move(*made);
  }
  for (auto [rows, pool] : {std::pair(&problem.k, &paged.k), std::pair(&problem.v, &paged.v)}) {
    const int64_t heads = rows->shape[size_t(first) + 1], dim = rows->shape[size_t(first) + 2];
    Result<io::Tensor> made = io::makeTensor(rows->type, {total, size, heads, dim});
    if (!made)
      return made.status();
    *pool = std::move(*made);
    std::ranges::fill(pool->data, std::byte{0xff});
    const size_t row = size_t(heads * dim) * io::elementBytes(rows->type);
    int64_t page = 0; // of all sequences
    for (int64_t b = 0; b < batch; ++b) {
      const int64_t start = problem.ragged() ? static_cast<int64_t>(io::elementAt(*problem.cu_seqlens_k, b))
                                             : b * rows->shape[1];
      const int64_t keys = lengths[size_t(b)].second;
      for (int64_t i = 0; i < keys; ++i)
        std::memcpy(pool->data.data() + size_t(order[size_t(page + i / size)] * size + i % size) * row,
                    rows->data.data() + size_t(start + i) * row, row);
      page += (keys + size - 1) / size;
    }
  }
  auto *table = reinterpret_cast<int32_t *>(paged.block_table.data.data());
  auto *used = reinterpret_cast<int32_t *>(paged.seqused_k.data.data());
  for (int64_t b = 0, page = 0; b < batch; ++b) {
    used[b] = static_cast<int32_t>(lengths[size_t(b)].second);
    for (int64_t e = 0; e < most; ++e)
      table[b * most + e] = e * size < used[b] ? order[size_t(page++)] : -1;
  }
  return paged;
}

} // namespace flashplus::tool
