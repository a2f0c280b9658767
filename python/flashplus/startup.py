# SPDX-License-Identifier: BSD-3-Clause
"""Imported by flash_attn_plus.pth at the start of every interpreter: must be quick and must not fail."""

from flashplus import environment, finder

if environment.face():
    finder.install()
