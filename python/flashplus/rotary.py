# SPDX-License-Identifier: BSD-3-Clause
"""Rotary position embedding: flash_attn.layers.rotary and flash_attn.ops.triton.rotary. Plain torch, so it runs on any
device; the arithmetic is in fp32, the result in x's dtype."""

import torch

from flashplus import checks, direct


def rotate_half(x, interleaved=False):
    """(-x2, x1) of the halves of x (..., head_dim), or with interleaved (False by default) of pairs of neighbours.
    """
    if interleaved:
        return torch.stack((-x[..., 1::2], x[..., ::2]), dim=-1).flatten(-2)
    x1, x2 = x.chunk(2, dim=-1)
    return torch.cat((-x2, x1), dim=-1)


def apply_rotary_emb_torch(x, cos, sin, interleaved=False):
    """The definition, in plain PyTorch.

    x: (batch, seqlen, heads, head_dim). cos, sin: (seqlen, rotary_dim / 2) or (batch, seqlen, ..).
    interleaved: False: pairs are (i, i + rotary_dim / 2); True: (2i, 2i + 1).
    """
    rotary_dim = cos.shape[-1] * 2
    if rotary_dim > x.shape[-1]:
        raise ValueError(f"cos has {cos.shape[-1]} columns; twice that must be at most x's head_dim, {x.shape[-1]}")
    expand = (lambda t: t.repeat_interleave(2, dim=-1)) if interleaved else (lambda t: torch.cat((t, t), dim=-1))
    cos, sin = (expand(t).unsqueeze(-2) for t in (cos, sin))
    head = x[..., :rotary_dim]
    return torch.cat((head * cos + rotate_half(head, interleaved) * sin, x[..., rotary_dim:]), dim=-1)


def _rows(x, cos, sin, positions, seqlens_known):
    """cos and sin at `positions`; outside the table the rotation is none (cos 1, sin 0)."""
    if seqlens_known:
        return cos[positions], sin[positions]
    outside = ((positions < 0) | (positions >= cos.shape[0])).unsqueeze(-1)
    inside = positions.clamp(0, cos.shape[0] - 1)
    return cos[inside].masked_fill(outside, 1.0), sin[inside].masked_fill(outside, 0.0)


