"""The general.* metadata that llama.cpp's converter writes for what a directory says about a model.

    PYTHONPATH=LLAMA.CPP/gguf-py python modelcard_goldens.py --out formats/modelcard/testdata/cases.json

For each case a directory is made of its files, gguf.Metadata.load reads it, and
set_gguf_meta_model writes into a GGUFWriter, as ModelBase.prepare_metadata in
conversion/base.py has it. "want" lists [key, type, value] in order. Where the
reference ends with a traceback, "fails" has the exception instead. "file" is the
name that the file would get for F16, unless what it is made of is empty. Beside them are the parameter counts of a
few lists of tensors, and words in title case.
"""

import argparse
import json
import logging
import math
import platform
import struct
import tempfile
from pathlib import Path

import gguf
import numpy as np
import yaml

B, M = 10**9, 10**6
README, CONFIG, GENERATION = "README.md", "config.json", "generation_config.json"

# The names of models: real ones, and what nobody should call one. [name, total, shared, expert, experts]
NAMES = [
    ["Meta-Llama-3.1-8B-Instruct", 8030261248],
    ["Llama-2-7b-chat-hf", 6738415616],
    ["Mixtral-8x7B-v0.1", 46702792704, 1605636096, 5637144576, 8],
    ["Mixtral-8x22B-Instruct-v0.1", 140620634112, 2300000000, 17200000000, 8],
    ["Mistral-7B-Instruct-v0.3", 7248023552],
    ["Mistral-Nemo-Instruct-2407", 12247782400],
    ["Qwen2.5-0.5B-Instruct", 494032768],
    ["Qwen2.5-7B-Instruct-1M", 7615616512],
    ["Qwen2.5-14B-Instruct-1M", 14770033664],
    ["Qwen3-30B-A3B", 30532122624, 1540000000, 226492416, 128],
    ["Qwen3-30B-A3B-Instruct-2507", 30532122624, 1540000000, 226492416, 128],
    ["Qwen1.5-MoE-A2.7B-Chat", 14315784192, 2700000000, 193000000, 60],
    ["gemma-3-4b-it", 3880099328],
    ["gemma-2-9b-it-SPPO-Iter3", 9241705984],
    ["Phi-3-mini-4k-instruct", 3821079552],
    ["Phi-3-mini-128k-instruct", 3821079552],
    ["Phi-3-medium-128k-instruct", 13960238080],
    ["phi-1_5", 1418270720],
    ["gpt2", 124439808],
    ["gpt2-xl", 1557611200],
    ["gpt-neo-1.3B", 1315575808],
    ["TinyLlama-1.1B-Chat-v1.0", 1100048384],
    ["TinyLlama-1.1B-intermediate-step-1431k-3T", 1100048384],
    ["bloom-7b1", 7069016064],
    ["bloomz-7b1-mt", 7069016064],
    ["falcon-40b-instruct", 41303293952],
    ["SmolLM2-135M-Instruct", 134515008],
    ["stories260K", 260032],
    ["stories-llama2-50k", 50000],
    ["DeepSeek-R1-Distill-Qwen-1.5B", 1777088000],
    ["DeepSeek-Coder-V2-Lite-Instruct", 15706484224, 1500000000, 216000000, 64],
    ["Refact-1_6B-fim", 1586000000],
    ["GreenNode-mini-7B-multilingual-v1olet-Mistral-7B-Instruct-v0.1", 7241732096],
    ["Mini-InternVL-Chat-2B-V1-5", 2205754368],
    ["llama-161M-100B", 161 * M],
    ["relu-100B", 1340 * M],
    ["internlm2_5-7b-chat-1m", 7737708544],
    ["Hermes-2-Theta-Llama-3-8B", 8030261248],
    ["daybreak-kunoichi-2dpo-7b", 7241732096],
    ["jamba-900M-v0.13-KIx2", 887 * M],
    ["hermes-2-pro-llama-3-8b-DPO", 0],
    ["Florence-2-base", 230 * M],
    ["Llama-3-Instruct-abliteration-LoRA-8B", -1234],
    ["Llama-3-8B-lora-r16", -41943040],
    ["adapter-1B-LORA", -9 * B],
    ["adapter-1k-chat", -80000],
    ["model-Q4_K_M-7B", 7 * B],
    ["model-7B-bf16-v2", 7 * B],
    ["iq2_xs-model-f16", 0],
    ["-Mistral--Nemo-Base-2407-", 12 * B],
    ["2024", 5],
    ["7B", 7 * B],
    ["7b-chat", 7 * B],
    ["v1.0-rc", 999],
    ["a-7B-7b-7.0B-7B", 7 * B],
    ["x-small-large-xxl-mini", 10 * M],
    ["x-small-3B-Medium", 3 * B],
    ["model-7.5b1-8x7b1-8x7b", 7 * B, 7, 0, 0],
    ["edge-1.875B", B],
    ["edge-1.8750001B", B],
    ["edge-125M", B],
    ["edge-124M", B],
    ["edge-0.125K-lora", -1000],
    ["big-9" + "9" * 200 + "B", 7 * B],
    ["under_score.dots.v1.2-chat", 3 * M],
    ["a model for people  with spaces-7B", 7 * B],
    ["v2 chat", 0],
    ["don't-stop o'neill", 0],
    ["ein-bär-straße-chat", 5 * M],
    ["ﬁrst-ŉame-ǆungla-ὰ-Instruct", 5 * M],
    ["модель-русская-7Б-чат", 5 * M],
    ["模型-7B-聊天", 7 * B],
    ["model-７ｂ-chat", 7 * B],
    ["model-7\u212a-\u0130nstruct-v\u0131sion-mediuM", 7000],
    ["model-١٢B-v٣.٤", 12 * B],
    ["Éclair-éclair-ÉCLAIR-vision", 5 * M],
    ["..hidden-7B", 7 * B],
    ["-", 3],
    ["1e3-chat", 1000],
    ["tab\tname-x-chat", 1000],
    ["nbsp\u00a0word-\u2003em-chat", 1000],
    ["exactly-a-thousand", 1000],
    ["exactly-a-million", M],
    ["just-over-a-million", M + 1],
    ["round-half-995", 995000],
    ["round-half-even", 10500],
    ["round-nine-point-nine", 9950000],
    ["trillion", 1_040_000_000_000],
    ["moe", 999, 1_550_000, 50_000, 16],
    ["moe-tiny", 999, 12, 3, 2],
    ["nothing", 0],
    ["one", 1],
]

