# SPDX-License-Identifier: BSD-3-Clause
"""Dropout: where seeds come from, and the mask that they give.

A forward that drops draws `rng_state`, int64 (2) on the device of q, with PyTorch's own generator of that device: so
manual_seed, fork_rng, checkpointing (preserve_rng_state) and the capture of a CUDA graph, whose replays draw anew,
do with it what they do with every random operation of PyTorch. Kernels read it when they run; the backward gets it back
(docs/rationale/dropout.md)."""

import ctypes

import torch

from flashplus import c_api, library


def check(p, softcap=0.0):
    """dropout_p as a number that is at least 0 and below 1."""
    if type(p) is not float:
        p = _number(p)
    if not 0.0 <= p < 1.0:  # NaN too
        raise ValueError(f"dropout_p is {p}; it must be at least 0 and less than 1")
    if p > 255 / 256:
        raise ValueError(f"dropout_p is {p}; above 255/256 = 0.99609375 a mask of 8 bits cannot keep that few")
    if p and softcap > 0.0:
        raise RuntimeError("Softcapping does not support dropout for now")
    return p


def _number(p):
    try:
        if isinstance(p, (str, bytes)):
            raise TypeError
        return float(p)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"dropout_p is {p!r}; it must be a number") from None


def draw(like):
    """A new rng_state on the device of `like`: the generator moves on."""
    return torch.empty(2, dtype=torch.int64, device=like.device).random_()


def state_of(p, rng_state):
    """The rng_state of a backward with dropout_p `p`; None without dropout."""
    if not p:
        return None
    if rng_state is None:
        raise ValueError(f"rng_state is None; with dropout_p {p} it must be what the forward returned")
    return rng_state


def mask(rng_state, p, batch, heads, rows, keys):
    """bool (batch, heads, rows, keys) on the CPU: True where a probability is kept."""
    seed, offset = rng_state.tolist()
    kept = torch.empty((batch, heads, rows, keys), dtype=torch.uint8)
    args = c_api.DropoutMaskArgs(struct_size=ctypes.sizeof(c_api.DropoutMaskArgs), seed=seed % 2**64,
                                 offset=offset % 2**64, batch=batch, heads=heads, rows=rows, keys=keys, dropout_p=p)
    lib = library.get()
    status = lib.dropout_mask(ctypes.byref(args), kept.data_ptr())
    if status:
        raise library.failure(status, lib.last_error())
    return kept.bool()


def probabilities(rng_state, p, q, k, softmax_scale, causal, window_left, window_right, alibi_slopes, lengths=None,
                  rows=None, keys=None):
    """The original's S_dmask: (batch, heads, rows, keys rounded up to 128), q's dtype. |value| is exp(s - the row's
    largest s), 0 for what is hidden; the sign is negative where it is dropped. For tests: as much memory as it says.

    `lengths`: [(first row of q, rows, first row of k, keys)] of packed sequences, of at most `rows` and `keys`."""
    if lengths is None:
        rows, keys = q.shape[1], k.shape[1]
        parts = [(q[b], k[b]) for b in range(q.shape[0])]
    else:
        parts = [(q[i:i + n], k[j:j + m]) for i, n, j, m in lengths]
    heads = q.shape[-2]
    padded = [(n + 127) // 128 * 128 for n in (rows, keys)]
    result = torch.zeros((len(parts), heads, *padded), dtype=q.dtype, device=q.device)
    kept = mask(rng_state, p, len(parts), heads, rows, keys).to(q.device)
    for b, (qb, kb) in enumerate(parts):
        n, m = qb.shape[0], kb.shape[0]
        if not n or not m:
            continue
        s = torch.einsum("ihd,jhd->hij", qb.float() * softmax_scale,
                         kb.float().repeat_interleave(heads // kb.shape[1], dim=1))
        at = torch.arange(n, device=q.device)[:, None] + (m - n)  # the key at the same place, counted from the end
        key = torch.arange(m, device=q.device)[None]
        if alibi_slopes is not None:
            slopes = alibi_slopes[b] if alibi_slopes.dim() == 2 else alibi_slopes
            s = s - slopes[:, None, None] * (at - key).abs()
        seen = torch.ones((n, m), dtype=torch.bool, device=q.device)
        if causal:
            window_right = 0
        if window_right >= 0:
            seen &= key <= at + window_right
        if window_left >= 0:
            seen &= key >= at - window_left
        s = s.masked_fill(~seen, -torch.inf)
        value = (s - s.amax(-1, keepdim=True)).exp().nan_to_num(0.0)
        result[b, :, :n, :m] = torch.where(kept[b, :, :n, :m], value, -value)
    return result
