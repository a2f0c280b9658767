# SPDX-License-Identifier: BSD-3-Clause
"""python -m flash_attn warmup ...: the command `flashplus` with the same arguments."""

from flashplus.command import main

main()
