# SPDX-License-Identifier: BSD-3-Clause
"""What is not there yet, said in one way."""


def not_yet(what, instead):
    return NotImplementedError(f"flash-attn-plus has no {what} yet; {instead}")


def backward():
    return not_yet("backward pass",
                   "call it under torch.no_grad() or torch.inference_mode(), or detach q, k and v, for inference; for "
                   "training use the original flash-attn (FLASH_ATTENTION_USE_FLAGGEMS=FALSE with it installed)")


def forward_ad():
    return not_yet("forward-mode AD (torch.func.jvp, torch.autograd.forward_ad)",
                   "pass tensors without tangents, or compute the tangent with plain torch operations")


def dropout(p):
    return not_yet(f"dropout (dropout_p is {p})", "it comes with training; pass dropout_p=0.0 (model.eval())")


def kvcache():
    return not_yet("flash_attn_with_kvcache",
                   "append to the cache yourself and call flash_attn_func (bottom-right causal) on the keys so far")


def paged():
    return not_yet("paged KV (block_table)", "gather the pages into packed k and v and leave block_table None")


def leftpad():
    return not_yet("leftpad_k", "drop the padding with bert_padding.unpad_input")
