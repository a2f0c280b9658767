// SPDX-License-Identifier: BSD-3-Clause
// Precompiled: what nearly every file of the command includes, and what takes long to parse.
#pragma once

#include <CLI/CLI.hpp>
#include <flashplus/flashplus.h>
#include <nlohmann/json.hpp>

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>
