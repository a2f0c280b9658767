# SPDX-License-Identifier: BSD-3-Clause
"""The torch operators of FlashAttention 3, `torch.ops.flash_attn_3.fwd`, ...: its names and its order of arguments
over our kernels, on the CPU too. Defined when our `flash_attn_interface` is imported and no `flash_attn_3` is
installed, which would define its own; then they are in the namespace `flashplus_3`.

`fwd` and `bwd` are what the extension has, and may write into what they are given; `_flash_attn_forward` makes its
results and has a gradient, `_flash_attn_backward` is that. Whatever says how, not what, is computed (num_splits,
pack_gqa, scheduler_metadata, sm_margin) changes no result; deterministic decides whether dq is the same bits every
time on Hopper."""

import importlib.util

import torch

from flashplus import autograd, checks, chunks, kernels, kvcache, later, ops
from flashplus.frames import contiguous_rows

_INF = float("inf")
NAMESPACE = "flashplus_3" if importlib.util.find_spec("flash_attn_3") else "flash_attn_3"

# What makes a call one on a cache: names of fwd's arguments, and what kvcache.attention calls them.
_CACHE = {"k_new": "k_new", "v_new": "v_new", "cu_seqlens_k_new": "cu_seqlens_k_new", "page_table": "block_table",
          "kv_batch_idx": "cache_batch_idx", "leftpad_k": "leftpad_k", "rotary_cos": "rotary_cos",
          "rotary_sin": "rotary_sin", "seqlens_rotary": "rotary_seqlens"}


def refuse(**arguments):
    """Raises for the first argument that is used and that our kernels don't have."""
    for name, value in arguments.items():
        if value is not None and value is not False and (isinstance(value, torch.Tensor) or value != 0):
            what = f"{tuple(value.shape)} tensor" if isinstance(value, torch.Tensor) else value
            raise later.not_yet(f"{name} in flash_attn_interface ({name} is {what})", "leave it at its default")


def _on_cache(tensors, cu_seqlens_k):
    """Whether k and v are a cache: what is given says so, or lengths in use without those of packed keys."""
    used = tensors["seqused_q"] is not None or tensors["seqused_k"] is not None
    return any(tensors[name] is not None for name in _CACHE) or used and cu_seqlens_k is None


def fwd(q, k, v, k_new=None, v_new=None, q_v=None, out=None, cu_seqlens_q=None, cu_seqlens_k=None,
        cu_seqlens_k_new=None, seqused_q=None, seqused_k=None, max_seqlen_q=None, max_seqlen_k=None, page_table=None,
        kv_batch_idx=None, leftpad_k=None, rotary_cos=None, rotary_sin=None, seqlens_rotary=None, q_descale=None,
        k_descale=None, v_descale=None, softmax_scale=None, is_causal=False, window_size_left=-1, window_size_right=-1,
        attention_chunk=0, softcap=0.0, is_rotary_interleaved=False, scheduler_metadata=None, num_splits=0,
        pack_gqa=None, sm_margin=0):
    """(out, softmax_lse, an empty tensor, an empty tensor); the two are partial results, which stay in the kernel."""
    refuse(qv=q_v, q_descale=q_descale, k_descale=k_descale, v_descale=v_descale)
    chunk = chunks.check(attention_chunk)
    for name, t in (("q", q), ("k", k), ("v", v)):
        checks.tensor(name, t)
    tensors = dict(k_new=k_new, v_new=v_new, cu_seqlens_k_new=cu_seqlens_k_new, page_table=page_table,
                   kv_batch_idx=kv_batch_idx, leftpad_k=leftpad_k, rotary_cos=rotary_cos, rotary_sin=rotary_sin,
                   seqlens_rotary=seqlens_rotary, seqused_q=seqused_q, seqused_k=seqused_k)
    scale, causal, left, right, softcap = checks.numbers(
        checks.default_scale(q) if softmax_scale is None else softmax_scale, is_causal,
        (window_size_left, window_size_right), softcap)
    left, right = chunks.narrowed(chunk, causal, left, right)
    max_seqlen_q, max_seqlen_k = (0 if n is None else checks.integer(name, n)
                                  for name, n in (("max_seqlen_q", max_seqlen_q), ("max_seqlen_k", max_seqlen_k)))
    num_splits = checks.integer("num_splits", num_splits)
    if ops.without_batch(q, cu_seqlens_q):
        result = _forward_fake(q, k, v, out=out)[:2]
    elif _on_cache(tensors, cu_seqlens_k):
        used = {name: tensors.pop(name) for name in ("seqused_q", "seqused_k")}
        result = kvcache.attention(
            q, k, v, softmax_scale=scale, causal=causal, window_left=left, window_right=right, softcap=softcap, out=out,
            rotary_interleaved=is_rotary_interleaved, num_splits=num_splits, max_seqlen_q=max_seqlen_q,
            max_seqlen_k=max_seqlen_k, lse_empty=-_INF, want_lse=True, cu_seqlens_q=cu_seqlens_q,
            cu_seqlens_k=cu_seqlens_k, score=chunks.score(chunk), **used,
            **{_CACHE[name]: t for name, t in tensors.items()})
    elif cu_seqlens_q is None and cu_seqlens_k is None:
        result = kernels.dense(q, k, v, out, None, scale, causal, left, right, softcap, True, -_INF, num_splits,
                               score=chunks.score(chunk))
    else:
        for name, t in (("cu_seqlens_q", cu_seqlens_q), ("cu_seqlens_k", cu_seqlens_k)):
            checks.tensor(name, t)
        result = kernels.ragged(q, k, v, out, cu_seqlens_q, cu_seqlens_k, seqused_k, None, max_seqlen_q, max_seqlen_k,
                                scale, False, causal, left, right, softcap, True, seqused_q, -_INF, num_splits,
                                score=chunks.score(chunk))
    return (*result, q.new_empty(0, dtype=torch.float32), q.new_empty(0, dtype=torch.float32))