FULL_CARD = """---
license: apache-2.0
license_name: my licence
license_link: https://example.com/LICENSE
language:
- en
- no
- de
tags:
- text-generation
- "quoted: tag"
pipeline_tag: text-generation
base_model:
- meta-llama/Llama-3.1-8B
- https://huggingface.co/teknium/OpenHermes-2.5-Mistral-7B
- https://example.org/models/x-7b
- ssh://git@example.org/x
- gpt2
- {name: A model, author: An author, version: v9, organization: Org, description: text, url: u, doi: d, uuid: i, repo_url: r, else: e}
datasets:
- HuggingFaceH4/ultrachat_200k
- wikitext
- https://huggingface.co/datasets/a/b
- {name: D, repo_url: https://example.org/d}
library_name: transformers
name: The Name
author: The Author
version: v1.2
organization: The Org
description: |
  Several
  lines.
finetune: chatty
basename: base
size_label: 8B
url: https://example.org
doi: 10.1/2
uuid: 123e4567
repo_url: https://example.org/repo
---
# Heading
"""


def card(text):
    return {README: "---\n" + text + "---\n\n# Model\n"}


def generation(**settings):
    return {GENERATION: json.dumps(settings)}


EVERY_SETTING = dict(
    sequence="top_k;temperature", top_k=50, top_p=0.9, min_p=0.05, xtc_probability=0.1, xtc_threshold=0.2, temperature=0.7,
    penalty_last_n=64, repetition_penalty=1.1, mirostat=2, mirostat_tau=5.0, mirostat_eta=0.1, do_sample=True, eos_token_id=[1, 2])

