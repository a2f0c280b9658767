# SPDX-License-Identifier: BSD-3-Clause
"""What is not there yet, said in one way."""


def not_yet(what, instead):
    return NotImplementedError(f"flash-attn-plus has no {what} yet; {instead}")


def double_backward():
    return not_yet("gradient of a gradient (double backward)",
                   "the gradients of flash_attn_func have none of their own; compute them without create_graph=True")


def functional_grad():
    return not_yet("gradient under torch.func (grad, vjp, or vmap of tensors that need gradients)",
                   "use tensor.backward() or torch.autograd.grad")


def forward_ad():
    return not_yet("forward-mode AD (torch.func.jvp, torch.autograd.forward_ad)",
                   "pass tensors without tangents, or compute the tangent with plain torch operations")


def kvcache():
    return not_yet("flash_attn_with_kvcache",
                   "append to the cache yourself and call flash_attn_func (bottom-right causal) on the keys so far")


def paged():
    return not_yet("paged KV (block_table)", "gather the pages into packed k and v and leave block_table None")


def leftpad():
    return not_yet("leftpad_k", "drop the padding with bert_padding.unpad_input")
