# SPDX-License-Identifier: BSD-3-Clause
"""Our kernels under PyTorch's own attention: an entry of its registry of flash attention implementations, which a user
activates and restores:

    flashplus.register_torch()
    torch.nn.attention.activate_flash_attention_impl("FLASHPLUS")

F.scaled_dot_product_attention and torch.nn.attention.varlen.varlen_attn then call us, on CUDA where PyTorch would take
flash attention, and on the CPU. cuDNN, which PyTorch asks first on Hopper, is off as long as ours is active. What our
kernels don't have on the CPU (fp64, head dims above 256) goes on to PyTorch's. docs/rationale/python-face.md."""

import torch

from flashplus import checks, frames, kernels, kvcache, scores

_INF = float("inf")
_OURS = (torch.float16, torch.bfloat16, torch.float32)


def register_torch(name="FLASHPLUS"):
    """Adds an implementation to PyTorch's registry of flash attention and returns its name; activates nothing.

    name: what torch.nn.attention.activate_flash_attention_impl is to be called with. While it is active,
    F.scaled_dot_product_attention and varlen_attn use our kernels on CPU and CUDA tensors, forward and backward;
    restore_flash_attention_impl() undoes it. NotImplementedError where PyTorch has no such registry (before 2.10).
    """
    from torch.nn import attention

    if not hasattr(attention, "register_flash_attention_impl"):
        from flashplus.later import not_yet

        raise not_yet(f"way into PyTorch {torch.__version__}, which has no registry of flash attention",
                      "use PyTorch 2.10 or newer, or call flash_attn_func")
    attention.register_flash_attention_impl(name, register_fn=_Active)
    return name


class _Active:
    """The operators of PyTorch that are ours, until remove()."""

    def __init__(self):
        self.cudnn = torch.backends.cuda.cudnn_sdp_enabled()
        self.theirs = {name: torch.library.get_kernel(f"aten::{name}", "CPU") for name in
                       ("_scaled_dot_product_flash_attention_for_cpu",
                        "_scaled_dot_product_flash_attention_for_cpu_backward")}
        self.library = torch.library.Library("aten", "IMPL")
        for name, function, keys in (
            ("_flash_attention_forward", _forward, ("CPU", "CUDA")),
            ("_flash_attention_forward_no_dropout_inplace", _forward_into, ("CPU", "CUDA")),
            ("_flash_attention_backward", _backward, ("CPU", "CUDA")),
            ("_scaled_dot_product_flash_attention", _sdpa, ("CUDA",)),
            ("_scaled_dot_product_flash_attention_backward", _sdpa_backward, ("CUDA",)),
            ("_scaled_dot_product_flash_attention_for_cpu", self.sdpa_on_cpu, ("CPU",)),
            ("_scaled_dot_product_flash_attention_for_cpu_backward", self.sdpa_on_cpu_backward, ("CPU",))):
            for key in keys:
                self.library.impl(name, function, key, allow_override=True)
        torch.backends.cuda.enable_cudnn_sdp(False)

    def remove(self):
        self.library._destroy()
        torch.backends.cuda.enable_cudnn_sdp(self.cudnn)

    def _call_theirs(self, name, *arguments, **named):
        keys = torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)
        return self.theirs[name].call_boxed(keys, *arguments, **named)

    def sdpa_on_cpu(self, query, key, value, dropout_p=0.0, is_causal=False, *, attn_mask=None, scale=None):
        if not _fits(query, key, value, attn_mask, dropout_p):
            return self._call_theirs("_scaled_dot_product_flash_attention_for_cpu", query, key, value, dropout_p,
                                     is_causal, attn_mask=attn_mask, scale=scale)
        out = frames.rows_like(query)
        q, k, v, options = _as_ours(query, key, value, is_causal, attn_mask)
        _, lse = kernels.dense(q, k, v, out.transpose(1, 2), None, scale, options["causal"], -1, options["right"], 0.0,
                               True, -_INF, score=options["score"])
        # As PyTorch's own lies in memory, which compilers rely on.
        return out, lse.transpose(1, 2).contiguous().transpose(1, 2)

    def sdpa_on_cpu_backward(self, grad_out, query, key, value, out, logsumexp, dropout_p, is_causal, *, attn_mask=None,
                             scale=None):
        if not _fits(query, key, value, attn_mask, dropout_p):
            return self._call_theirs("_scaled_dot_product_flash_attention_for_cpu_backward", grad_out, query, key,
                                     value, out, logsumexp, dropout_p, is_causal, attn_mask=attn_mask, scale=scale)
        q, k, v, options = _as_ours(query, key, value, is_causal, attn_mask)
        whole = [torch.zeros_like(t.transpose(1, 2), memory_format=torch.contiguous_format)
                 for t in (query, key, value)]
        grads = [whole[0], *(g[:, :k.shape[1]] for g in whole[1:])]
        kernels.gradients(
            grad_out.transpose(1, 2), q, k, v, out.transpose(1, 2), logsumexp.contiguous(),
            **dict(zip(("dq", "dk", "dv"), grads)), softmax_scale=_scale(scale, q), causal=options["causal"],
            window_left=-1, window_right=options["right"], softcap=0.0, score=options["score"])
        return tuple(g.transpose(1, 2) for g in whole)


def _scale(scale, q):
    return checks.default_scale(q) if scale is None else scale


def _fits(query, key, value, mask, dropout_p):
    """Whether our kernels have this."""
    return (query.dim() == 4 and query.stride(-1) == 1 and query.dtype in _OURS and 0 < query.shape[-1] <= 256
            and 0 < value.shape[-1] <= 256 and not dropout_p and query.shape[0] > 0
            and (mask is None or mask.dim() in (2, 4)))