def apply_rotary(x, cos, sin, seqlen_offsets=0, cu_seqlens=None, max_seqlen=None, interleaved=False, inplace=False,
                 conjugate=False):
    """x (batch, seqlen, heads, head_dim), or (total, heads, head_dim) with cu_seqlens (batch + 1) and max_seqlen.

    cos, sin: (seqlen_ro, rotary_dim / 2). Token i of sequence b is at position seqlen_offsets (an int or (batch)) + i.
    cos and sin have a row for every token of the longest sequence at least; what seqlen_offsets, a tensor, moves
    beyond them is not rotated.
    interleaved: pairs are (2i, 2i + 1), else (i, i + rotary_dim / 2).
    conjugate: rotates the other way, which is the backward. inplace: writes into x and returns it.
    """
    if cos.shape != sin.shape or cos.dim() != 2:
        raise ValueError(f"cos and sin have shapes {tuple(cos.shape)} and {tuple(sin.shape)}; they must be equal, "
                         "(seqlen_ro, rotary_dim / 2)")
    if x.dim() != (4 if cu_seqlens is None else 3):
        raise ValueError(
            f"x has shape {tuple(x.shape)}; it must be (batch, seqlen, heads, head_dim), or (total, heads, "
            "head_dim) with cu_seqlens")
    for name, t in (("x", x), ("cos", cos), ("sin", sin)):
        if not t.is_floating_point():
            raise TypeError(f"{name} is {t.dtype}; it must be of floating point")
    half, head_dim = cos.shape[1], x.shape[-1]
    if 2 * half > head_dim:
        raise ValueError(f"cos has {half} columns; twice that must be at most x's head_dim, {head_dim}")
    if cu_seqlens is not None and max_seqlen is None:
        raise ValueError("max_seqlen is None; it must be given with cu_seqlens")
    longest = x.shape[1] if cu_seqlens is None else checks.integer("max_seqlen", max_seqlen)
    # Lengths on the host are read, where nobody looks on: rows behind max_seqlen would stay as they are.
    if cu_seqlens is not None and cu_seqlens.device.type == "cpu" and direct.trains(cu_seqlens) \
            and cu_seqlens.numel() > 1 and (held := int(cu_seqlens.diff().max())) > longest:
        raise ValueError(f"max_seqlen is {longest}, but cu_seqlens holds a sequence of {held} rows; it must be at "
                         "least that")
    fixed = not isinstance(seqlen_offsets, torch.Tensor)
    if fixed:
        seqlen_offsets = checks.integer("seqlen_offsets", seqlen_offsets)
        if seqlen_offsets < 0:
            raise ValueError(f"seqlen_offsets is {seqlen_offsets}; it must not be negative")
    if longest > cos.shape[0]:
        raise ValueError(f"the longest sequence has {longest} rows; cos and sin, which have {cos.shape[0]}, must have "
                         "at least as many")
    if fixed and seqlen_offsets + longest > cos.shape[0]:
        raise ValueError(
            f"seqlen_offsets is {seqlen_offsets} and the longest sequence {longest}; together they must be "
            f"at most the {cos.shape[0]} rows of cos")
    if cu_seqlens is None:
        positions = torch.arange(longest, device=x.device)
        if fixed:
            positions = positions + seqlen_offsets
        else:
            positions = positions[None, :] + seqlen_offsets[:, None]
    else:
        rows = torch.arange(x.shape[0], device=x.device)
        # Rows past the last sequence stay at position "beyond": they are not rotated.
        sequence = torch.searchsorted(cu_seqlens[1:].contiguous(), rows, right=True)
        known = sequence.clamp(max=cu_seqlens.numel() - 2)
        positions = rows - cu_seqlens[known] + (seqlen_offsets if fixed else seqlen_offsets[known])
        positions = torch.where(sequence > known, cos.shape[0], positions)
    cos, sin = _rows(x, cos.float(), sin.float(), positions, fixed and cu_seqlens is None)
    if conjugate:
        sin = -sin
    cos, sin = cos.unsqueeze(-2), sin.unsqueeze(-2)
    if interleaved:
        pair = lambda t: (t[..., 0:2 * half:2], t[..., 1:2 * half:2])
    else:
        pair = lambda t: (t[..., :half], t[..., half:2 * half])
    a, b = (t.float() for t in pair(x))
    # Both are made before either is written, since out may be x.
    new_low, new_high = a * cos - b * sin, a * sin + b * cos
    if not inplace and torch._C._are_functorch_transforms_active():  # which see nothing of what is written
        parts = torch.stack((new_low, new_high), -1).flatten(-2) if interleaved else torch.cat((new_low, new_high), -1)
        return torch.cat((parts.to(x.dtype), x[..., 2 * half:]), -1)
    out = x if inplace else torch.empty_like(x)
    low, high = pair(out)
    low.copy_(new_low)
    high.copy_(new_high)
    if not inplace and 2 * half < head_dim:
        out[..., 2 * half:] = x[..., 2 * half:]
    return out


def _written(ctx, x):
    """x was rotated in place. Where autograd allows it x itself gets the rotation's gradient. It allows no leaf that
    wants one and no view, which the original rotates nevertheless: there only what is returned has it."""
    if not (x.requires_grad and (x.is_leaf or x._is_view())):
        ctx.mark_dirty(x)


class ApplyRotaryEmb(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, cos, sin, interleaved=False, inplace=False, seqlen_offsets=0, cu_seqlens=None, max_seqlen=None):
        ctx.save_for_backward(cos, sin, cu_seqlens,
                              seqlen_offsets if isinstance(seqlen_offsets, torch.Tensor) else None)
        ctx.arguments = (interleaved, inplace, seqlen_offsets if not isinstance(seqlen_offsets, torch.Tensor) else None,
                         max_seqlen)
        out = apply_rotary(x, cos, sin, seqlen_offsets, cu_seqlens, max_seqlen, interleaved, inplace)
        if inplace:
            _written(ctx, x)
        return out

    @staticmethod
    def backward(ctx, grad):
        cos, sin, cu_seqlens, offsets = ctx.saved_tensors
        interleaved, _, fixed, max_seqlen = ctx.arguments
        dx = apply_rotary(grad, cos, sin, fixed if offsets is None else offsets, cu_seqlens, max_seqlen, interleaved,
                          conjugate=True)
        return (dx, *[None] * 7)


