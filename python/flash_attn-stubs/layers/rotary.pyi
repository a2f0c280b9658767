# SPDX-License-Identifier: BSD-3-Clause
from flashplus.rotary import ApplyRotaryEmb as ApplyRotaryEmb
from flashplus.rotary import ApplyRotaryEmbKV_ as ApplyRotaryEmbKV_
from flashplus.rotary import ApplyRotaryEmbQKV_ as ApplyRotaryEmbQKV_
from flashplus.rotary import RotaryEmbedding as RotaryEmbedding
from flashplus.rotary import apply_rotary as apply_rotary
from flashplus.rotary import apply_rotary_emb as apply_rotary_emb
from flashplus.rotary import apply_rotary_emb_func as apply_rotary_emb_func
from flashplus.rotary import apply_rotary_emb_kv_ as apply_rotary_emb_kv_
from flashplus.rotary import apply_rotary_emb_qkv_ as apply_rotary_emb_qkv_
from flashplus.rotary import apply_rotary_emb_torch as apply_rotary_emb_torch
from flashplus.rotary import rotate_half as rotate_half
