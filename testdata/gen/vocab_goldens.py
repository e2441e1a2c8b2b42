"""The tokenizer.* keys that llama.cpp's own converter writes for small model directories of every kind.

    PYTHONPATH=LLAMA.CPP/gguf-py:LLAMA.CPP python vocab_goldens.py --stories STORIES260K/tokenizer.model \
        --tokenizers testdata/tokenizers --out formats/vocab/testdata

Runs with transformers 4.57.6, which llama.cpp v0.5.0 pins. Writes converter.json.gz: for each directory its files, the
architecture, and every tokenizer.* key that the architecture's set_vocab writes, in order, with its type. A file is JSON, or
text as a string; tokenizer.json is a change to one of `bases`: the members that are replaced, of `model` those within,
with "add" to add to its vocabulary and merges. The digests of small vocabularies are known to nobody, so the name of
the pre-tokenizer is given. Trailing tokens named [PADi] are counted, not listed: in tokens a number at the end is
theirs.

Writes rewritten.model: tokenizer.model with exactly the fields that nibble writes, by SentencePiece's own protocol
buffer code; SentencePiece loads it and splits text in the same way.
"""

import argparse
import copy
import gzip
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import gguf
import transformers
from sentencepiece import SentencePieceProcessor, sentencepiece_model_pb2 as pb

from conversion import get_model_class
from conversion.base import ModelBase, TextModel

HF = {"llama": "LlamaForCausalLM", "mistral": "MistralForCausalLM", "mixtral": "MixtralForCausalLM", "qwen2": "Qwen2ForCausalLM",
      "qwen3": "Qwen3ForCausalLM", "qwen2moe": "Qwen2MoeForCausalLM", "qwen3moe": "Qwen3MoeForCausalLM", "gemma": "GemmaForCausalLM",
      "gemma2": "Gemma2ForCausalLM", "gemma3": "Gemma3ForCausalLM", "phi3": "Phi3ForCausalLM", "gpt2": "GPT2LMHeadModel"}
PRE = {"gpt2": "gpt-2", "llama3": "llama-bpe", "qwen2": "qwen2", "llama": "granite-embed-multi-311m"}


def added(content, special=False, **flags):
    return {"content": content, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": special, **flags}


def at(i, content, special=False, **flags):
    return {"id": i, **added(content, special, **flags)}


def template(single, pair, ids):
    def piece(text, typ=0):
        if text in ("A", "B"):
            return {"Sequence": {"id": text, "type_id": typ}}
        return {"SpecialToken": {"id": text, "type_id": typ}}
    texts = {t for t in single.split() + pair.split() if t not in ("A", "B")}
    return {"type": "TemplateProcessing", "single": [piece(t) for t in single.split()], "pair": [piece(t) for t in pair.split()],
            "special_tokens": {t: {"id": t, "ids": [ids[t]], "tokens": [t]} for t in sorted(texts)}}


def config(arch, vocab_size=None, **more):
    types = {"qwen2moe": "qwen2_moe", "qwen3moe": "qwen3_moe", "gemma3": "gemma3_text"}
    c = {"architectures": [HF[arch]], "model_type": types.get(arch, arch), **more}
    if vocab_size:
        c["vocab_size"] = vocab_size
    return c


def sentencepiece(arch, size=512, tok_config=None, tok_json=None, **more):
    """A directory with tokenizer.model."""
    files = {"tokenizer.model": "stories", "config.json": config(arch, size, **{"bos_token_id": 1, "eos_token_id": 2, **more})}
    if tok_config is not None:
        files["tokenizer_config.json"] = tok_config
    if tok_json is not None:
        files["tokenizer.json"] = {"base": "llama", "change": tok_json}
    return files


S = {"<s>": 1, "</s>": 2, "<unk>": 0}
LLAMA_ADDED = [at(0, "<unk>", True), at(1, "<s>", True), at(2, "</s>", True)]
LLAMA_CONFIG = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "tokenizer_class": "LlamaTokenizer"}
LLAMA_JSON = {"added_tokens": LLAMA_ADDED, "post_processor": template("<s> A", "<s> A <s> B", S)}
TEMPLATES = [{"name": "default", "template": "{{ messages }}"}, {"name": "tool use", "template": "{{ tools }}"}]


