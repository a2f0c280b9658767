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


def cache_gradient():
    return not_yet("gradient of attention on a KV cache (flash_attn_with_kvcache, block_table)",
                   "call flash_attn_func or flash_attn_varlen_func on the keys themselves, or use torch.no_grad()")


def chunk_gradient():
    return not_yet("gradient of attention on a KV cache, or of attention_chunk in this operator",
                   "call flash_attn_func or flash_attn_varlen_func on the keys themselves, or use torch.no_grad()")


def cache_dropout(p):
    return not_yet(f"dropout of attention on a KV cache (dropout_p is {p}, and block_table is given)",
                   "pass dropout_p=0.0 (model.eval())")


def leftpad():
    return not_yet("leftpad_k of packed keys",
                   "give block_table too, or drop the padding with bert_padding.unpad_input")
