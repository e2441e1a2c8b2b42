"""What transformers makes of hard texts with the tokenizer of a directory, for every layout that nibble reads.

    python hf_tokens.py --stories STORIES260K/tokenizer.model --tokenizers testdata/tokenizers --out train/data/tokenizer/testdata

Runs with transformers 4.57.6. Writes transformers.json.gz: for each directory its files (what is not there is in
testdata/tokenizers, and tokenizer.model is stories260K's), the texts beside the shared ones, and for each text of both the tokens,
those with bos and eos of the first few, and what they decode to without special tokens if not to the text.
"""

import argparse
import gzip
import json
import os
import random
import shutil
import tempfile
import unicodedata
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import tokenizers
import transformers
from transformers import AutoTokenizer, LlamaTokenizer
from transformers.convert_slow_tokenizer import LlamaConverter

SPACE = "\u2581"

SENTENCES = [
    "", " ", "  ", "a", " a", "a ", "Hello, y'all! How are you?", "Once upon a time, there was a little girl named Lily. She loved to play outside.",
    "THE QUICK BROWN FOX. tHe qUiCk", "I'll we'Ve'RE he'S it'\u017f DON'T y'all'd've ''s 'S 'tt 'llama 'Dx 'm'M", "HelloWorld fooBar XMLHttpRequest A1b2C3",
    "1234567 12 1 123456789012 3.14159 1,000,000 -42 +1e10 0xFF 1st", "\u0661\u0662\u0663\u0664 \u00b2\u00b3 \u2177 \u00bd \u0967\u0968\u0969\u096a", "0" * 50,
    "Größe, naïve café, Ångström, œuvre, ß, İstanbul, \ufb01 ligature", "Съешь же ещё этих мягких французских булок", "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία",
    "דג סקרן שט בים מאוכזב", "نص حكيم له سر قاطع وذو شأن عظيم ۔ ،", "ऋषियों को सताने वाले दुष्ट राक्षसों। क्षत्रिय", "தமிழ் ไทย เป็นมนุษย์", "色は匂へど散りぬるを 我が世誰ぞ常ならむ。カタカナ",
    "다람쥐 헌 쳇바퀴에 타고파", "天地玄黃,宇宙洪荒。日月盈昃！？", "კოდი ასომთავრული Այբուբեն", "ᏣᎳᎩ ᚠᚢᚦᚨᚱᚲ 𐎀𐎁 𝔘𝔫𝔦 𓀀𓁐 \U00020000\U0002a6d6",
    "e\u0301 vs \u00e9, A\u030a vs \u212b, \u1100\u1161\u11a8 \uac00\u11a8 \u0344", "q\u0307\u0323 " + "a" + "\u0301\u0316" * 20 + "b", "x\u0301y\u0323\u0307z \u0958 \u0f71\u0f74",
    "👨‍👩‍👧‍👦 🏳️‍🌈 👍🏽 🇩🇪🇫🇷 1️⃣ ❤️ ☺︎ 🫠", "\u202eright to left\u202c \u200b\u200c\u200d\ufeff\u2060", "zalgo: t\u0335\u0322e\u0316\u0301\u0300x\u035ct",
    "func main() {\n\tfor i := 0; i < 10; i++ {\n\t\tfmt.Println(\"i =\", i) // comment\n\t}\n}\n",
    "def f(x):\n    if x is None:\n        return {'a': [1, 2.5e-3], \"b\": None}\n    return lambda y: x ** y  # ok\n",
    "#include <stdio.h>\r\nint main(void) {\r\n    return 0;\r\n}\r\n", "<html><body class=\"a b\">&amp; &#39;</body></html>", "SELECT * FROM t WHERE a='b' AND c<>NULL;",
    "https://example.com/a/path?with=query&and=more#x", "C:\\Users\\x\\y.txt \\n \\t", "rm -rf /*; $(x) `y` ${z}", "====== ------ ...... ______ ###### ~~~~~~ !!!???",
    "\n", "\n\n\n", "\t", "\r\n", "\r\n\r\n \r \n", "a\nb", "a\n\nb\n", "\ta\t\tb", " \n \n ", "a\n b\n  c\n\n   d", "\t\t  \t \n \r\n  ", "a  b   c    d     e",
    "a\u00a0b\u3000c\u2009d\u2003e\u1680f\u2028g\u2029h\u0085i", "     x     ", "the" * 50, "=" * 100, " " * 100, "\n" * 50, "a" * 100, "日" * 50,
    SPACE, SPACE * 2, "a" + SPACE + "b", "a " + SPACE + " b  ", "\x00\x01\x7f\x80\x9f", "\ufffd\uffff\U0010ffff\ue000\U000f0000", "<0x0A>",
]


def shared_texts():
    rnd = random.Random(4)
    out = list(SENTENCES)
    blocks = []
    for start in list(range(0x80, 0x3400, 0x40)) + list(range(0x3400, 0xfff0, 0x400)) + list(range(0x10000, 0x20000, 0x100)):
        chars = [c for c in map(chr, range(start, start + 0x40)) if unicodedata.category(c) not in ("Cn", "Cs")]
        if chars:
            blocks.append("".join(rnd.choice(chars) for _ in range(3)))
    return out + [" ".join(blocks[i:i + 12]) for i in range(0, len(blocks), 12)]


