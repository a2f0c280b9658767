# SPDX-License-Identifier: BSD-3-Clause
"""The folders by which hosts of the `kernels` hub load us: `python -m flash_attn local-kernels`."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import flash_attn
import flash_attn_interface
import pytest
from flashplus import command

START = "import flashplus.finder; flashplus.finder.install()\n"


def overrides():
    name, _, value = command.local_kernels().partition("=")
    assert name == "LOCAL_KERNELS"
    return dict(entry.split("=", 1) for entry in value.split(":"))


@pytest.mark.parametrize("folder", ["/a b", "/a:b", "/a\nb"])
def test_a_path_that_the_line_cannot_say(folder, monkeypatch):
    monkeypatch.setattr(command, "HERE", folder)
    with pytest.raises(ValueError, match="the package lies in '/a.+b/hub'; a path in LOCAL_KERNELS must have no"):
        command.local_kernels()


def test_the_line_is_printed():
    code = START + ("import runpy, sys; sys.argv[1:] = ['local-kernels']; "
                    "runpy.run_module('flash_attn', run_name='__main__')")
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert out.strip() == command.local_kernels() and "\n" not in out.strip()


@pytest.mark.parametrize("repository", overrides())
def test_folders(repository):
    """What the hub's loader looks for, and the functions of the face that the name is of."""
    folder = pathlib.Path(overrides()[repository])
    metadata = json.loads((folder / "metadata.json").read_text())
    assert metadata["name"].replace("-", "_") == folder.name and metadata["python-depends"] == []
    spec = importlib.util.spec_from_file_location(f"{folder.name}_{id(folder)}", folder / "__init__.py",
                                                  submodule_search_locations=[str(folder)])
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    face = flash_attn_interface if folder.name.endswith("3") else flash_attn
    for name in ("flash_attn_func", "flash_attn_varlen_func", "flash_attn_with_kvcache"):
        assert getattr(module, name) is getattr(face, name)


@pytest.mark.parametrize("version", ["2", "3"])
def test_transformers_loads_them_on_the_cpu(version):
    """By the hub's own loader, under the string "flash_attention_2", without a line of ours in the program. (The
    version of `kernels` that transformers asks for may be one that no registry has: any will do.)"""
    pytest.importorskip("kernels")
    pytest.importorskip("transformers")
    code = f"""
import torch, transformers.utils.import_utils as u
asked = u.is_kernels_available
getattr(asked, "__wrapped__", asked).__defaults__ = "0", "99"
getattr(asked, "cache_clear", lambda: None)()
from transformers import LlamaConfig, LlamaForCausalLM
def model(implementation):
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(vocab_size=64, hidden_size=64, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, attn_implementation=implementation)).eval()
ours, eager = model("flash_attention_{version}"), model("eager")
tokens = torch.randint(1, 64, (2, 20))
mask = torch.ones_like(tokens); mask[0, :7] = 0
with torch.no_grad():
    for m in (None, mask):
        a, b = (x(tokens, attention_mask=m).logits for x in (ours, eager))
        kept = slice(None) if m is None else m.bool()
        assert (a[kept] - b[kept]).abs().max() < 1e-4, (a[kept] - b[kept]).abs().max()
    one, two = (x.generate(tokens, max_new_tokens=6, do_sample=False, pad_token_id=0) for x in (ours, eager))
assert torch.equal(one, two)
import flashplus
assert flashplus.counters()["memory_hits"] + flashplus.counters()["compiles"] + flashplus.counters()["disk_hits"] > 0
"""
    name, _, value = command.local_kernels().partition("=")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                          env={**os.environ, name: value, "HF_HUB_OFFLINE": "1", "FLASHPLUS_FACE": "OFF"})
    assert done.returncode == 0, done.stdout + done.stderr
