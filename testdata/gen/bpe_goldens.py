"""What Hugging Face's tokenizers make of hard texts with every part of a tokenizer.json that nibble knows.

    python bpe_goldens.py --tokenizers testdata/tokenizers --stories STORIES260K/tokenizer.model \
        --out formats/vocab/bpe/testdata

Writes pipelines.json.gz: the models, and for each pipeline the parts that make it and, for each text, its tokens, those
with the post-processor's, and what they decode to with and without special tokens. The models are the three small
byte-level ones of testdata/tokenizers, stories260K with byte fallback, and one without fallback that is made here.
Writes unicode.json: digests of what the library does with every single character that Unicode
has assigned.
"""

import argparse
import gzip
import hashlib
import json
import random
from pathlib import Path

from tokenizers import Regex, Tokenizer, __version__, models, normalizers, pre_tokenizers, trainers

TEXTS = [
    "", " ", "a", " a", "a ", "Hello, World!  This is   a test.", "I'll we'Ve'RE he'S it'ſ DON'T y'all'd've ''s 'Dx",
    "HelloWorld fooBar XMLHttpRequest A1b2C3_d-e", "1234567 12 1 123456789012 3.14159 1,000,000 ١٢٣ ²³ ⅷ ½ K",
    "naïve café cafe\u0301 x\u0301\u0323 \u212b \ufb01 ﷺ ㌀ ½", "q\u0307\u0323 " + "a" + "\u0301\u0316" * 20 + " 각 \u1100\u1161\u11a8 \uac00\u11a8",
    "Größe STRASSE İstanbul ǅ ΣΑΣ ЖЖ", "Привет, мир! КАК дела?", "你好，世界。今天 天气 ひらがな カタカナ 한국어", "नमस्ते दुनिया। தமிழ் ไทย", "مرحبا بالعالم، كيف؟ ۔",
    "👨‍👩‍👧‍👦 🏳️‍🌈 👍🏽 🇩🇪 1️⃣ 🦙", "for (int i = 0; i < 10; i++) {\n\t\tprintf(\"%d\\n\", i); // §\n\t}", "def f():\n    return {'a': [1, 2.5e-3]}  # ok\n",
    "a\u00a0b\u3000c\u2009d\u2028e\u0085f\u200bg\ufeff", "\r\n\r\n \r \n", "\t\t  \t \n \r\n  ", "     x     ", "\n\n\n", "!!!...???///\n\n/a $5 + 3 = 8 ^_^ `x` ~|", "\x00\x01\x7f\x80\x9f",
    "\u0378\ue000\U0010ffff\u2427\U0002ebf0 \u0898a\u0301\u08ca \U00011938 \U00011de0", "▁ ▁▁a▁b", "<unk><0x41>", "a\n b\n  c\n\n   d",
    "<|endoftext|>a <|endoftext|> b<|im_start|>user\nhi<|im_end|>\n", "<tool_call>x</tool_call><|begin_of_text|>y<|eot_id|>", " <s> a </s>b<s>", "x <LEFT> y <RIGHT>  z<BOTH> \n <BOTH>q",
    "word WORD wordy a word, word. _word wörd word", "caf\u00e9! cafe\u0301! CAFÉ!", "the the<the> thethe", "<LEFT><LEFT>  <RIGHT>  <LEFT>",
]

DIGITS, WHITE = "[0-9][0-9][0-9]", r"\s+"
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}


def sequence(kind, *parts):
    return {"type": "Sequence", kind: list(parts)}


def plain(name):
    return {"type": name}


def split(pattern, behavior="Isolated", invert=False, text=False):
    return {"type": "Split", "pattern": {"String" if text else "Regex": pattern}, "behavior": behavior, "invert": invert}


def replace(pattern, content, regex=False):
    return {"type": "Replace", "pattern": {"Regex" if regex else "String": pattern}, "content": content}


