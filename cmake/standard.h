// SPDX-License-Identifier: BSD-3-Clause
// Precompiled: the standard headers that most files of the rooms without LLVM include. A file still includes
// what it uses: the thread-sanitized build, which is compiled without this, finds what is missing.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <charconv>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>