# (name of the case, files, other members of it)
FILES = [
    ("no files", {}, {}),
    ("full card", {README: FULL_CARD}, {}),
    ("full card, adapter", {README: FULL_CARD}, {"dir": "Llama-3-8B-LoRA-chat", "params": [-1000, 1000, 0, 0]}),
    ("model_ keys", card("".join(f"model_{k}: {k} text\n" for k in
                                 "name author version organization description finetune basename size_label url doi uuid repo_url".split())), {}),
    ("TheBloke's keys", card("model_name: Mistral 7B\nmodel_creator: Mistral AI\nmodel_type: mistral\nbase_model: a/b\ninference: false\n"), {}),
    ("plain keys win", card("name: a\nmodel_name: b\nauthor: null\nmodel_author: c\nmodel_creator: d\nmodel_type: e\n"), {}),
    ("empty values", card("name: ''\nversion:\nlicense: ~\ntags: []\nlanguage:\nbase_model:\ndatasets: []\n"), {}),
    ("license list", card("license:\n- mit\n- apache-2.0\n"), {}),
    ("license: no", card("license: no\n"), {}),
    ("empty license list", card("license: []\n"), {}),
    ("language scalar", card("language: de\n"), {}),
    ("language: no", card("language: no\n"), {}),
    ("norwegian in flow", card("language: [nb, \"no\"]\n"), {}),
    ("languages and language", card("languages: [a, b]\nlanguage: [c]\ntags: t\npipeline_tag: p\n"), {}),
    ("pipeline_tag alone", card("pipeline_tag: text-generation\n"), {}),
    ("tags of numbers", card("tags: [1, 0x10, -7]\nlanguage: [1.5, .inf]\n"), {}),
    ("tags of truth values", card("tags: [yes, off]\n"), {}),
    ("base_models", card("base_models: teknium/OpenHermes-2.5\ndataset: a/b-v2\n"), {}),
    ("base_model_sources", card("base_model_sources: [x/y-7B-v0.1]\ndataset_sources: [https://example.com/x]\n"), {}),
    ("base_model is a mapping", card("base_model: {name: x}\ndatasets: {a: b}\n"), {}),
    ("base_model null and base_models", card("base_model: null\nbase_models: a/b\n"), {}),
    ("base models of odd types", card("base_model: [1, null, [a], true, x/y]\n"), {}),
    ("base model paths", card("base_model: [./local-7B, ../up-7B-chat, /abs/path-8B, a/b/c, //x, 'A Name For People', '', 'org/']\n"), {}),
    ("base model URLs", card("base_model:\n- http://huggingface.co/a/b-v1-7B-chat\n- https://huggingface.co/a/b/tree/main\n"
                             "- https://www.huggingface.co/a/b\n- https://huggingface.co/a\n- HTTPS://huggingface.co/a/b\n"
                             "- https://huggingfacexco/a/b\n- |\n  https://huggingface.co/a/b\n"), {}),
    ("base model sizes by total", card("base_model: [a/x-7B-chat, a/x-70B-chat, a/x-7k, a/x-v1-%sB]\n" % ("9" * 310)), {"params": [7 * B, 7 * B, 0, 0]}),
    ("empty base model entry", card("base_model: [{}, {name: '', author: null, version: 0}]\n"), {}),
    ("duplicate keys", card("license: mit\nlicense: apache-2.0\ntags: [a]\ntags: [b]\n"), {}),
    ("tabs", card("license:\tmit\ntags:\n\t- a\n\t- b\tc\n"), {}),
    ("comments", card("# a comment\nlicense: mit # not this\ntags: # here\n- a # b\n- 'c # d'\n"), {}),
    ("folded", card("description: >-\n  one\n  two\n\n  three\nauthor: plain\n  and on\n"), {}),
    ("quotes", card("name: \"a \\\"b\\\" \\u00e9 \\\n  c\"\nauthor: 'it''s'\n"), {}),
    ("anchors", card("tags: &t [a, b]\nlanguage: *t\nname: &n x\nauthor: *n\n"), {}),
    ("merge key", card("defaults: &d {license: mit, author: a}\n<<: *d\nauthor: b\n"), {}),
    ("tagged", card("version: !!str 1.0\nname: !!str yes\nlicense: !!str 7\ndescription: !!null x\n"), {}),
    ("document end", {README: "---\nlicense: mit\n...\n---\n"}, {}),
    ("values that look like others", card("version: 1.0.0\nauthor: 1e5\nfinetune: 089\nname: 'yes'\nbasename: \"1.0\"\nsize_label: 7B\norganization: 1_a\n"), {}),
    ("values that look like nothing", card("version: 0\nauthor: 0.0\nname: false\nfinetune: -0\nbasename: 0x0\n"), {}),
    ("CRLF", {README: "---\r\nlicense: mit\r\ntags:\r\n- a\r\n- no\r\n---\r\ntext\r\n"}, {}),
    ("old Mac", {README: "---\rlicense: mit\r---\r"}, {}),
    ("odd line ends", {README: "---\u2028license: mit\x0cauthor: a\x85---\n"}, {}),
    ("byte order mark", {README: "\ufeff---\nlicense: mit\n---\n"}, {}),
    ("no front matter", {README: "# Title\n---\nlicense: mit\n---\n"}, {}),
    ("space behind dashes", {README: "--- \nlicense: mit\n---\n"}, {}),
    ("front matter without an end", {README: "---\nlicense: mit\ntags: [a]\n"}, {}),
    ("empty README", {README: ""}, {}),
    ("empty front matter", {README: "---\n---\n"}, {}),
    ("front matter of comments", card("# nothing\n"), {}),
    ("front matter is a list", card("- a\n- b\n"), {}),
    ("front matter is text", card("just text\n"), {}),
    ("unicode", card("author: Ünïcödé 作者 🦙\ntags: [日本語, \"\\u00fc\"]\nbase_model: 組織/模型-7B\n"), {}),
    ("long card", card("model-index:\n- name: x\n  results:\n" + "".join(
        f"  - task: {{type: c{i}}}\n    metrics:\n    - type: accuracy\n      value: {i}.5\n" for i in range(40)) + "license: mit\n"), {}),

    # What the reference cannot write.
    ("version is a number", card("version: 1.0\nlicense: mit\n"), {}),
    ("name is a whole number", card("name: 2407\n"), {}),
    ("author is true", card("author: yes\n"), {}),
    ("version is a date", card("version: 2024-05-01\n"), {}),
    ("description is a list", card("description: [a, b]\n"), {}),
    ("author is a mapping", card("author: {a: b}\n"), {}),
    ("license list of numbers", card("license: [mit, 2]\n"), {}),
    ("license is a mapping", card("license: {a: b}\n"), {}),
    ("tags of several kinds", card("tags: [a, 1, null, [b], 2024-01-01]\n"), {}),
    ("tags of large numbers", card("tags: [3000000000]\n"), {}),
    ("entry with a number", card("base_model: [{name: x, version: 2}]\n"), {}),
    ("broken YAML", card("license: mit\ntags: [a\n"), {}),
    ("two colons", card("license: mit: no\n"), {}),
    ("undefined alias", card("license: *mit\n"), {}),
    ("unknown tag", card("license: !!python/none mit\n"), {}),
    ("two documents", {README: "---\nlicense: mit\n--- \nlicense: bsd\n---\n"}, {}),
    ("_name_or_path is a number", {CONFIG: '{"_name_or_path": 7}'}, {}),
    ("top_k is not whole", generation(top_k=50.0), {}),
    ("top_k is text", generation(top_k="50"), {}),
    ("top_k is large", generation(top_k=2**31), {}),
    ("temperature is text", generation(temperature="hot"), {}),
    ("temperature is large", {GENERATION: '{"temperature": 1e39}'}, {}),
    ("sequence is a number", generation(sequence=7), {}),
    ("generation_config is a list", {GENERATION: "[1]"}, {}),

    ("every setting", generation(**EVERY_SETTING), {}),
    ("penalty_repeat wins", generation(penalty_repeat=1.5, repetition_penalty=1.1), {}),
    ("penalty_repeat null wins", generation(penalty_repeat=None, repetition_penalty=1.1), {}),
    ("settings of null", generation(top_k=None, top_p=None, temperature=None), {}),
    ("whole numbers for others", generation(top_p=1, temperature=0, min_p=False, top_k=True, mirostat=-3), {}),
    ("settings at the edge", {GENERATION: '{"top_k": -2147483648, "temperature": 3.4028235e38, "top_p": 1e-46, "min_p": -0.0, "mirostat_tau": 123456789, "mirostat_eta": 1E-1}'}, {}),
    ("setting twice", {GENERATION: '{"top_k": 1, "top_k": 2}'}, {}),
    ("empty sequence", generation(sequence="", top_k=0), {}),
    ("empty generation_config", {GENERATION: "{}"}, {}),
    ("broken generation_config", {GENERATION: "{\"top_k\": 1"}, {}),
    ("generation_config of nothing", {GENERATION: ""}, {}),
    ("generation_config is an empty list", {GENERATION: "[]"}, {}),

    ("_name_or_path", {CONFIG: '{"_name_or_path": "meta-llama/Llama-2-7b-hf"}'}, {"dir": "model"}),
    ("_name_or_path fills in", {CONFIG: '{"_name_or_path": "meta-llama/Llama-2"}'}, {"dir": "my-finetune-7B-chat-v3", "params": [6738415616, 6738415616, 0, 0]}),
    ("_name_or_path is a path", {CONFIG: '{"_name_or_path": "/home/me/models/Llama-2-7b"}'}, {"dir": "model-8B"}),
    ("_name_or_path is a relative path", {CONFIG: '{"_name_or_path": "./hermes-2-pro-llama-3-8b-DPO"}'}, {"dir": "model"}),
    ("_name_or_path is empty", {CONFIG: '{"_name_or_path": ""}'}, {"dir": "model-8B-chat"}),
    ("_name_or_path is null", {CONFIG: '{"_name_or_path": null}'}, {"dir": "model-8B-chat"}),
    ("card and config and directory", {**card("name: N\nlicense: mit\n"), CONFIG: '{"_name_or_path": "org/base-7B"}', **generation(temperature=0.6)},
     {"dir": "dir-7b-chat-v1", "params": [7 * B, 7 * B, 0, 0]}),

    ("--model-name", card("name: N\n"), {"model_name": "Given Name"}),
    ("--metadata", {README: FULL_CARD, **generation(**EVERY_SETTING)}, {"model_name": "Given", "override": json.dumps({
        "general.name": "not this", "general.author": "O", "general.version": None, "general.quantized_by": "me", "general.license.name": "LN",
        "general.url": "U", "general.doi": "D", "general.uuid": "UU", "general.repo_url": "R", "general.source.url": "SU", "general.size_label": "9B",
        "general.base_models": [{"name": "bm", "doi": "x"}], "general.datasets": [], "general.tags": ["a"], "general.languages": None,
        "general.sampling.temp": 0.5, "general.sampling.top_k": None, "general.sampling.sequence": "s", "general.sampling.mirostat": 1})}),
    ("--metadata of one key", {}, {"override": '{"general.base_models": null, "general.description": "ü\\u00fc"}', "dir": "gpt2"}),
]