def spm_variants():
    plain = {"add_bos_token": True, "add_eos_token": False, "legacy": False, **LLAMA_CONFIG}
    yield "plain", "llama", sentencepiece("llama", tok_config=plain)
    yield "bare", "llama", sentencepiece("llama")
    yield "no ids", "llama", {"tokenizer.model": "stories", "config.json": config("llama", 512)}
    yield "tokenizer.json", "llama", sentencepiece("llama", tok_config=plain, tok_json=LLAMA_JSON)
    yield "tokenizer.json, no flags", "llama", sentencepiece("llama", tok_config=LLAMA_CONFIG, tok_json=LLAMA_JSON)
    yield "tokenizer.json alone", "llama", sentencepiece("llama", tok_json=LLAMA_JSON)
    yield "bos as an object", "llama", sentencepiece("llama", tok_json=LLAMA_JSON, tok_config={
        **LLAMA_CONFIG, "bos_token": {"__type": "AddedToken", **added("<s>", True)}})
    yield "adds eos", "llama", sentencepiece("llama", tok_config=LLAMA_CONFIG, tok_json={
        "added_tokens": LLAMA_ADDED, "post_processor": template("<s> A </s>", "<s> A </s> <s> B </s>", S)})
    yield "ends with another token", "llama", sentencepiece("llama", tok_config={**LLAMA_CONFIG, "eos_token": "<unk>"}, tok_json={
        "added_tokens": LLAMA_ADDED, "post_processor": template("<s> A </s>", "<s> A </s> B </s>", S)})
    yield "separator", "llama", sentencepiece("llama", tok_config=LLAMA_CONFIG, tok_json={
        "added_tokens": LLAMA_ADDED, "post_processor": template("<s> A", "<s> A </s> B", S)})
    yield "roberta", "llama", sentencepiece("llama", tok_config={"add_eos_token": False, **LLAMA_CONFIG}, tok_json={
        "added_tokens": LLAMA_ADDED, "post_processor": {"type": "Sequence", "processors": [
            {"type": "RobertaProcessing", "sep": ["</s>", 2], "cls": ["<s>", 1], "trim_offsets": True, "add_prefix_space": False}]}})
    yield "cls and sep", "llama", sentencepiece("llama", tok_config={"cls_token": "<s>", "sep_token": "</s>", "pad_token": "<unk>", "mask_token": "<s>"}, tok_json=LLAMA_JSON)
    files = sentencepiece("llama", size=524, unk_token_id=0, pad_token_id=515, tok_config={
        **plain, "add_eos_token": True, "add_prefix_space": False, "pad_token": added("<|im_end|>"), "chat_template": TEMPLATES, "added_tokens_decoder": {
            "0": added("<unk>", True), "1": added("<s>", True), "2": added("</s>", True), "514": added("<|im_start|>", True), "515": added("<|im_end|>"),
            "516": added("\u2581\u2581"), "517": added("plain word"), "518": added("<unused7>"), "261": added("\u2581a", True), "901": added("<far>"), "13": added("<0x0A>")}})
    files["added_tokens.json"] = {"<extra>": 512, "\u2581\u2581two": 513, "<beyond>": 900}
    yield "added", "llama", files
    yield "prefix", "llama", sentencepiece("llama", tok_config={**plain, "add_prefix_space": True})
    yield "no prefix", "mistral", sentencepiece("mistral", tok_config={**plain, "add_prefix_space": False, "chat_template": "{{ x }}"})
    yield "prefix is null", "mixtral", sentencepiece("mixtral", tok_config={**plain, "add_prefix_space": None})
    code = [at(500, "\u2581<PRE>", True), at(501, "\u2581<SUF>", True), at(502, "\u2581<MID>", True), at(503, "\u2581<EOT>", True)]
    yield "CodeLlama", "llama", sentencepiece("llama", size=32016, tok_config={**plain, "chat_template": "{{ x }}"})
    yield "CodeLlama with tokenizer.json", "llama", sentencepiece("llama", size=32016, tok_json={**LLAMA_JSON, "added_tokens": LLAMA_ADDED + code}, tok_config={
        **plain, "add_bos_token": False, "prefix_token": "\u2581<PRE>", "suffix_token": "\u2581<SUF>", "middle_token": "\u2581<MID>", "eot_token": "\u2581<EOT>"})
    yield "text_config", "llama", {**sentencepiece("llama", tok_config=plain), "config.json": config("llama", 512, eos_token_id=2, text_config={"bos_token_id": 1, "eos_token_id": 7, "pad_token_id": 0})}
    yield "ids of other kinds", "llama", sentencepiece("llama", eos_token_id=[2, 3], pad_token_id=900, unk_token_id=None, sep_token_id=5, cls_token_id=6)

    gemma = {"add_bos_token": True, "add_eos_token": False, "bos_token": "<s>", "eos_token": "</s>", "tokenizer_class": "GemmaTokenizer", "chat_template": "{{ bos_token }}"}
    yield "gemma", "gemma", sentencepiece("gemma", tok_config=gemma, tok_json=LLAMA_JSON)
    yield "gemma, config says not", "gemma", sentencepiece("gemma", tok_config={**gemma, "add_bos_token": False}, tok_json=LLAMA_JSON)
    yield "gemma bare", "gemma", sentencepiece("gemma", eot_token_id=3)
    yield "gemma2", "gemma2", sentencepiece("gemma2", tok_config={**gemma, "add_prefix_space": True}, tok_json=LLAMA_JSON)
    yield "gemma3", "gemma3", sentencepiece("gemma3", size=520, tok_config=gemma, tok_json=LLAMA_JSON)
    yield "qwen2 with tokenizer.model", "qwen2", sentencepiece("qwen2", tok_config=plain)

    phi = [at(512, "<|endoftext|>", True), at(513, "<|user|>", True, rstrip=True), at(514, "<|end|>", rstrip=True)]
    files = sentencepiece("phi3", size=520, bos_token_id=1, eos_token_id=512, pad_token_id=512, tok_config={
        **plain, "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>", "chat_template": "{{ x }}", "added_tokens_decoder": {
            "0": added("<unk>", True), "1": added("<s>", True), "2": added("</s>", rstrip=True), "512": added("<|endoftext|>", True),
            "513": added("<|user|>", True, rstrip=True), "514": added("<|end|>", rstrip=True)}},
        tok_json={"added_tokens": LLAMA_ADDED[:2] + [at(2, "</s>", rstrip=True)] + phi + [at(515, "\u2581only here")], "post_processor": template("<s> A", "<s> A <s> B", S)})
    files["added_tokens.json"] = {"<|endoftext|>": 512, "<|user|>": 513, "\u2581extra": 516}
    yield "phi3", "phi3", files