def own_texts(special, rnd):
    out = []
    for s in special:
        out += [s, s + s, "a" + s + "b", "a " + s + " b", f" {s} ", f"a\n{s}\nb", f"a\t \u3000{s}\u00a0\r\n b", s[:-1] + " " + s[1:], s + "  " + s + " x", s.upper()]
    parts = ["a", "b", "the", " ", "  ", "\n", "\r\n", "\t", "1", "23", "456", "é", "e\u0301", "日本", "ß", "'s", "'LL", "!", "...", "😀", "👍🏽", "_", "-", "\u00a0", "\u3000",
             "Ж", "ش", "क", "्", "\u200d", "A", "Z", "/", "{", ")", "#", "@", "\u017f", "\u212a", "½"] + special * 2
    for _ in range(40):
        out.append("".join(rnd.choice(parts) for _ in range(rnd.randint(1, 25))))
    return out


def added(content, special=False, **flags):
    return {"content": content, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": special, **flags}


def spm(base, tokens, config, **change):
    """A directory with tokenizer.model: tokens are the added ones by id."""
    tokens = {0: added("<unk>", True), 1: added("<s>", True), 2: added("</s>", True), **tokens}
    config = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "add_eos_token": False,
              "clean_up_tokenization_spaces": False, "added_tokens_decoder": {str(i): a for i, a in tokens.items()}, **config}
    return {"tokenizer.json": {**base, **change, "added_tokens": [{"id": i, **a} for i, a in tokens.items()]}, "tokenizer_config.json": config,
            "config.json": {"model_type": "llama", "vocab_size": max(512, max(tokens) + 1)}}


def directories(llama):
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    decoder = {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": SPACE}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}]}
    yield "gpt2", "gpt2", {}
    yield "llama3", "llama", {}
    yield "qwen2", "qwen2", {}
    user = {512: added("<|im_start|>", True), 513: added("<x y>"), 514: added("[R]", rstrip=True), 515: added("[L]", True, lstrip=True)}
    yield "llama2", "llama", spm(llama, user, {"legacy": False})
    metaspace = {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": "first", "split": False}
    yield "mistral", "mistral", spm(llama, {512: added("[INST]", True), 513: added("[/INST]", True)}, {"legacy": False}, normalizer=None, pre_tokenizer=metaspace)
    split = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}
    yield "gemma", "gemma2", spm(llama, {512: added("<start_of_turn>", True), 513: added("<table>"), 514: added("[multimodal]")}, {"tokenizer_class": "GemmaTokenizer", "pad_token": "<unk>"},
                                 normalizer=replace, pre_tokenizer=split, decoder=decoder)
    phi = {2: added("</s>", rstrip=True), 512: added("<|endoftext|>", True), 513: added("<|user|>", True, rstrip=True), 514: added("<|end|>", True, rstrip=True)}
    yield "phi3", "phi3", spm(llama, phi, {"legacy": False, "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"})
    alone = spm(llama, {512: added("<|im_end|>", True), 513: added("Word", single_word=True), 514: added("name", normalized=True)}, {"legacy": True})
    yield "tokenizer.json alone", "llama", alone


def golden(name, arch, files, args):
    rnd = random.Random(name)
    with tempfile.TemporaryDirectory() as tmp:
        if not files:
            shutil.copytree(args.tokenizers / name, tmp, dirs_exist_ok=True)
        elif name != "tokenizer.json alone":
            shutil.copyfile(args.stories, Path(tmp, "tokenizer.model"))
        for file, value in files.items():
            Path(tmp, file).write_text(json.dumps(value))
        tok = AutoTokenizer.from_pretrained(tmp)
    special = sorted({str(t) for t in tok.added_tokens_decoder.values()})[:5]
    rows = []
    own = own_texts(special, rnd)
    for text in args.shared + own:
        ids = tok(text, add_special_tokens=False)["input_ids"]
        row = {"ids": ids}
        if len(rows) < 8 and (full := tok(text)["input_ids"]) != ids:
            row["full"] = full
        if (decoded := tok.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)) != text:
            row["decoded"] = decoded
        rows.append(row)
    return {"name": name, "arch": arch, "files": files, "texts": own, "rows": rows}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("stories", "tokenizers", "out"):
        parser.add_argument("--" + name, type=Path, required=True)
    args = parser.parse_args()
    assert (transformers.__version__, tokenizers.__version__) == ("4.57.6", "0.22.2")
    transformers.logging.set_verbosity_error()
    llama = json.loads(LlamaConverter(LlamaTokenizer(str(args.stories), legacy=True)).converted().to_str())
    args.shared = shared_texts()
    out = {"made_by": {"transformers": transformers.__version__, "tokenizers": tokenizers.__version__},
           "texts": args.shared, "directories": [golden(*d, args) for d in directories(llama)]}
    with gzip.GzipFile(args.out / "transformers.json.gz", "wb", compresslevel=9, mtime=0) as f:
        f.write(json.dumps(out, ensure_ascii=False, separators=(",", ":")).encode())


if __name__ == "__main__":
    main()