# Lists of tensors whose parameters are counted.
TENSORS = [
    [["token_embd.weight", [512, 64]], ["blk.0.attn_norm.weight", [64]], ["blk.0.ffn_down.weight", [64, 172]]],
    [["token_embd.weight", [100, 8]], ["blk.0.ffn_up_exps.weight", [4, 16, 8]], ["blk.0.ffn_down_exps.weight", [4, 8, 16]],
     ["blk.1.ffn_up_exps.weight", [2, 16, 8]], ["blk.0.ffn_up_exps.bias", [3, 4, 16]], ["blk.0.ffn_gate_exps.bias", [4, 16]]],
    [["blk.0.attn_q.weight.lora_a", [4, 64]], ["blk.0.attn_q.weight.lora_b", [32, 4]]],
    [["blk.0.attn_q.weight.lora_b", [32, 4]], ["blk.0.attn_q.weight.lora_a", [4, 64]]],
    [["blk.0.ffn_up_exps.weight.lora_a", [8, 4, 64]], ["blk.0.ffn_up_exps.weight.lora_b", [8, 32, 4]]],
]

TITLES = ["straße", "ﬀ-ﬁ", "ŉ", "ǰ", "և", "o'neill", "x1y2", "1x", "v1x", "ªb", "ⅷ-ⅸ", "ΐ", "ά", "ῳ", "ß", "a\u0301b", "ǆ", "ꜳ", "ნ", "ᏸ", "a_b.c"]


