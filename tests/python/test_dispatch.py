# SPDX-License-Identifier: BSD-3-Clause
"""Whoever looks on sees our operators, and what a tensor stands for is what is computed with (flashplus/direct.py):
for every kind of tensor and every state of a thread that PyTorch's dispatch keys are about, both faces are right or
refuse."""

import contextlib
import re

import pytest
import torch
from torch.autograd import forward_ad
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import flash_attn
import flash_attn_interface
from flashplus import direct, library

NAMES = {"2": "flash_attn::_flash_attn_forward", "3": "flashplus::forward"}


def dense(face, q, k, v, **options):
    module = flash_attn if face == "2" else flash_attn_interface
    return module.flash_attn_func(q, k, v, **options)


def varlen(face, q, k, v, **options):
    """The same batch as sequences laid end to end."""
    module = flash_attn if face == "2" else flash_attn_interface
    cu = torch.arange(q.shape[0] + 1, dtype=torch.int32) * q.shape[1]
    out = module.flash_attn_varlen_func(*(t.flatten(0, 1) for t in (q, k, v)), cu, cu, q.shape[1], q.shape[1],
                                        **options)
    return out.unflatten(0, q.shape[:2])


def packed(face, q, k, v, **options):
    module = flash_attn if face == "2" else flash_attn_interface
    return module.flash_attn_qkvpacked_func(torch.stack([q, k, v], 2), **options)


faces = pytest.mark.parametrize("face", ["2", "3"])
calls = pytest.mark.parametrize("call", [dense, varlen, packed])


@pytest.fixture
def qkv():
    torch.manual_seed(0)
    return [torch.randn(2, 6, 2, 16) for _ in range(3)]


def same(got, wanted):
    return torch.allclose(got, wanted, atol=1e-5)


# What each dispatch key is to a call: every one that this PyTorch has must be found here, so that a new one is
# thought about.
KEYS = {
    "our kernel": r"CPU|CUDA",
    "a fake": r"Meta",
    "does nothing here": r"BackendSelect|ADInplaceOrView|Autocast\w+|Undefined|Dense|CompositeExplicitAutograd\w*"
                         r"|CompositeImplicitAutograd\w*",
    "gradients, forward and backward: test_gradients, test_training.py": r"Autograd\w*",
    "other memory: test_tensors":
        r"Conjugate|Negative|ZeroTensor|Functionalize|Python|FuncTorchBatched|FuncTorchGradWrapper"
        r"|(Sparse|Quantized|NestedTensor|SparseCsr)\w*",
    "who looks on: test_who_looks_on": r"PythonTLSSnapshot|PreDispatch|PythonDispatcher|FuncTorch\w+|Tracer",
    "another device: refused": r"HIP|HPU|IPU|Lazy|MAIA|MPS|MTIA|PrivateUse\d|VE|XLA|XPU|FPGA|Vulkan|Metal",
    "no key": r"(StartOf|EndOf)\w+",
}


def test_every_dispatch_key_is_thought_of():
    for name in torch._C.DispatchKey.__members__:
        assert any(re.fullmatch(pattern, name) for pattern in KEYS.values()), name


class Wrapper(torch.Tensor):
    """A subclass with its values elsewhere."""

    @staticmethod
    def __new__(cls, inner):
        return torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype)

    def __init__(self, inner):
        self.inner = inner

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return function(*(a.inner if isinstance(a, Wrapper) else a for a in args), **(kwargs or {}))


class Named(torch.Tensor):
    """A subclass that only looks like another type."""


def functional(face, call, q, k, v):
    return torch._from_functional_tensor(call(face, torch._to_functional_tensor(q), k, v))


TENSORS = {
    "negative": lambda face, call, q, k, v: call(face, torch._neg_view(-q), k, v),
    "negative keys": lambda face, call, q, k, v: call(face, q, torch._neg_view(-k), torch._neg_view(-v)),
    "imaginary part of a conjugate": lambda face, call, q, k, v: call(face, torch.complex(v, -q).conj().imag, k, v),
    "subclass": lambda face, call, q, k, v: call(face, q.as_subclass(Named), k, v.as_subclass(Named)),
    "parameter": lambda face, call, q, k, v: call(face, q, torch.nn.Parameter(k, requires_grad=False), v),
    "inference": lambda face, call, q, k, v: call(face, q, k, v),
}