def _as_ours(query, key, value, is_causal, mask):
    """(q, k, v, options): PyTorch's causal is aligned at the top left, ours at the bottom right; keys that no query
    sees are left out. A mask is a score."""
    q, k, v = (t.transpose(1, 2) for t in (query, key, value))
    right, seqlen_q, seqlen_k = -1, q.shape[1], k.shape[1]
    if is_causal:
        k, v = k[:, :seqlen_q], v[:, :seqlen_q]
        right = seqlen_q - k.shape[1]
    score = None
    if mask is not None:
        mask = mask.float().expand(q.shape[0], q.shape[2], seqlen_q, seqlen_k)
        score = scores.Score("s + mask[b, h, q, k]", {"mask": mask}, {})
    return q, k, v, {"causal": right == 0, "right": right, "score": score}


def _side(side):
    return -1 if side is None else side


def _attend(out, query, key, value, cum_seq_q, cum_seq_k, max_q, max_k, dropout_p, is_causal, scale, left, right,
            seqused_k, alibi_slopes, block_table, num_splits):
    """(out, lse, rng_state)"""
    rng_state = kernels._rng_state(query, dropout_p)
    numbers = _scale(scale, query), is_causal, _side(left), _side(right), 0.0
    splits = num_splits or 0
    if block_table is not None or seqused_k is not None and cum_seq_k is None:
        scale, causal, left, right, _ = numbers
        out, lse = kvcache.attention(
            query, key, value, softmax_scale=scale, causal=causal, window_left=left, window_right=right, out=out,
            num_splits=splits, max_seqlen_q=max_q, max_seqlen_k=max_k, want_lse=True, cu_seqlens_q=cum_seq_q,
            cu_seqlens_k=cum_seq_k if seqused_k is None else None, seqused_k=seqused_k, block_table=block_table,
            alibi_slopes=alibi_slopes)
    elif cum_seq_q is None:
        out, lse = kernels.dense(query, key, value, out, alibi_slopes, *numbers, True, num_splits=splits,
                                 dropout_p=dropout_p, rng_state=rng_state if dropout_p else None)
    else:
        scale, *rest = numbers
        out, lse = kernels.ragged(query, key, value, out, cum_seq_q, cum_seq_k, seqused_k, alibi_slopes, max_q, max_k,
                                  scale, False, *rest, True, num_splits=splits, dropout_p=dropout_p,
                                  rng_state=rng_state if dropout_p else None)
    return out, lse, rng_state


def _forward(query, key, value, cum_seq_q, cum_seq_k, max_q, max_k, dropout_p, is_causal, return_debug_mask, *,
             scale=None, window_size_left=None, window_size_right=None, seqused_k=None, alibi_slopes=None,
             block_table=None, num_splits=None):
    out, lse, rng_state = _attend(None, query, key, value, cum_seq_q, cum_seq_k, max_q, max_k, dropout_p, is_causal,
                                  scale, window_size_left, window_size_right, seqused_k, alibi_slopes, block_table,
                                  num_splits)
    return out, lse, rng_state, query.new_empty((), dtype=torch.int64), query.new_empty(0)


def _forward_into(out, query, key, value, cum_seq_q, cum_seq_k, max_q, max_k, dropout_p, is_causal, return_debug_mask,
                  *, scale=None, window_size_left=None, window_size_right=None, seqused_k=None, alibi_slopes=None,
                  block_table=None, num_splits=None):
    return _attend(out, query, key, value, cum_seq_q, cum_seq_k, max_q, max_k, 0.0, is_causal, scale, window_size_left,
                   window_size_right, seqused_k, alibi_slopes, block_table, num_splits)[1]


def _backward(grad_out, query, key, value, out, logsumexp, cum_seq_q, cum_seq_k, max_q, max_k, dropout_p, is_causal,
              rng_state, unused, *, scale=None, window_size_left=None, window_size_right=None):
    return kernels.gradients(
        grad_out, query, key, value, out, logsumexp, cu_seqlens_q=cum_seq_q, cu_seqlens_k=cum_seq_k,
        max_seqlen_q=max_q if cum_seq_q is not None else 0, max_seqlen_k=max_k if cum_seq_q is not None else 0,
        softmax_scale=_scale(scale, query), causal=is_causal, window_left=_side(window_size_left),
        window_right=_side(window_size_right), softcap=0.0, dropout_p=dropout_p,
        rng_state=rng_state if dropout_p else None, any_order=not torch.are_deterministic_algorithms_enabled())


def _sdpa(query, key, value, dropout_p=0.0, is_causal=False, return_debug_mask=False, *, scale=None):
    q, k, v = (t.transpose(1, 2) for t in (query, key, value))
    out, lse, rng_state, unused, debug = _forward(q, k, v, None, None, q.shape[1], k.shape[1], dropout_p, is_causal,
                                                  return_debug_mask, scale=scale)
    return out.transpose(1, 2), lse, None, None, q.shape[1], k.shape[1], rng_state, unused, debug


def _sdpa_backward(grad_out, query, key, value, out, logsumexp, cum_seq_q, cum_seq_k, max_q, max_k, dropout_p,
                   is_causal, philox_seed, philox_offset, *, scale=None):
    grads = _backward(*(t.transpose(1, 2) for t in (grad_out, query, key, value, out)), logsumexp, None, None, max_q,
                      max_k, dropout_p, is_causal, philox_seed, philox_offset, scale=scale)
    return tuple(t.transpose(1, 2) for t in grads)
