# SPDX-License-Identifier: BSD-3-Clause
"""Modules of the original that have nothing to do with attention kernels: importable, and NotImplementedError when one
of their functions is called. Only used where no file has the module (finder.py), so an original beside ours serves
its own.
"""

import importlib.machinery

# module -> names. A name that starts with a capital is a class.
TABLE = {
    "losses": [],
    "losses.cross_entropy": ["CrossEntropyLoss"],
    "models": [],
    "models.bert": ["BertModel", "BertForPreTraining"],
    "models.gpt": ["GPTModel", "GPTLMHeadModel"],
    "models.llama": ["llama_config_to_gpt2_config", "remap_state_dict_hf_llama"],
    "models.vit": ["VisionTransformer"],
    "modules": [],
    "modules.block": ["Block", "ParallelBlock"],
    "modules.embedding": [
        "GPT2Embeddings", "BertEmbeddings", "VocabParallelEmbedding", "ColumnParallelEmbedding",
        "ParallelGPT2Embeddings"
    ],
    "modules.mha": [
        "MHA", "ParallelMHA", "FlashSelfAttention", "FlashCrossAttention", "SelfAttention", "CrossAttention",
        "LinearResidual", "get_alibi_slopes"
    ],
    "modules.mlp": ["Mlp", "GatedMlp", "ParallelMLP", "ParallelGatedMlp", "FusedMLP", "ParallelFusedMLP"],
    "ops.activations": ["swiglu", "bias_gelu_impl", "gelu_fwd", "gelu_bwd", "relu_bwd", "sqrelu_fwd", "sqrelu_bwd"],
    "ops.fused_dense": [
        "FusedDense", "ColumnParallelLinear", "RowParallelLinear", "FusedMLP", "ParallelFusedMLP", "fused_dense_func",
        "fused_mlp_func"
    ],
    "ops.layer_norm": [
        "DropoutAddLayerNorm", "dropout_add_layer_norm", "layer_norm", "dropout_add_layer_norm_subset",
        "dropout_add_layer_norm_parallel_residual"
    ],
    "ops.rms_norm": [
        "RMSNorm", "DropoutAddRMSNorm", "rms_norm", "dropout_add_rms_norm", "dropout_add_rms_norm_subset",
        "dropout_add_rms_norm_parallel_residual"
    ],
    "ops.triton.cross_entropy": ["CrossEntropyLoss", "cross_entropy_loss"],
    "ops.triton.k_activations": [],
    "ops.triton.layer_norm": [
        "RMSNorm", "layer_norm_fn", "rms_norm_fn", "layer_norm_linear_fn", "layer_norm_ref", "rms_norm_ref"
    ],
    "ops.triton.linear": ["triton_linear_act", "triton_dgrad_act"],
    "ops.triton.mlp": ["FusedDenseSqreluDense", "fused_dense_sqrelu_dense_function"],
    "utils": [],
    "utils.benchmark": [
        "benchmark_all", "benchmark_forward", "benchmark_backward", "benchmark_combined", "benchmark_memory",
        "pytorch_profiler"
    ],
    "utils.distributed": [
        "all_gather_raw", "reduce_scatter_raw", "all_reduce_raw", "sync_shared_params",
        "allreduce_sequence_parallel_grad", "get_dim_for_local_rank"
    ],
    "utils.generation": ["InferenceParams", "GenerationMixin", "decode", "decode_speculative", "update_graph_cache"],
    "utils.pretrained": ["state_dict_from_pretrained"],
    "utils.testing": [
        "attention_ref", "generate_qkv", "generate_random_padding_mask", "convert_flash_attn_S_to_softmax",
        "normalize_flash_attn_S"
    ],
}


def _refusal(module, name):
    from flashplus.later import not_yet

    return not_yet(f"{module}.{name}", "it is not about attention kernels. Use torch's own modules, or install the "
                                       "original flash-attn beside this package, whose module is then found")


def _function(module, name):
    def function(*args, **kwargs):
        raise _refusal(module, name)

    function.__name__ = function.__qualname__ = name
    function.__module__ = module
    function.__doc__ = "Raises NotImplementedError."
    return function


def _class(module, name):
    def __init__(self, *args, **kwargs):
        raise _refusal(module, name)

    return type(name, (), {"__init__": __init__, "__module__": module, "__doc__": "Raises NotImplementedError."})


class _Loader:
    @staticmethod
    def create_module(spec):
        return None

    @staticmethod
    def exec_module(module):
        full = module.__name__
        for name in TABLE[full.partition(".")[2]]:
            make = _class if name[:1].isupper() else _function
            setattr(module, name, make(full, name))


def find_spec(fullname):
    name = fullname.partition(".")[2]
    if name not in TABLE:
        return None
    is_package = any(other.startswith(name + ".") for other in TABLE)
    return importlib.machinery.ModuleSpec(fullname, _Loader, is_package=is_package)