@faces
@calls
@pytest.mark.parametrize("name", TENSORS)
def test_tensors(face, call, name, qkv):
    with torch.inference_mode() if name == "inference" else contextlib.nullcontext():
        assert same(TENSORS[name](face, call, *(t.clone() for t in qkv)), dense(face, *qkv))


@faces
def test_tensors_without_memory_of_their_own(face, qkv):
    q, k, v = qkv
    wanted = dense(face, q, k, v)
    assert same(dense(face, Wrapper(q), Wrapper(k), Wrapper(v)), wanted)
    assert same(dense(face, q, Wrapper(k), v), wanted)
    assert same(functional(face, dense, q, k, v), wanted)
    zero = torch._efficientzerotensor(tuple(q.shape))
    assert same(dense(face, zero, k, v), dense(face, torch.zeros_like(q), k, v))
    meta = dense(face, *(t.to("meta") for t in qkv))
    assert meta.is_meta and meta.shape == q.shape and meta.dtype == q.dtype
    for other in (q.to_sparse(), torch.nested.nested_tensor([q[0], q[1]]), torch.complex(q, q).conj()):
        with pytest.raises((RuntimeError, TypeError)):
            dense(face, other, k, v)


def test_other_tensors_of_a_call(qkv):
    """alibi_slopes too is not read past its sign or its class."""
    slopes = torch.tensor([0.5, 0.25])
    wanted = dense("2", *qkv, alibi_slopes=slopes)
    for given in (torch._neg_view(-slopes), slopes.as_subclass(Named), Wrapper(slopes)):
        assert same(dense("2", *qkv, alibi_slopes=given), wanted)
        assert same(varlen("2", *qkv, alibi_slopes=given), wanted)


@faces
@calls
def test_gradients(face, call, qkv):
    """Backward, forward-mode, by torch.func: none is lost in silence."""
    leaves = [t.clone().requires_grad_() for t in qkv]
    expected = torch.autograd.grad(dense("2", *leaves).square().sum(), leaves)
    for i in range(3):
        wanting = [t.clone().requires_grad_(i == j) for j, t in enumerate(qkv)]
        call(face, *wanting).square().sum().backward()
        assert all(same(t.grad, expected[j]) if i == j else t.grad is None for j, t in enumerate(wanting))
        with torch.no_grad():
            assert same(call(face, *wanting), dense(face, *qkv))
        with forward_ad.dual_level():
            dual = [forward_ad.make_dual(t, torch.ones_like(t)) if i == j else t for j, t in enumerate(qkv)]
            with pytest.raises(NotImplementedError, match="no forward-mode AD"):
                call(face, *dual)
            assert same(call(face, *qkv), dense(face, *qkv))
    function = lambda x: call(face, x, *qkv[1:])
    with pytest.raises(NotImplementedError, match="no forward-mode AD"):
        torch.func.jvp(function, (qkv[0],), (torch.ones_like(qkv[0]),))
    with pytest.raises(NotImplementedError, match="no gradient under torch.func"):
        torch.func.grad(lambda x: function(x).sum())(qkv[0])


def test_low_level_functions_have_gradients_too(qkv):
    """Unlike the original's, whose outputs have none and say so."""
    from flash_attn.flash_attn_interface import _flash_attn_forward

    q, k, v = qkv
    out = _flash_attn_forward(q.requires_grad_(), k, v, 0.0, 0.25, False, -1, -1, 0.0, None, False)[0]
    assert same(torch.autograd.grad(out.sum(), q)[0], torch.autograd.grad(dense("2", q, k, v).sum(), q)[0])


@faces
@calls
@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_vmap(face, call, qkv):
    many = [torch.stack([t, t + 1]) for t in qkv]
    assert same(torch.func.vmap(lambda *x: call(face, *x))(*many)[1], dense(face, *(t + 1 for t in qkv)))
    assert same(torch.func.vmap(lambda x: call(face, x, *qkv[1:]))(many[0])[0], dense(face, *qkv))


@faces
@calls
def test_functionalize(face, call, qkv):
    assert same(torch.func.functionalize(lambda *x: call(face, *x))(*qkv), dense(face, *qkv))