def run(case):
    """The case with what the reference makes of it."""
    with tempfile.TemporaryDirectory() as tmp:
        path = Path(tmp, "d", case["dir"])
        path.mkdir(parents=True)
        for name, text in case.get("files", {}).items():
            Path(path, name).write_bytes(text.encode("utf-8"))
        override = None
        if "override" in case:
            override = Path(tmp, "override.json")
            override.write_text(case["override"], encoding="utf-8")
        total, shared, expert, experts = case["params"]
        try:
            metadata = gguf.Metadata.load(override, path, case.get("model_name"), total)
            if metadata.name is None:
                metadata.name = path.name
            if metadata.size_label is None and total > 0:
                metadata.size_label = gguf.size_label(total, shared, expert, experts)
            writer = gguf.GGUFWriter(None, "llama")
            metadata.set_gguf_meta_model(writer)
            want = []
            for key, v in writer.kv_data[0].items():
                if key != "general.architecture":
                    writer._pack_val(v.value, v.type, add_vtype=True, sub_type=v.sub_type)
                    want.append([key, *typed(v)])
        except Exception as e:
            return {**case, "fails": f"{type(e).__name__}: {e}".replace(tmp, "").split("\n")[0]}
        out = {**case, "want": want}
        parts = [metadata.name, metadata.basename, metadata.finetune, metadata.version, metadata.size_label]
        if all(p is None or isinstance(p, str) and p for p in parts):
            out["file"] = gguf.naming_convention(*parts, "F16", model_type="LoRA" if total < 0 else None) + ".gguf"
        return out


