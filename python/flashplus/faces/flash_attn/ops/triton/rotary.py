# SPDX-License-Identifier: BSD-3-Clause
"""The original's module of this name; the code is in flashplus.rotary, without Triton."""

from flashplus.rotary import apply_rotary