def _forward_fake(q, k, v, k_new=None, v_new=None, q_v=None, out=None, cu_seqlens_q=None, *rest, **named):
    shape = (q.shape[1], q.shape[0]) if q.dim() == 3 else (q.shape[0], q.shape[2], q.shape[1])
    made, lse = ops.outputs(q, v, shape, ())[:2]
    none = q.new_empty((0,), dtype=torch.float32)
    return made if out is None else out, lse, none, none.clone()


_RENAMED = {"qv": "q_v", "out_": "out", "causal": "is_causal", "rotary_interleaved": "is_rotary_interleaved"}


def _complete(arguments):
    """Those of _flash_attn_forward by fwd's names; PyTorch leaves out what is as the schema's defaults at the end."""
    schema = operators._flash_attn_forward.default._schema.arguments
    values = {_RENAMED.get(a.name, a.name): a.default_value for a in schema}
    values.update(zip(values, arguments))
    return values


def forward(*arguments):
    """fwd, of new memory only, as this operator's schema says."""
    arguments = _complete(arguments)
    for name in ("k_new", "v_new", "out"):
        if arguments[name] is not None:
            raise ValueError(f"{name} is given; torch.ops.{NAMESPACE}.fwd is the operator that writes into what it is "
                             "given")
    return fwd(**arguments)


def _meant(*arguments):
    a = _complete(arguments)
    if _on_cache(a, a["cu_seqlens_k"]) or a["attention_chunk"]:
        return None
    scale = checks.default_scale(a["q"]) if a["softmax_scale"] is None else a["softmax_scale"]
    return autograd.Call(
        (a["max_seqlen_q"] or 0, a["max_seqlen_k"] or 0, scale, a["is_causal"], a["window_size_left"],
         a["window_size_right"], a["softcap"]),
        **{name: a[name] for name in ("cu_seqlens_q", "cu_seqlens_k", "seqused_q", "seqused_k")})