def metaspace(scheme, split=True):
    return {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": split}


def added(content, **flags):
    return {"id": 0, "content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False, **flags}


def bert(kind, cls, sep, **more):
    return {"type": kind, "sep": list(sep), "cls": list(cls), **more}


TOKENS = [added("<LEFT>", lstrip=True), added("<RIGHT>", rstrip=True, special=True), added("<BOTH>", lstrip=True, rstrip=True, normalized=True),
          added("word", single_word=True), added("Café", normalized=True), added("the", normalized=True), added("<the>"), added(" b")]
LLAMA_DECODER = sequence("decoders", replace("▁", " "), plain("ByteFallback"), plain("Fuse"), {"type": "Strip", "content": " ", "start": 1, "stop": 0})


def pipelines(models):
    """name -> (model, parts)"""
    for name in ["gpt2", "llama3", "qwen2", "llama"]:
        yield name, name, {}
    n = sequence
    for form in ["NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "Nmt"]:
        yield form, "gpt2", {"normalizer": plain(form)}
    yield "lower and strip", "gpt2", {"normalizer": n("normalizers", plain("NFD"), plain("Lowercase"), plain("StripAccents"))}
    yield "strip left", "gpt2", {"normalizer": {"type": "Strip", "strip_left": True, "strip_right": False}}
    yield "strip both", "gpt2", {"normalizer": n("normalizers", {"type": "Strip", "strip_left": True, "strip_right": True}, n("normalizers"))}
    yield "replace", "gpt2", {"normalizer": n("normalizers", replace("a", "the "), replace(r"\s{2,}", " ", True), {"type": "Prepend", "prepend": "x"})}
    yield "byte normalizer", "gpt2", {"normalizer": plain("ByteLevel"), "pre_tokenizer": None}
    yield "prefix space", "gpt2", {"pre_tokenizer": {**BYTES, "add_prefix_space": True, "use_regex": True}}
    for behavior in ["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"]:
        yield "split " + behavior, "gpt2", {"pre_tokenizer": n("pretokenizers", split(r"[a-z]|\s", behavior), BYTES)}
        yield "inverted " + behavior, "gpt2", {"pre_tokenizer": n("pretokenizers", split(r"[a-z]|\s", behavior, True), BYTES)}
        yield "text " + behavior, "gpt2", {"pre_tokenizer": n("pretokenizers", split(" ", behavior, text=True), BYTES)}
        yield "punctuation " + behavior, "gpt2", {"pre_tokenizer": n("pretokenizers", {"type": "Punctuation", "behavior": behavior}, BYTES)}
    yield "digits", "gpt2", {"pre_tokenizer": n("pretokenizers", {"type": "Digits", "individual_digits": False}, BYTES)}
    yield "starcoder", "gpt2", {"pre_tokenizer": n("pretokenizers", {"type": "Digits", "individual_digits": True}, {**BYTES, "use_regex": True})}
    yield "falcon", "gpt2", {"pre_tokenizer": n("pretokenizers", {"type": "Punctuation", "behavior": "Contiguous"}, {**BYTES, "use_regex": True},
                                                {"type": "Digits", "individual_digits": False}, split(DIGITS))}
    yield "whitespace", "gpt2", {"pre_tokenizer": n("pretokenizers", plain("Whitespace"), BYTES)}
    yield "whitespace split", "gpt2", {"pre_tokenizer": n("pretokenizers", plain("WhitespaceSplit"), n("pretokenizers", BYTES))}
    yield "bytes alone", "gpt2", {"pre_tokenizer": BYTES}
    yield "nothing", "gpt2", {"pre_tokenizer": None, "decoder": None}
    yield "ignore merges", "gpt2", {"model": {"ignore_merges": True}}
    yield "added", "gpt2", {"added_tokens": TOKENS}
    yield "added, lower", "gpt2", {"added_tokens": TOKENS, "normalizer": n("normalizers", plain("NFC"), plain("Lowercase"))}
    yield "added, qwen2", "qwen2", {"added_tokens": TOKENS}
    yield "template", "gpt2", {"post_processor": {"type": "TemplateProcessing", "single": [
        {"SpecialToken": {"id": "x", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "y", "type_id": 0}}, {"SpecialToken": {"id": "x", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {"x": {"id": "x", "ids": [5, 6], "tokens": ["&", "'"]}, "y": {"id": "y", "ids": [7], "tokens": ["("]}}}}
    yield "roberta", "gpt2", {"post_processor": bert("RobertaProcessing", ("a", 64), ("b", 65), trim_offsets=True, add_prefix_space=False)}
    yield "bert", "gpt2", {"post_processor": n("processors", BYTES, bert("BertProcessing", ("a", 64), ("b", 65)))}
    for scheme in ["always", "first", "never"]:
        yield "metaspace " + scheme, "llama", {"normalizer": None, "pre_tokenizer": metaspace(scheme), "decoder": metaspace(scheme)}
        yield "metaspace whole " + scheme, "llama", {"normalizer": None, "pre_tokenizer": metaspace(scheme, False), "added_tokens": [added("<s>", special=True), *TOKENS]}
    yield "gemma", "llama", {"normalizer": replace(" ", "▁"), "pre_tokenizer": split(" ", "MergedWithPrevious", text=True),
                             "decoder": sequence("decoders", replace("▁", " "), plain("ByteFallback"), plain("Fuse"))}
    yield "fallback and bytes", "llama", {"normalizer": None, "pre_tokenizer": BYTES, "decoder": BYTES}
    yield "strip decoder", "llama", {"decoder": sequence("decoders", plain("ByteFallback"), {"type": "Strip", "content": "▁", "start": 2, "stop": 0})}
    yield "fused unk", "unk", {}
    yield "unk", "unk", {"model": {"fuse_unk": False}}
    yield "no unk", "unk", {"model": {"unk_token": None}}
    yield "unk and fallback", "unk", {"model": {"byte_fallback": True}}
    yield "prefix", "unk", {"model": {"continuing_subword_prefix": "##", "merges": [["t", "##h"], ["th", "##e"]]}}
    yield "suffix", "unk", {"model": {"end_of_word_suffix": "</w>"}, "decoder": {"type": "BPEDecoder", "suffix": "</w>"}}
    yield "unk of bytes", "unk", {"pre_tokenizer": {**BYTES, "use_regex": True}, "decoder": BYTES}


def unk_model():
    """Words of few letters, three of the byte tokens, merges with prefixes and suffixes."""
    texts = ["<unk>", "<0x41>", "<0x42>", "<0x5A>", *"abcdehlnorstw", "▁", "##e", "##h", "##r", "e</w>", "##e</w>"]
    merges = [("t", "h"), ("th", "e"), ("h", "e"), ("▁", "the"), ("a", "b"), ("▁", "a"), ("e", "r"), ("o", "r"), ("w", "or"), ("wor", "d"),
              ("t", "##h"), ("th", "##e"), ("th", "e</w>"), ("<unk>", "a"), ("<0x41>", "<0x41>")]
    vocab = {}
    for t in texts:
        vocab.setdefault(t, len(vocab))
    for a, b in merges:
        vocab.setdefault(a + b, len(vocab))
        vocab.setdefault(a + b.removeprefix("##"), len(vocab))
    return {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None, "end_of_word_suffix": None,
            "fuse_unk": True, "byte_fallback": False, "ignore_merges": False, "vocab": vocab, "merges": merges}


def bases(args):
    from transformers import LlamaTokenizer
    from transformers.convert_slow_tokenizer import LlamaConverter

    for name in ["gpt2", "llama3", "qwen2"]:
        yield name, json.loads((args.tokenizers / name / "tokenizer.json").read_text())
    yield "llama", json.loads(LlamaConverter(LlamaTokenizer(str(args.stories), legacy=True)).converted().to_str())
    yield "unk", {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
                  "pre_tokenizer": metaspace("always"), "post_processor": None, "decoder": metaspace("always"), "model": unk_model()}


def unicode_digests():
    chars = [chr(c) for c in range(0xE0200) if not 0xD800 <= c < 0xE000 and not 0x32400 <= c < 0xE0000]

    def digest(results):
        return hashlib.sha256("\0".join(results).encode()).hexdigest()

    out = {}
    for name in ["NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "Nmt"]:
        n = getattr(normalizers, name)()
        out[name] = digest(n.normalize_str(c) for c in chars)
    bert = normalizers.BertNormalizer()
    out["BertNormalizer"] = digest(bert.normalize_str("A" + c + "É") for c in chars)
    out["BertPreTokenizer"] = digest("|".join(w for w, _ in pre_tokenizers.BertPreTokenizer().pre_tokenize_str("a" + c + "b1" + c)) for c in chars)
    nfc = normalizers.NFC()
    out["ordered"] = digest(nfc.normalize_str("\u0301" + c + "a\u0327" + c + "\u0316\u0301") for c in chars)
    for name, p in {"Digits": pre_tokenizers.Digits(True), "Punctuation": pre_tokenizers.Punctuation(), "Whitespace": pre_tokenizers.Whitespace(),
                    "WhitespaceSplit": pre_tokenizers.WhitespaceSplit(), "ByteLevel": pre_tokenizers.ByteLevel(False)}.items():
        out[name] = digest("|".join(w for w, _ in p.pre_tokenize_str("a" + c + "b1" + c)) for c in chars)
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokenizers", type=Path, required=True)
    parser.add_argument("--stories", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    models = dict(bases(args))
    rng = random.Random(11)
    letters = ["a", "b", "the", " ", "  ", "\n", "\r\n", "1", "23", "é", "e\u0301", "日本", "ß", "'s", "'LL", "!", "...", "😀", "<LEFT>", "<the>", "▁", "word", "\u00a0", "Ж", "क्", "A", "Z"]
    texts = TEXTS + ["".join(rng.choice(letters) for _ in range(rng.randint(3, 20))) for _ in range(20)]
    out = []
    for name, model, parts in pipelines(models):
        base = models[model]
        tok = Tokenizer.from_str(json.dumps({**base, **parts, "model": {**base["model"], **parts.get("model", {})}}))
        special = {i for i, a in tok.get_added_tokens_decoder().items() if a.special}
        rows = []
        for text in texts:
            ids = tok.encode(text, add_special_tokens=False).ids
            decoded = tok.decode(ids, skip_special_tokens=False) if ids else ""
            skipped = tok.decode(ids, skip_special_tokens=True) if set(ids) - special else ""
            rows.append([ids, tok.encode(text).ids, decoded, skipped])
        out.append({"name": name, "model": model, "parts": parts, "rows": rows})
    data = json.dumps({"tokenizers": __version__, "models": {k: models[k] for k in ["llama", "unk"]}, "texts": texts, "pipelines": out}, ensure_ascii=False, separators=(",", ":"))
    (args.out / "pipelines.json.gz").write_bytes(gzip.compress(data.encode(), 9, mtime=0))
    (args.out / "unicode.json").write_text(json.dumps(unicode_digests(), indent=1) + "\n")
    print("tokenizers", __version__, len(out), "pipelines", len(texts), "texts")


if __name__ == "__main__":
    main()
