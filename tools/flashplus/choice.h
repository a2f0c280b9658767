// SPDX-License-Identifier: BSD-3-Clause
// Flags whose values are words.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

namespace flashplus::tool {

/// For transform(): allows `words`. Another one is answered with them, and with what may have been meant.
CLI::Validator oneOf(std::vector<std::string> words);
/// The same for fp16, bf16, fp32 and `more`; PyTorch's names of the three are taken, too.
CLI::Validator dtypeNames(std::vector<std::string> more = {});

} // namespace flashplus::tool
