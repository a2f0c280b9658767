// SPDX-License-Identifier: BSD-3-Clause
// Only so that there is a target which makes the precompiled header of tests/pch.h.
