# SPDX-License-Identifier: BSD-3-Clause
"""Packing padded batches and back: what flash_attn.bert_padding offers. Plain torch; differentiable."""

import torch
from einops import rearrange, repeat  # clients import both from here


class IndexFirstAxis(torch.autograd.Function):
    """x[indices] along the first axis; the backward adds nothing up, so that indices must not repeat."""

    @staticmethod
    def forward(ctx, x, indices):
        ctx.save_for_backward(indices)
        ctx.rows = x.shape[0]
        return x.index_select(0, indices)

    @staticmethod
    def backward(ctx, grad):
        (indices,) = ctx.saved_tensors
        full = grad.new_zeros((ctx.rows, *grad.shape[1:]))
        full[indices] = grad
        return full, None


class IndexPutFirstAxis(torch.autograd.Function):
    """Zeros with `values` at `indices` along the first axis."""

    @staticmethod
    def forward(ctx, values, indices, first_axis_dim):
        ctx.save_for_backward(indices)
        out = values.new_zeros((first_axis_dim, *values.shape[1:]))
        out[indices] = values
        return out

    @staticmethod
    def backward(ctx, grad):
        (indices,) = ctx.saved_tensors
        return grad.index_select(0, indices), None, None


class IndexFirstAxisResidual(torch.autograd.Function):
    """(x[indices], x): the second is passed on, so that its gradient and that of the first are added in one buffer."""

    @staticmethod
    def forward(ctx, x, indices):
        ctx.save_for_backward(indices)
        return x.index_select(0, indices), x.detach()

    @staticmethod
    def backward(ctx, grad, grad_residual):
        (indices,) = ctx.saved_tensors
        full = grad_residual.clone()
        full.index_add_(0, indices, grad)
        return full, None


index_first_axis = IndexFirstAxis.apply
index_put_first_axis = IndexPutFirstAxis.apply
index_first_axis_residual = IndexFirstAxisResidual.apply


def _cumulative(lengths):
    return torch.nn.functional.pad(torch.cumsum(lengths, dim=0, dtype=torch.int32), (1, 0))


def unpad_input(hidden_states, attention_mask, unused_mask=None):
    """(tokens (nnz, ...), indices (nnz), cu_seqlens (batch + 1) int32, max_seqlen, seqused (batch) int32)

    hidden_states: (batch, seqlen, ...). attention_mask: (batch, seqlen), true for tokens to keep. unused_mask: tokens
    that are kept as well, and counted in cu_seqlens, but not in seqused.
    """
    for name, mask in (("attention_mask", attention_mask), ("unused_mask", unused_mask)):
        if mask is not None and mask.shape != hidden_states.shape[:2]:
            raise ValueError(f"{name} has shape {tuple(mask.shape)}; it must be (batch, seqlen) of hidden_states, "
                             f"{tuple(hidden_states.shape[:2])}")
    kept = attention_mask if unused_mask is None else attention_mask + unused_mask
    lengths = kept.sum(dim=-1, dtype=torch.int32)
    used = attention_mask.sum(dim=-1, dtype=torch.int32)
    indices = torch.nonzero(kept.flatten(), as_tuple=False).flatten()
    max_seqlen = int(lengths.max())
    tokens = index_first_axis(hidden_states.reshape(-1, *hidden_states.shape[2:]), indices)
    return tokens, indices, _cumulative(lengths), max_seqlen, used


def unpad_input_for_concatenated_sequences(hidden_states, attention_mask_in_length):
    """(tokens, indices, cu_seqlens, max_seqlen) for rows that hold several sequences each.

    hidden_states: (batch, seqlen, ...).
    attention_mask_in_length: (batch, seqlen); row b holds the lengths of its sequences, then zeros."""
    if attention_mask_in_length.shape != hidden_states.shape[:2]:
        raise ValueError(f"attention_mask_in_length has shape {tuple(attention_mask_in_length.shape)}; it must be "
                         f"(batch, seqlen) of hidden_states, {tuple(hidden_states.shape[:2])}")
    total = attention_mask_in_length.sum(dim=-1)
    positions = torch.arange(attention_mask_in_length.shape[1], device=total.device)
    kept = positions[None, :] < total[:, None]
    lengths = attention_mask_in_length.flatten()
    lengths = lengths[lengths > 0].to(torch.int32)
    indices = torch.nonzero(kept.flatten(), as_tuple=False).flatten()
    tokens = index_first_axis(hidden_states.reshape(-1, *hidden_states.shape[2:]), indices)
    return tokens, indices, _cumulative(lengths), int(lengths.max())


def pad_input(hidden_states, indices, batch, seqlen):
    """(batch, seqlen, ...): unpad_input's inverse, differentiable.

    hidden_states: tokens (nnz, ...). indices: int64 (nnz), where each goes in the flat (batch * seqlen). batch, seqlen:
    ints. What no token goes to is 0.
    """
    full = index_put_first_axis(hidden_states, indices, batch * seqlen)
    return full.reshape(batch, seqlen, *hidden_states.shape[1:])