def typed(v):
    if v.type == gguf.GGUFValueType.ARRAY:
        kind = gguf.GGUFValueType.get_type(v.value[0])
        return [f"[{kind.name}]", [stored(x, kind) for x in v.value]]
    return [v.type.name, stored(v.value, v.type)]


def stored(x, kind):
    """The value as the file has it; a float32 by its shortest decimal."""
    if kind == gguf.GGUFValueType.FLOAT32:
        x = np.float32(struct.unpack("<f", struct.pack("<f", x))[0])
        return str(x)
    if kind == gguf.GGUFValueType.INT32:
        return int(x)
    return x


def count(tensors):
    writer = gguf.GGUFWriter(None, "llama")
    for name, shape in tensors:
        writer.add_tensor_info(name, shape, np.dtype(np.float32), 4 * math.prod(shape))
    return {"tensors": tensors, "params": list(writer.get_total_parameter_count())}


def cases():
    for name, *params in NAMES:
        yield {"name": "named " + name[:60], "dir": name, "params": params + [params[0], 0, 0][len(params) - 1:]}
    for name, files, more in FILES:
        yield {"name": name, "dir": "some-model", "params": [1100048384, 1100048384, 0, 0], "files": files, **more}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    logging.disable(logging.CRITICAL)
    lines = [json.dumps(run(c), ensure_ascii=False) for c in cases()]
    versions = {"llama.cpp": "v0.5.0", "python": platform.python_version(), "pyyaml": yaml.__version__}
    titles = {s: gguf.Metadata.id_to_title(s) for s in TITLES}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text('{"made_by": %s,\n"titles": %s,\n"counts": %s,\n"cases": [\n%s\n]}\n' % (
        json.dumps(versions), json.dumps(titles, ensure_ascii=False), json.dumps([count(t) for t in TENSORS]), ",\n".join(lines)), encoding="utf-8")


if __name__ == "__main__":
    main()