def apply_rotary_emb(x, cos, sin, interleaved=False, inplace=False, seqlen_offsets=0, cu_seqlens=None, max_seqlen=None):
    """apply_rotary with a gradient for x.

    x, cos, sin, interleaved, inplace, seqlen_offsets, cu_seqlens, max_seqlen: as apply_rotary's.
    """
    if not inplace and torch._C._are_functorch_transforms_active():  # takes no autograd.Function of this form
        return apply_rotary(x, cos, sin, seqlen_offsets, cu_seqlens, max_seqlen, interleaved)
    return ApplyRotaryEmb.apply(x, cos, sin, interleaved, inplace, seqlen_offsets, cu_seqlens, max_seqlen)


apply_rotary_emb_func = apply_rotary_emb


def _rotate_parts(parts, tables, interleaved, seqlen_offsets, conjugate=False):
    for part, (cos, sin) in zip(parts, tables):
        apply_rotary(part, cos, sin, seqlen_offsets, interleaved=interleaved, inplace=True, conjugate=conjugate)


class _ApplyPacked(torch.autograd.Function):
    """Rotates the first parts of a packed tensor in place."""

    @staticmethod
    def keep(ctx, packed, tables, split, interleaved, seqlen_offsets):
        offsets = seqlen_offsets if isinstance(seqlen_offsets, torch.Tensor) else None
        ctx.save_for_backward(offsets, *(t for pair in tables for t in pair))
        ctx.arguments = split, interleaved, None if offsets is not None else seqlen_offsets
        _rotate_parts(split(packed), tables, interleaved, seqlen_offsets)
        _written(ctx, packed)
        return packed

    @staticmethod
    def gradient(ctx, grad):
        offsets, *tables = ctx.saved_tensors
        split, interleaved, fixed = ctx.arguments
        grad = grad.clone(memory_format=torch.contiguous_format)
        _rotate_parts(split(grad), list(zip(tables[::2], tables[1::2])), interleaved,
                      fixed if offsets is None else offsets, conjugate=True)
        return grad


class ApplyRotaryEmbQKV_(_ApplyPacked):
    @staticmethod
    def forward(ctx, qkv, cos, sin, cos_k=None, sin_k=None, interleaved=False, seqlen_offsets=0, num_heads_q=None):
        split = checks.qkv_split(qkv, num_heads_q)
        tables = [(cos, sin), (cos if cos_k is None else cos_k, sin if sin_k is None else sin_k)]
        return _ApplyPacked.keep(ctx, qkv, tables, split, interleaved, seqlen_offsets)

    @staticmethod
    def backward(ctx, grad):
        return (_ApplyPacked.gradient(ctx, grad), *[None] * 7)


class ApplyRotaryEmbKV_(_ApplyPacked):
    @staticmethod
    def forward(ctx, kv, cos, sin, interleaved=False, seqlen_offsets=0):
        return _ApplyPacked.keep(ctx, kv, [(cos, sin)], lambda t: t.unbind(2), interleaved, seqlen_offsets)

    @staticmethod
    def backward(ctx, grad):
        return (_ApplyPacked.gradient(ctx, grad), *[None] * 4)


def apply_rotary_emb_qkv_(qkv, cos, sin, cos_k=None, sin_k=None, interleaved=False, seqlen_offsets=0, num_heads_q=None):
    """Rotates queries and keys in place and returns qkv, with a gradient.

    qkv: (batch, seqlen, 3, heads, head_dim), or with num_heads_q (batch, seqlen, num_heads_q + 2 heads_k, head_dim).
    cos, sin: (seqlen_ro, rotary_dim / 2). cos_k, sin_k: those of the keys; None: the same.
    interleaved, seqlen_offsets: as apply_rotary's.
    """
    return ApplyRotaryEmbQKV_.apply(qkv, cos, sin, cos_k, sin_k, interleaved, seqlen_offsets, num_heads_q)


