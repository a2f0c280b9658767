# SPDX-License-Identifier: BSD-3-Clause
"""Our functions as an attention implementation of Hugging Face transformers, for devices where it refuses the string
"flash_attention_2" (the CPU). On a GPU that string works as it is and nothing of this is needed.

    import flash_attn
    model = AutoModel.from_pretrained(..., attn_implementation=flash_attn.register_transformers())
"""

import torch

from flashplus import bert_padding, environment
from flashplus.interface import flash_attn_func, flash_attn_varlen_func


def register_transformers(name="attention_plus"):
    """Registers attention_forward under `name` and returns it.

    The name must not contain "flash": transformers takes such names for kernels that it has to load itself."""
    if "flash" in name:
        raise ValueError(
            f"register_transformers: name is {name!r}; it must not contain 'flash', which transformers takes "
            "for kernels that it loads itself")
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import flash_attention_mask

    AttentionInterface.register(name, attention_forward)
    AttentionMaskInterface.register(name, flash_attention_mask)
    return name


def attention_forward(module, query, key, value, attention_mask, dropout=0.0, scaling=None, sliding_window=None,
                      softcap=None, is_causal=None, position_ids=None, cu_seq_lens_q=None, cu_seq_lens_k=None,
                      max_length_q=None, max_length_k=None, s_aux=None, deterministic=None, **kwargs):
    """transformers' attention interface: query (batch, heads, seqlen_q, d), key and value (batch, heads_k, seqlen_k,
    d); attention_mask is None or (batch, keys), zero for padding; deterministic: of flash_attn_func, None:
    FLASH_ATTENTION_DETERMINISTIC. Returns ((batch, seqlen_q, heads, d), None).

    The mask is of keys; a static cache may hold more of them than it has columns. Where the positions of the queries
    matter, which is with is_causal or a sliding window, they are those of the last seqlen_q keys, as in a
    self-attention with or without a cache; queries that are padding there give 0. Else, as in a cross attention or
    an encoder, every query sees every key that is no padding."""
    q, k, v = (t.transpose(1, 2) for t in (query, key, value))
    head_dim_v = v.shape[-1]
    if head_dim_v != q.shape[-1]:  # as for the original, whose head dims are one
        v = torch.nn.functional.pad(v, [0, q.shape[-1] - head_dim_v])
    options = {"dropout_p": dropout, "softmax_scale": scaling, "softcap": softcap or 0.0,
               "causal": module.is_causal if is_causal is None else is_causal,
               "deterministic": environment.deterministic() if deterministic is None else deterministic,
               "s_aux": s_aux}
    if sliding_window is not None and k.shape[1] > sliding_window:
        options["window_size"] = (sliding_window - 1, sliding_window - 1)
    batch, seqlen_q = q.shape[:2]
    if attention_mask is not None:
        attention_mask = _keys_kept(attention_mask, batch, k.shape[1])
    flat = lambda t: t.reshape(-1, *t.shape[2:])
    if attention_mask is not None:
        out = _padded(q, k, v, attention_mask, options)
    elif cu_seq_lens_q is not None and cu_seq_lens_k is not None and max_length_q is not None:
        out = flash_attn_varlen_func(flat(q), flat(k), flat(v), cu_seq_lens_q.int(), cu_seq_lens_k.int(), max_length_q,
                                     max_length_q if max_length_k is None else max_length_k, **options)
    elif _is_packed(position_ids, batch, seqlen_q, k.shape[1]):
        positions = position_ids.reshape(-1)
        starts = (positions == positions.min()).nonzero().view(-1).int()
        cu = torch.cat((starts, starts.new_tensor([positions.numel()])))
        longest = int(cu.diff().max())
        out = flash_attn_varlen_func(flat(q), flat(k), flat(v), cu, cu, longest, longest, **options)
    else:
        out = flash_attn_func(q, k, v, **options)
    return out.reshape(batch, seqlen_q, *out.shape[-2:])[..., :head_dim_v], None


def _is_packed(position_ids, batch, seqlen_q, seqlen_k):
    """Several sequences in one row: positions that start again."""
    if position_ids is None or batch != 1 or position_ids.dim() != 2 or seqlen_q == 1 or seqlen_q != seqlen_k:
        return False
    return bool((position_ids.diff(dim=-1) != 1).any())


def _keys_kept(mask, batch, seqlen_k):
    """The mask as bool (batch, keys), keys at most seqlen_k; a ValueError for what it can't be."""
    if mask.dim() != 2:
        raise ValueError(
            f"attention_mask has shape {tuple(mask.shape)}; it must be None or (batch, keys), zero for padding: a "
            "mask for each query and key needs attn_implementation='sdpa' or 'eager'")
    if mask.shape[0] not in (1, batch) or mask.shape[1] > seqlen_k:
        raise ValueError(
            f"attention_mask has shape {tuple(mask.shape)}; it must be (batch, keys) with at most as many keys as "
            f"there are, {(batch, seqlen_k)}")
    if mask.is_floating_point():
        raise ValueError(
            f"attention_mask has dtype {mask.dtype}; it must be bool or an integer type, zero for padding: a mask "
            "that is added to scores needs attn_implementation='sdpa' or 'eager'")
    return (mask != 0).expand(batch, -1)


def _padded(q, k, v, mask, options):
    batch, seqlen_q = q.shape[:2]
    k, v = k[:, :mask.shape[1]], v[:, :mask.shape[1]]  # a static cache is longer than what is in it
    keys, _, cu_k, max_k, _ = bert_padding.unpad_input(k, mask)
    values = bert_padding.unpad_input(v, mask)[0]
    if "window_size" in options and not _one_run(mask):
        raise ValueError("attention_mask has padding between tokens, and sliding_window counts distances over it; use "
                         "attn_implementation='sdpa' or 'eager'")
    if options["causal"] or "window_size" in options:
        # The queries are the last tokens; a batch that is being continued is padded on the left. More queries than
        # keys: those before the first key see none.
        kept = torch.nn.functional.pad(mask, [max(0, seqlen_q - mask.shape[1]), 0])[:, -seqlen_q:]
    else:
        kept = mask.new_ones((batch, seqlen_q))
    queries, indices, cu_q, max_q, _ = bert_padding.unpad_input(q, kept)
    out = flash_attn_varlen_func(queries, keys, values, cu_q, cu_k, max_q, max_k, **options)
    return bert_padding.pad_input(out, indices, batch, seqlen_q)


def _one_run(mask):
    """Whether the tokens of each row lie together."""
    starts = mask & ~torch.nn.functional.pad(mask, [1, 0])[:, :-1]
    return bool((starts.sum(-1) <= 1).all())