def bwd(dout, q, k, v, out, softmax_lse, dq=None, dk=None, dv=None, cu_seqlens_q=None, cu_seqlens_k=None,
        seqused_q=None, seqused_k=None, max_seqlen_q=None, max_seqlen_k=None, softmax_scale=None, is_causal=False,
        window_size_left=-1, window_size_right=-1, softcap=0.0, deterministic=False, sm_margin=0):
    """(softmax_d, softmax_lse / ln 2, three empty tensors); writes dq, dk and dv. softmax_d is as flash_attn 2's: row
    i is query i, and there are zeros behind."""
    scale, causal, left, right, softcap = checks.numbers(
        checks.default_scale(q) if softmax_scale is None else softmax_scale, is_causal,
        (window_size_left, window_size_right), softcap)
    delta, rows = kernels.new_delta(q, cu_seqlens_q)
    if ops.without_batch(q, cu_seqlens_q):
        for grad in (dq, dk, dv):
            if grad is not None:
                grad.zero_()
    else:
        kernels.gradients(
            dout, q, k, v, out, softmax_lse, dq=dq, dk=dk, dv=dv, delta=rows, cu_seqlens_q=cu_seqlens_q,
            cu_seqlens_k=cu_seqlens_k, seqused_q=seqused_q, seqused_k=seqused_k, softmax_scale=scale, causal=causal,
            max_seqlen_q=0 if max_seqlen_q is None else checks.integer("max_seqlen_q", max_seqlen_q),
            max_seqlen_k=0 if max_seqlen_k is None else checks.integer("max_seqlen_k", max_seqlen_k),
            window_left=left, window_right=right, softcap=softcap, any_order=not deterministic)
    log2 = torch.zeros_like(delta)
    log2[..., :rows.shape[-1]] = softmax_lse / 0.6931471805599453
    return (delta, log2, *(q.new_empty(0, dtype=torch.float32) for _ in range(3)))