class Dispatched(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.seen.append(str(function))
        return function(*args, **(kwargs or {}))


class Called(TorchFunctionMode):
    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        self.seen.append(str(function))
        return function(*args, **(kwargs or {}))


@contextlib.contextmanager
def profiler():
    class Events:
        seen = []

    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        yield Events
    Events.seen = [event.name for event in profile.events()]


@faces
@calls
@pytest.mark.parametrize("watcher", [Dispatched, Called, profiler])
def test_who_looks_on(face, call, watcher, qkv, monkeypatch):
    wanted = dense(face, *qkv)
    with watcher() as watched:
        got = call(face, *qkv)
    name = NAMES[face] if call is not varlen or face == "3" else "flash_attn::_flash_attn_varlen_forward"
    assert same(got, wanted)
    assert any(seen.replace("::", ".").startswith(name.replace("::", ".")) for seen in watched.seen), watched.seen


@faces
@calls
@pytest.mark.parametrize("pre_dispatch", [False, True])
def test_make_fx(face, call, pre_dispatch, qkv):
    from torch.fx.experimental.proxy_tensor import make_fx

    graph = make_fx(lambda a, b, c: call(face, a, b, c), pre_dispatch=pre_dispatch)(*qkv)
    assert same(graph(*qkv), dense(face, *qkv))
    assert same(graph(*(t + 1 for t in qkv)), dense(face, *(t + 1 for t in qkv)))


@faces
@calls
@pytest.mark.filterwarnings("ignore")
def test_jit_trace(face, call, qkv):
    graph = torch.jit.trace(lambda a, b, c: call(face, a, b, c), tuple(qkv))
    assert same(graph(*(t + 1 for t in qkv)), dense(face, *(t + 1 for t in qkv)))


@faces
@calls
def test_compile(face, call, qkv):
    torch._dynamo.reset()
    compiled = torch.compile(lambda a, b, c: call(face, a, b, c, causal=True), backend="aot_eager", fullgraph=True)
    assert same(compiled(*qkv), dense(face, *qkv, causal=True))


@faces
@calls
@pytest.mark.parametrize("strict", [False, True])
def test_export(face, call, strict, qkv):
    class Module(torch.nn.Module):
        def forward(self, a, b, c):
            return call(face, a, b, c, causal=True)

    with torch.no_grad():
        exported = torch.export.export(Module(), tuple(qkv), strict=strict)
    assert same(exported.module()(*qkv), dense(face, *qkv, causal=True))


@faces
@calls
def test_fake_tensors(face, call, qkv):
    from torch._subclasses import FakeTensorMode

    with FakeTensorMode() as mode:
        out = call(face, *(mode.from_tensor(t) for t in qkv))
    assert out.shape == qkv[0].shape and out.dtype == qkv[0].dtype


def test_the_python_dispatcher_is_seen(qkv):
    assert direct.direct(*qkv)
    with torch._C._IncludeDispatchKeyGuard(torch._C.DispatchKey.PythonDispatcher):
        assert not direct.direct(*qkv)


def test_a_plain_call_goes_straight(qkv, monkeypatch):
    """Else all of the above could be had by never doing it."""
    from flashplus import ops

    dense("2", *qkv), varlen("2", *qkv), dense("3", *qkv)
    for name in ("forward", "varlen_forward", "ours"):
        monkeypatch.setattr(ops, name, None)
    for face in NAMES:
        for call in (dense, varlen, packed):
            call(face, *qkv)
    with torch.autocast("cpu", torch.bfloat16), torch.inference_mode():
        dense("2", *qkv)
    assert library.get()


def trained(face, call, qkv, **options):
    """Gradients of q, k and v."""
    leaves = [t.clone().requires_grad_() for t in qkv]
    return torch.autograd.grad(call(face, *leaves, **options), leaves, torch.ones_like(qkv[0]))


def test_a_plain_training_step_goes_straight(qkv, monkeypatch):
    from flashplus import autograd, ops

    wanted = trained("2", dense, qkv)
    for name in ("forward", "varlen_forward", "ours"):
        monkeypatch.setattr(ops, name, None)
    monkeypatch.setattr(autograd.Attention, "apply", None)
    monkeypatch.setattr(torch.ops.flashplus, "backward", None)
    for face in NAMES:
        for call in (dense, varlen, packed):
            assert all(map(same, trained(face, call, qkv), wanted))
    trained("2", dense, qkv, dropout_p=0.1)
    slopes = torch.rand(2).requires_grad_()
    assert torch.autograd.grad(dense("2", *qkv, alibi_slopes=slopes).sum(), slopes)[0].shape == slopes.shape


@faces
@calls
@pytest.mark.parametrize("watcher", [Dispatched, Called, profiler])
def test_who_looks_on_a_training_step(face, call, watcher, qkv):
    wanted = trained(face, call, qkv)
    with watcher() as watched:
        got = trained(face, call, qkv)
    assert all(map(same, got, wanted))
    names = [seen.replace("::", ".") for seen in watched.seen]
    assert any("_forward" in name or "flashplus.forward" in name for name in names), names
    if watcher is not Called:  # which sees what Python calls
        assert any(name.startswith("flashplus.backward") for name in names), names


@faces
@pytest.mark.parametrize("kind", ["negative", "wrapped", "zero", "subclass", "expanded", "columns"])
def test_the_gradient_that_comes_in(face, kind, qkv):
    """dout is what it stands for, whatever it is made of, and whichever way the forward took."""
    leaves = [t.clone().requires_grad_() for t in qkv]
    out = dense(face, *leaves)
    dout = torch.randn_like(out)
    if kind == "expanded":
        dout = torch.randn(2, 6, 2, 1).expand(2, 6, 2, 16)
    wanted = torch.autograd.grad(out, leaves, torch.zeros_like(dout) if kind == "zero" else dout.clone(),
                                 retain_graph=True)
    given = {"negative": lambda: torch._neg_view(-dout), "wrapped": lambda: Wrapper(dout),
             "zero": lambda: torch._efficientzerotensor(tuple(dout.shape)),
             "subclass": lambda: dout.as_subclass(Named), "expanded": lambda: dout,
             "columns": lambda: dout.transpose(1, 3).contiguous().transpose(1, 3)}[kind]()
    assert all(map(same, torch.autograd.grad(out, leaves, given), wanted))


@faces
def test_gradients_of_many_at_once(face, qkv):
    """is_grads_batched runs the backward under vmap."""
    leaves = [t.clone().requires_grad_() for t in qkv]
    out = dense(face, *leaves)
    many = torch.randn(3, *out.shape)
    got = torch.autograd.grad(out, leaves, many, is_grads_batched=True, retain_graph=True)
    for i in range(3):
        wanted = torch.autograd.grad(out, leaves, many[i], retain_graph=True)
        assert all(same(g[i], w) for g, w in zip(got, wanted))


@pytest.mark.parametrize("options", [{}, {"causal": True}, {"window_size": (2, 1)}, {"softcap": 3.0, "causal": True},
                                     {"alibi": True}, {"dropout_p": 0.3}, {"softmax_scale": 0.7}], ids=str)
@pytest.mark.parametrize("form", ["dense", "varlen", "grouped", "unequal head dims", "packed", "fp16", "heads first"])
def test_both_ways_have_the_same_bits(form, options):
    """A step straight to the library, and one that a dispatch mode looks on."""
    torch.manual_seed(1)
    q, k, v = (torch.randn(2, 9, 4, 24) for _ in range(3))
    if form == "grouped":
        k, v = k[:, :, :2], v[:, :, :2]
    elif form == "unequal head dims":
        v = torch.randn(2, 9, 4, 17)
    elif form == "fp16":
        q, k, v = q.half(), k.half(), v.half()
    elif form == "heads first":
        q, k, v = (t.transpose(1, 2).contiguous().transpose(1, 2) for t in (q, k, v))
    options = dict(options)
    slopes = torch.rand(4) if options.pop("alibi", False) else None
    call = {"varlen": varlen, "packed": packed}.get(form, dense)

    def step():
        torch.manual_seed(2)
        leaves = [t.detach().requires_grad_() for t in (q, k, v)]
        if slopes is not None:
            leaves.append(slopes.detach().requires_grad_())
            options["alibi_slopes"] = leaves[3]
        out = call("2", *leaves[:3], **options)
        return [out, *torch.autograd.grad(out, leaves, torch.ones_like(out).cumsum(1))]

    straight = step(), step()  # looked at from Python, and known
    with Dispatched() as watched:
        seen = step()
    assert any(name.startswith("flashplus.backward") for name in watched.seen)
    for one in straight:
        for a, b in zip(one, seen):
            assert torch.equal(a, b) and a.stride() == b.stride() and a.dtype == b.dtype
