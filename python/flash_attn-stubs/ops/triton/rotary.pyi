# SPDX-License-Identifier: BSD-3-Clause
from flashplus.rotary import apply_rotary as apply_rotary