def _bwd_fake(dout, q, k, v, out, softmax_lse, dq=None, dk=None, dv=None, cu_seqlens_q=None, *rest, **named):
    if cu_seqlens_q is None:
        shape = (q.shape[0], q.shape[2], (q.shape[1] + 127) // 128 * 128)
    else:
        shape = (q.shape[1], q.shape[0] + 128 * (cu_seqlens_q.shape[0] - 1))
    return (*(q.new_empty(shape, dtype=torch.float32) for _ in range(2)),
            *(q.new_empty((0,), dtype=torch.float32) for _ in range(3)))


def backward(dout, q, k, v, out, softmax_lse, cu_seqlens_q=None, cu_seqlens_k=None, sequed_q=None, sequed_k=None,
             max_seqlen_q=None, max_seqlen_k=None, dq=None, dk=None, dv=None, *rest):
    """softmax_d; writes dq, dk and dv. bwd in another order."""
    return bwd(dout, q, k, v, out, softmax_lse, dq, dk, dv, cu_seqlens_q, cu_seqlens_k, sequed_q, sequed_k,
               max_seqlen_q, max_seqlen_k, *rest)[0]


def _backward_fake(dout, q, k, v, out, softmax_lse, cu_seqlens_q=None, *rest, **named):
    return _bwd_fake(dout, q, k, v, out, softmax_lse, cu_seqlens_q=cu_seqlens_q)[0]


def fwd_combine(out_partial, lse_partial, out=None, out_dtype=None):
    """(out, lse); see interface3.flash_attn_combine."""
    # A row that no part has keys for is 0, and so are its gradients; none is nan.
    nothing = (lse_partial == -_INF).all(0)
    parts = lse_partial.masked_fill(nothing, 0.0)
    lse = parts.logsumexp(0)
    weights = torch.exp(parts - lse).masked_fill(nothing, 0.0)
    lse = lse.masked_fill(nothing, -_INF)
    merged = (out_partial * weights.unsqueeze(-1)).sum(0)
    return (merged.to(out_dtype or out_partial.dtype) if out is None else out.copy_(merged)), lse


def get_scheduler_metadata(batch_size, max_seqlen_q, max_seqlen_k, num_heads, num_heads_k, headdim, headdim_v,
                           qkv_dtype, seqused_k, *rest, **named):
    """An int32 tensor on the device of seqused_k that fwd takes and ignores."""
    return torch.zeros(1, dtype=torch.int32, device=seqused_k.device)


_KEYS = ("Tensor? cu_seqlens_q=None, Tensor? cu_seqlens_k=None, {new}Tensor? {used}_q=None, Tensor? {used}_k=None, "
         "SymInt? max_seqlen_q=None, SymInt? max_seqlen_k=None, ")
_WINDOW = "float? softmax_scale=None, bool {causal}=False, SymInt window_size_left=-1, SymInt window_size_right=-1, "


def _forward_schema(k_new, qv, out, causal, interleaved, num_splits, result):
    return (f"(Tensor q, Tensor k, Tensor v, {k_new}, Tensor? {qv}=None, {out}=None, "
            + _KEYS.format(new="Tensor? cu_seqlens_k_new=None, ", used="seqused")
            + "Tensor? page_table=None, Tensor? kv_batch_idx=None, Tensor? leftpad_k=None, Tensor? rotary_cos=None, "
            "Tensor? rotary_sin=None, Tensor? seqlens_rotary=None, Tensor? q_descale=None, Tensor? k_descale=None, "
            "Tensor? v_descale=None, " + _WINDOW.format(causal=causal) +
            f"SymInt attention_chunk=0, float softcap=0., {interleaved}, Tensor? scheduler_metadata=None, "
            f"SymInt num_splits={num_splits}, bool? pack_gqa=None, SymInt sm_margin=0) -> ({result})")


def _define():
    given = "Tensor dout, Tensor q, Tensor k, Tensor v, Tensor out, Tensor softmax_lse, "
    grads = "Tensor(dq!)? dq=None, Tensor(dk!)? dk=None, Tensor(dv!)? dv=None, "
    rest = _WINDOW.format(causal="is_causal") + "float softcap=0., bool deterministic=False, SymInt sm_margin=0)"
    ops.new_library(NAMESPACE)
    for name, schema, function, fake, options in (
        ("fwd", _forward_schema("Tensor(k_new!)? k_new=None, Tensor(v_new!)? v_new=None", "q_v", "Tensor(out!)? out",
                                "is_causal", "bool is_rotary_interleaved=False", 0,
                                "Tensor(out!), Tensor, Tensor, Tensor"),
         fwd, _forward_fake, {"refusal": lambda: later.not_yet(
             f"gradient of torch.ops.{NAMESPACE}.fwd", f"call torch.ops.{NAMESPACE}._flash_attn_forward")}),
        ("_flash_attn_forward", _forward_schema("Tensor? k_new=None, Tensor? v_new=None", "qv", "Tensor? out_",
                                                "causal", "bool rotary_interleaved=True", 1,
                                                "Tensor, Tensor, Tensor, Tensor"),
         forward, _forward_fake, {"meant": _meant, "refusal": later.chunk_gradient}),
        ("bwd", f"({given}{grads}{_KEYS.format(new='', used='seqused')}{rest} -> (Tensor, Tensor, Tensor, Tensor, "
                "Tensor)", bwd, _bwd_fake, {"refusal": later.double_backward}),
        ("_flash_attn_backward", f"({given}{_KEYS.format(new='', used='sequed')}{grads}{rest} -> Tensor", backward,
         _backward_fake, {"refusal": later.double_backward}),
        ("fwd_combine", "(Tensor out_partial, Tensor lse_partial, Tensor(out!)? out=None, ScalarType? out_dtype=None) "
                        "-> (Tensor(out!), Tensor)", fwd_combine, fwd_combine, {}),
        ("get_scheduler_metadata",
         "(SymInt batch_size, SymInt max_seqlen_q, SymInt max_seqlen_k, SymInt num_heads, SymInt num_heads_k, "
         "SymInt headdim, SymInt headdim_v, ScalarType qkv_dtype, Tensor seqused_k, Tensor? cu_seqlens_q=None, "
         "Tensor? cu_seqlens_k=None, Tensor? cu_seqlens_k_new=None, Tensor? seqused_q=None, Tensor? leftpad_k=None, "
         "SymInt? page_size=None, SymInt max_seqlen_k_new=0, bool is_causal=False, SymInt window_size_left=-1, "
         "SymInt window_size_right=-1, SymInt attention_chunk=0, bool has_softcap=False, SymInt num_splits=0, "
         "bool? pack_gqa=None, SymInt sm_margin=0) -> Tensor", get_scheduler_metadata, get_scheduler_metadata, {}),
    ):
        ops.define(name, schema, function, fake, NAMESPACE, **options)


_define()
operators = getattr(torch.ops, NAMESPACE)