def level(base, arch, size=None, tok_config="as it is", change=None, tokenizers=None, **more):
    """A directory with a byte-level tokenizer.json."""
    files = {"tokenizer.json": {"base": base, "change": change or {}}, "config.json": config(arch, size, **more)}
    if tok_config == "as it is":
        files["tokenizer_config.json"] = json.loads((tokenizers / base / "tokenizer_config.json").read_text())
    elif tok_config is not None:
        files["tokenizer_config.json"] = tok_config
    return files


def bpe_variants(dir, bases):
    def read(name):
        return json.loads((dir / name / "tokenizer_config.json").read_text())

    def tokens(base):
        return bases[base]["added_tokens"]

    def fast(**more):
        return {"tokenizer_class": "PreTrainedTokenizerFast", **more}

    ids = {t["content"]: t["id"] for b in bases for t in tokens(b)}
    end = ids["<|endoftext|>"]
    n = max(bases["gpt2"]["model"]["vocab"].values()) + 1
    yield "gpt2", "gpt2", level("gpt2", "gpt2", 501, tokenizers=dir, bos_token_id=500, eos_token_id=500)
    yield "gpt2 without a config", "gpt2", level("gpt2", "gpt2", 501, None, bos_token_id=500, eos_token_id=500)
    for name, more in {"vocab.json": {}, "vocab.json with added tokens": {"added_tokens.json": {"<a>": 501, "b c": 502}, "special_tokens_map.json": {
            "bos_token": {"content": "<a>", "lstrip": False, "normalized": True, "rstrip": False, "single_word": False}, "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}}}.items():
        yield name, "gpt2", {"vocab.json": (dir / "gpt2" / "vocab.json").read_text(), "merges.txt": (dir / "gpt2" / "merges.txt").read_text(),
                             "tokenizer_config.json": {"model_max_length": 1024, "tokenizer_class": "GPT2Tokenizer"}, "config.json": config("gpt2", 510), **more}
    yield "qwen2 with vocab.json", "qwen2", {"vocab.json": (dir / "gpt2" / "vocab.json").read_text(), "merges.txt": (dir / "gpt2" / "merges.txt").read_text(),
                                             "tokenizer_config.json": {k: v for k, v in read("qwen2").items() if k != "chat_template"}, "config.json": config("qwen2", 512)}
    qwen = tokens("qwen2")
    for arch in ["qwen2", "qwen3", "qwen2moe", "qwen3moe"]:
        yield arch, arch, level("qwen2", arch, 504 + len(arch), tokenizers=dir, bos_token_id=qwen[0]["id"], eos_token_id=qwen[2]["id"])
    yield "qwen2, explicit ids only", "qwen2", level("qwen2", "qwen2", 510, fast(), bos_token_id=qwen[0]["id"], eos_token_id=qwen[2]["id"], pad_token_id=qwen[0]["id"])

    bot = "<|begin_of_text|>"
    yield "llama3", "llama", level("llama3", "llama", 512, tokenizers=dir, bos_token_id=ids[bot], eos_token_id=[ids["<|eot_id|>"], ids["<|end_of_text|>"]])
    yield "llama3 without a config", "llama", level("llama3", "llama", 512, None)
    yield "llama3, no post-processor", "llama", level("llama3", "llama", 512, read("llama3"), {"post_processor": None})
    yield "granite", "llama", level("gpt2", "llama", 49152, fast(bos_token="<|endoftext|>", add_bos_token=True, add_prefix_space=False))
    yield "Phi 4", "phi3", level("gpt2", "phi3", 520, tokenizers=dir, bos_token_id=500)
    for name, (tok_config, files) in {
        "template in the config": ({"chat_template": "{{ a }}"}, {}),
        "templates in the config": ({"chat_template": [*TEMPLATES, {"name": "tool-use", "template": "again"}, {"name": "", "template": "x"}]}, {}),
        "templates without a default": ({"chat_template": TEMPLATES[1:]}, {}),
        "template file": ({}, {"chat_template.jinja": "{{ b }}\n", "chat_template.json": {"chat_template": "{{ no }}"}}),
        "template files": ({}, {"chat_template.jinja": "{{ b }}", "additional_chat_templates/rag.jinja": "{{ c }}", "additional_chat_templates/notes.txt": "no"}),
        "template JSON": ({}, {"chat_template.json": {"chat_template": "{{ d }}"}}),
        "config before file": ({"chat_template": "{{ a }}"}, {"chat_template.jinja": "{{ b }}"}),
        "null before file": ({"chat_template": None}, {"chat_template.jinja": "{{ b }}"}),
        "file without a config": (None, {"chat_template.jinja": "{{ b }}"}),
    }.items():
        yield name, "llama", {**level("llama3", "llama", 512, None if tok_config is None else {**fast(bos_token=bot), **tok_config}), **files}

    def extra(*more):
        return tokens("gpt2") + [at(n + 1 + i, *m[:1], **(m[1] if len(m) > 1 else {})) for i, m in enumerate(more)]

    many = extra(("<user>",), ("<norm>", {"normalized": True}), ("<|looks|>",), ("<pad>",), ("<unused5>",), ("a\u2581b",), ("\u00e9t\u00e9",), ("caf\u00e9", {"normalized": True}),
                 (" .x n't",), ("two words",), ("<l>", {"lstrip": True, "rstrip": True}), ("<s>", {"special": True, "normalized": True}), ("<\uff5cfull\uff5c>",), ("[@BOS@]",))
    yield "added tokens", "gpt2", level("gpt2", "gpt2", 530, change={"added_tokens": many}, tokenizers=dir)
    yield "added tokens, cleaned up", "gpt2", level("gpt2", "gpt2", 530, {**read("gpt2"), "clean_up_tokenization_spaces": True}, {"added_tokens": many})
    yield "added in the config", "qwen2", level("qwen2", "qwen2", 520, {**read("qwen2"), "pad_token": "<new pad>", "additional_special_tokens": ["<new>", "<|im_start|>", "the"], "added_tokens_decoder": {
        **read("qwen2")["added_tokens_decoder"], str(qwen[3]["id"]): added("<tool_call>", True), str(qwen[3]["id"] + 1): added("<later>", normalized=True)}})
    yield "no added tokens decoder", "qwen2", {**level("qwen2", "qwen2", 520, {k: v for k, v in read("qwen2").items() if k != "added_tokens_decoder"}),
                                               "added_tokens.json": {"<x>": qwen[3]["id"] + 1, "<tool_call>": qwen[3]["id"]}, "special_tokens_map.json": {"eos_token": "<|im_start|>", "additional_special_tokens": ["<x>"]}}
    yield "special in text", "gpt2", level("gpt2", "gpt2", 510, fast(bos_token="the", eos_token="<|endoftext|>", unk_token="<none>"))
    yield "normalizer", "gpt2", level("gpt2", "gpt2", 501, change={"normalizer": {"type": "Sequence", "normalizers": [{"type": "NFD"}, {"type": "Lowercase"}, {"type": "StripAccents"}]}}, tokenizers=dir)
    yield "spaces in merges", "gpt2", level("gpt2", "gpt2", 520, change={"add": {"vocab": {"a b": 500, " b": 501, "a ba": 502}, "merges": [["a", " b"], ["a b", "a"]]}, "added_tokens": []}, tok_config=fast())
    yield "merges as text", "gpt2", level("gpt2", "gpt2", 501, change={"model": {"merges": [" ".join(m) for m in bases["gpt2"]["model"]["merges"]]}}, tokenizers=dir)
    yield "holes", "gpt2", level("gpt2", "gpt2", 510, change={"added_tokens": [], "model": {"vocab": {t: i for t, i in bases["gpt2"]["model"]["vocab"].items() if i not in (300, 301)},
        "merges": [m for m in bases["gpt2"]["model"]["merges"] if not {bases["gpt2"]["model"]["vocab"][t] for t in (*m, "".join(m))} & {300, 301}]}}, tok_config=fast())

    fallback = {"added_tokens": LLAMA_ADDED}
    yield "byte fallback", "llama", level("llama", "llama", 512, {**LLAMA_CONFIG, "add_bos_token": True, "legacy": True}, fallback, bos_token_id=1, eos_token_id=2)
    yield "byte fallback, added", "mistral", level("llama", "mistral", 515, fast(bos_token="<s>", eos_token="<|im_end|>", unk_token="<unk>", additional_special_tokens=["<|im_start|>"]), {
        "added_tokens": LLAMA_ADDED + [at(512, "<|im_start|>", True), at(513, "<|im_end|>"), at(514, "plain\u2581word")], "post_processor": template("<s> A", "<s> A B", S)})
    yield "gemma3 with tokenizer.json", "gemma3", level("llama", "gemma3", 512, {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "</s>", "tokenizer_class": "GemmaTokenizer"}, {
        **fallback, "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}, "pre_tokenizer": {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False},
        "post_processor": template("<s> A", "<s> A <s> B", S)})


def merged(base, change):
    out = copy.deepcopy(base)
    for key, value in change.items():
        if key == "model":
            out["model"].update(value)
        elif key == "add":
            out["model"]["vocab"].update(value["vocab"])
            out["model"]["merges"] += value["merges"]
        else:
            out[key] = value
    return out


def write(dir, files, bases, stories):
    for name, value in files.items():
        path = dir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name == "tokenizer.model":
            shutil.copyfile(stories, path)
            continue
        if name == "tokenizer.json":
            value = merged(bases[value["base"]], value["change"])
        path.write_text(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False), encoding="utf-8")


def keys(dir, arch, pre):
    """[[key, type, value]] of the tokenizer.* keys that set_vocab writes, in order."""
    TextModel.get_vocab_base_pre = lambda self, tokenizer: pre
    hparams = ModelBase.load_hparams(dir, False)
    cls = get_model_class(HF[arch])
    model = cls.__new__(cls)
    model.hparams, model.dir_model, model.is_mistral_format, model.origin_hf_arch = hparams, dir, False, None
    model.gguf_writer = gguf.GGUFWriter(None, arch)
    model.set_vocab()
    model.gguf_writer.write_header_to_file(dir / "out.gguf")
    model.gguf_writer.write_kv_data_to_file()
    model.gguf_writer.close()
    out = []
    for key, field in gguf.GGUFReader(dir / "out.gguf").fields.items():
        if key.startswith("tokenizer."):
            value = field.contents()
            if key == "tokenizer.ggml.tokens":
                at = len(value)
                while at and value[at - 1] == f"[PAD{at - 1}]":
                    at -= 1
                value = value[:at] + [len(value) - at]
            if key in ("tokenizer.ggml.token_type", "tokenizer.ggml.scores"):
                value = value[:len(out_tokens(out))]
            if key == "tokenizer.chat_templates":
                value = sorted(value)
            out.append([key, " ".join(t.name for t in field.types), value])
    return out


def out_tokens(out):
    return next(v for k, _, v in out if k == "tokenizer.ggml.tokens")[:-1]


def rewrite(path):
    """The model with only the fields that have an effect, checked to have the same effect."""
    old = pb.ModelProto.FromString(path.read_bytes())
    new = pb.ModelProto()
    for piece in old.pieces:
        kept = new.pieces.add(piece=piece.piece, score=piece.score)
        if piece.type != pb.ModelProto.SentencePiece.NORMAL:
            kept.type = piece.type
    t = new.trainer_spec
    t.model_type, t.vocab_size, t.byte_fallback = pb.TrainerSpec.BPE, len(old.pieces), True
    t.unk_id, t.bos_id, t.eos_id, t.pad_id = 0, 1, 2, -1
    t.unk_surface, t.unk_piece, t.bos_piece, t.eos_piece = " \u2047 ", "<unk>", "<s>", "</s>"
    n = new.normalizer_spec
    n.name, n.add_dummy_prefix, n.remove_extra_whitespaces, n.escape_whitespaces = "identity", True, False, True
    data = new.SerializeToString()
    a = SentencePieceProcessor(model_proto=path.read_bytes())
    b = SentencePieceProcessor(model_proto=data)
    for text in ["", " ", "Once upon a time,\n there  was \u00e9 \u65e5 \x00 <s></s>", b"\xff\xf0\x9f"]:
        assert a.encode(text) == b.encode(text)
    assert (b.unk_id(), b.bos_id(), b.eos_id(), b.pad_id()) == (0, 1, 2, -1)
    return data


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stories", type=Path, required=True, help="tokenizer.model of stories260K")
    parser.add_argument("--tokenizers", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()

    from transformers import LlamaTokenizer
    from transformers.convert_slow_tokenizer import LlamaConverter

    (args.out / "rewritten.model").write_bytes(rewrite(args.stories))
    bases = {name: json.loads((args.tokenizers / name / "tokenizer.json").read_text()) for name in ["gpt2", "llama3", "qwen2"]}
    bases["llama"] = json.loads(LlamaConverter(LlamaTokenizer(str(args.stories), legacy=True)).converted().to_str())
    result = []
    only = os.environ.get("ONLY")
    for name, arch, files in [*spm_variants(), *bpe_variants(args.tokenizers, bases)]:
        if only and name != only:
            continue
        base = files.get("tokenizer.json", {}).get("base", "qwen2" if arch.startswith("qwen") else "gpt2")
        with tempfile.TemporaryDirectory() as tmp:
            try:
                write(Path(tmp), files, bases, args.stories)
                found = keys(Path(tmp), arch, PRE[base])
            except Exception as e:
                sys.exit(f"{name}: {type(e).__name__}: {e}")
        result.append({"name": name, "arch": arch, "pre": PRE[base], "files": files, "keys": found})
    data = {"transformers": transformers.__version__, "llama": bases["llama"], "variants": result}
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    (args.out / "converter.json.gz").write_bytes(gzip.compress(text.encode(), 9, mtime=0))
    print("transformers", transformers.__version__, len(result), "directories")


if __name__ == "__main__":
    main()