def apply_rotary_emb_kv_(kv, cos, sin, interleaved=False, seqlen_offsets=0):
    """Rotates keys in place and returns kv, with a gradient.

    kv: (batch, seqlen, 2, heads, head_dim). cos, sin, interleaved, seqlen_offsets: as apply_rotary's.
    """
    return ApplyRotaryEmbKV_.apply(kv, cos, sin, interleaved, seqlen_offsets)


class RotaryEmbedding(torch.nn.Module):
    """Rotary embedding with a cached table; with scale_base that of XPos (arXiv:2212.10554)."""

    def __init__(self, dim, base=10000.0, interleaved=False, scale_base=None, device=None, pos_idx_in_fp32=True):
        super().__init__()
        self.dim, self.base, self.interleaved, self.scale_base = dim, float(base), interleaved, scale_base
        self.register_buffer("inv_freq", self._compute_inv_freq(device), persistent=False)
        scale = None
        if scale_base is not None:
            scale = (torch.arange(0, dim, 2, device=device, dtype=torch.float32) + 0.4 * dim) / (1.4 * dim)
        self.register_buffer("scale", scale, persistent=False)
        self._seq_len_cached = 0
        self._cos_cached = self._sin_cached = self._cos_k_cached = self._sin_k_cached = None

    def _compute_inv_freq(self, device=None):
        return 1.0 / self.base ** (torch.arange(0, self.dim, 2, device=device, dtype=torch.float32) / self.dim)

    def _update_cos_sin_cache(self, seqlen, device=None, dtype=None):
        cached = self._cos_cached
        if (cached is not None and seqlen <= self._seq_len_cached and cached.device == torch.device(device or "cpu")
                and cached.dtype == dtype and not (self.training and cached.is_inference())):
            return
        self._seq_len_cached = seqlen
        t = torch.arange(seqlen, device=device, dtype=torch.float32)
        inv_freq = self.inv_freq if self.inv_freq.dtype == torch.float32 else self._compute_inv_freq(device)
        angles = torch.outer(t, inv_freq.to(device=device))
        cos, sin = angles.cos(), angles.sin()
        if self.scale is None:
            self._cos_cached, self._sin_cached = cos.to(dtype), sin.to(dtype)
            return
        power = (t - seqlen // 2) / self.scale_base
        scale = self.scale.to(device=device) ** power.unsqueeze(-1)
        self._cos_cached, self._sin_cached = (cos * scale).to(dtype), (sin * scale).to(dtype)
        self._cos_k_cached, self._sin_k_cached = (cos / scale).to(dtype), (sin / scale).to(dtype)

    def forward(self, qkv, kv=None, seqlen_offset=0, max_seqlen=None, num_heads_q=None):
        """Rotates qkv and returns it; or, with kv, rotates q (qkv) and kv and returns both."""
        seqlen = qkv.shape[1]
        if max_seqlen is not None:
            self._update_cos_sin_cache(max_seqlen, device=qkv.device, dtype=qkv.dtype)
        elif isinstance(seqlen_offset, int):
            self._update_cos_sin_cache(seqlen + seqlen_offset, device=qkv.device, dtype=qkv.dtype)
        if self._cos_cached is None:
            raise ValueError("max_seqlen is None; it must be given with a seqlen_offset that is a tensor")
        cos, sin = self._cos_cached, self._sin_cached
        cos_k = cos if self.scale is None else self._cos_k_cached
        sin_k = sin if self.scale is None else self._sin_k_cached
        if kv is None:
            return apply_rotary_emb_qkv_(qkv, cos, sin, cos_k, sin_k, self.interleaved, seqlen_offset, num_heads_q)
        q = apply_rotary_emb(qkv, cos, sin, self.interleaved, True, seqlen_offset)
        return q, apply_rotary_emb_kv_(kv, cos_k, sin_k, self.interleaved, seqlen_offset)
