# SPDX-License-Identifier: BSD-3-Clause
"""When a call may go past PyTorch's dispatcher, straight to the library with the addresses of its tensors: one rule,
for all faces. Everywhere else a call goes through a torch operator (ops.py), so that whoever looks on sees it, and
what a tensor stands for is what is computed with.

Straight is right where the dispatcher would do nothing but call our kernel: plain tensors, whose memory is what they
say, in a thread where nobody looks on, and no gradient is wanted (`direct`), or an ordinary one is (`trains`).
docs/rationale/python-face.md has the list; the tests hold it against every dispatch key that PyTorch has."""

import torch
from torch import Tensor, is_grad_enabled
from torch.autograd import forward_ad
from torch.compiler import is_compiling

_dispatch_modes = torch._C._len_torch_dispatch_stack
_function_modes = torch._C._len_torch_function_stack
_jit_trace = torch._C._get_tracing_state
_profiling = torch._C._autograd._profiler_enabled
_included = torch._C._dispatch_tls_is_dispatch_key_included
_functorch = torch._C._are_functorch_transforms_active
_PYTHON_DISPATCHER = torch._C.DispatchKey.PythonDispatcher  # export and make_fx before autograd


def direct(q, k, v):
    """Whether a call with these may go straight. They may be anything. Tensors without memory (torch.func's wrappers
    among them) are not asked for here, which would cost each call: the library can't read them, and see unusual()."""
    # is_compiling first: a compiler that traces this reads no further.
    return not (is_compiling() or type(q) is not Tensor or type(k) is not Tensor or type(v) is not Tensor
                or is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad)
                or q.is_neg() or k.is_neg() or v.is_neg()
                or _dispatch_modes() or _function_modes() or _jit_trace() is not None or _profiling()
                or forward_ad._current_level >= 0 or _included(_PYTHON_DISPATCHER))


def trains(*tensors):
    """Whether a call whose gradients are wanted, or the call for those gradients, may go straight with these tensors or
    None: `direct`, but that an autograd function of ours stands in for the dispatcher's (autograd.py)."""
    if is_compiling():
        return False
    for t in tensors:
        if t is not None and (type(t) is not Tensor or t.is_neg()):
            return False
    return not (_dispatch_modes() or _function_modes() or _jit_trace() is not None or _profiling() or _functorch()
                or forward_ad._current_level >= 0 or _included(_PYTHON_DISPATCHER))


def plain(*tensors):
    """Whether these, which a call has besides q, k and v, are None or tensors as `direct` wants them."""
    for t in tensors:
        if t is not None and (type(t) is not Tensor or t.is_neg() or t.requires_grad and is_grad_enabled()):
            return False
    return True


_TENSOR_OR_NONE = (Tensor, type(None))


def integers(*tensors):
    """plain(), of what the library takes as integers only: those have no sign to resolve and no gradient."""
    for t in tensors:
        if type(t) not in _TENSOR_OR_NONE:
            return False
    return True


def _keys(*names):
    return [getattr(torch._C.DispatchKey, name) for name in names if hasattr(torch._C.DispatchKey, name)]


_PLAIN = _keys("CPU", "CUDA", "AutogradCPU", "AutogradCUDA", "AutogradFunctionality", "ADInplaceOrView", "AutocastCPU",
               "AutocastCUDA", "Dense")


def unusual(*tensors):
    """Asked when a call that went straight failed: whether one of its tensors is none whose memory can be read, such
    as a wrapper or a meta tensor, so that PyTorch has to be asked what to do with it."""
    for t in tensors:
        if not isinstance(t, Tensor) or t.device.type not in ("cpu", "cuda", "meta"):
            continue
        if t.is_meta: # all of them, or the library's answer is the right one: they must be on one device
            return all(u.is_meta for u in tensors if isinstance(u, Tensor))
        keys = torch._C._dispatch_keys(t)
        for key in _PLAIN:
            keys = keys.remove(key)
        if keys.highestPriorityTypeId() != torch._C.DispatchKey.Undefined:
            return True
    return False
