"""What SentencePiece and Hugging Face's tokenizers make of a hard corpus: every script, emoji, marks, code, white space, control
characters, bytes that are not UTF-8, long runs.

    python hard_tokens.py --material MATERIAL/tokenizers --text SHAKESPEARE.txt --out train/data/tokenizer/testdata

Trains small models with the settings that the models of testdata do not have, and writes hard.json.gz: the texts, and for each
model and each text the beginning of the SHA-256 of its tokens (numbers with commas between them) by SentencePiece ("spm") and by
tokenizers ("hf", of a SentencePiece model as transformers' SpmConverter makes it), and of what those decode to. With --check the material's large
tokenizers, which are not in testdata, are written to a file beside it for interop/tokens.
"""

import argparse
import base64
import gzip
import hashlib
import json
import random
import unicodedata
from pathlib import Path

import sentencepiece
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer
from sentencepiece import sentencepiece_model_pb2 as pb
from tokenizers import AddedToken, Regex, Tokenizer, __version__, decoders, models, normalizers, pre_tokenizers, processors, trainers

SPACE = "\u2581"

PLAIN = [
    "", " ", "  ", "a", " a", "a ", " a ", "Hello, y'all! How are you?", "The quick brown fox jumps over the lazy dog. THE QUICK BROWN FOX. tHe qUiCk",
    "Größe, naïve café, Ångström, œuvre, ß, İstanbul, ﬁ ligature ½ ² ① ㍿ ﷺ ﷽ ㌀ Ⅷ ％ ＡＢＣ ｱｲｳ ｶﾞ", "e\u0301 vs \u00e9, A\u030a, \u1100\u1161\u11a8 \ufb01\u0301 \u00a8\u0308 \u2126 \u212b",
    "👨‍👩‍👧‍👦 🏳️‍🌈 👍🏽 🇩🇪🇫🇷 1️⃣ ❤️ ☺︎ 🫠 🧑🏿‍🚀", "zalgo: t\u0335\u0322e\u0316\u0301\u0300x\u035ct" + "\u0301" * 30, "\u202eright to left\u202c \u200b\u200c\u200d\ufeff\u2060\u00ad",
    "func main() {\n\tfor i := 0; i < 10; i++ {\n\t\tfmt.Println(\"i =\", i) // comment\n\t}\n}\n", "def f(x):\n    if x is None:\n        return {'a': [1, 2.5e-3], \"b\": None}\n    return lambda y: x ** y  # ok\n",
    "<html><body class=\"a b\">&amp; &#39;</body></html>", "SELECT COUNT(*) FROM t WHERE a='b' AND c<>NULL;", "https://example.com/a/very/long/path?with=query&and=more#fragment", "C:\\Users\\x\\y.txt \\n \\t \\\\",
    "0123456789 3.14159 1,000,000 -42 +1e10 0xFF 1st 2nd ١٢٣ १२३", "====== ------ ...... ______ ###### ~~~~~~ !!!???", "I'll we'Ve'RE he'S it'ſ DON'T y'all'd've ''s 'Dx K'ſ",
    "\n", "\n\n\n", "\t", "\r\n", "\r", "a\r\nb\r\n\r\nc\rd", "a\nb", "\ta\t\tb", " \n \n ", "a  b   c    d     ", "a\u00a0b\u3000c\u2009d\u2003e\u1680f\u2028g\u2029h\u0085i\u180ej",
    SPACE, SPACE * 2, " " + SPACE, "a" + SPACE + "b", SPACE + " a", "a" + SPACE, "a " + SPACE + " b  ", "".join(chr(i) for i in range(32)), "".join(chr(i) for i in range(127, 161)), "\0", "a\0b",
    "\x01", " \x01 ", "\x01 a", "a \x08", "\ufffd", "\uffff\U0010ffff\ue000\U000f0000", "<s>", "</s>", "<unk>", "<s> a </s>", "a<s>b", "<0x0A>", "<pad>", "[UNK] [CLS]a[SEP]", "<user>", "a<user>b <user> c", "<two words>x<two words>",
    "the<keep>the < keep > <keep><keep>", "<|endoftext|>a<|begin_of_text|>", "▁▁the▁▁▁▁", "a" * 300, "ab" * 200, "aab" * 100, "the" * 100, "é" * 100, "日" * 100, " " * 300, "\n" * 100, "=" * 300, "0" * 200, "aaa aa aaaa aaaaa a aa",
    "antidisestablishmentarianism pneumonoultramicroscopicsilicovolcanoconiosis", "x" * 150 + " y", "do not I 'm here . isn 't it ? the dog 's",
]

BYTES = [
    b"\x80", b"\xbf", b"\xff", b"\xfe\xff", b"\xc3", b"\xc3 ", b"\xc3(", b"\xe2\x96", b"\xe2\x96 \x81", b"\xe2(\xa1", b"\xf0\x9f\x98", b"\xf0\x9f\x98a", b"\xc0\x80", b"\xc1\xbf", b"\xe0\x80\xaf", b"\xed\xa0\x80",
    b"\xed\xbf\xbf", b"\xf4\x90\x80\x80", b"\xf8\x88\x80\x80\x80", b"a\xffb", b" \xff ", b"the\xc3the", b"\xffthe \xe2\x82 end\xc2", "日本".encode()[:-1], "日本".encode()[1:],
]


def corpus(text):
    """PLAIN, letters of every block that has any, lines of the text, mixtures."""
    rng = random.Random(9)
    texts = list(PLAIN)
    block = []
    for start in range(0x80, 0x32400, 0x80):
        block = [chr(c) for c in range(start, start + 0x80) if not 0xD800 <= c < 0xE000 and unicodedata.category(chr(c)) not in ("Cn", "Co", "Cs")]
        if 0x3400 <= start < 0xA000 or 0xAC00 <= start < 0xD780 or 0x17000 <= start < 0x18D00 or start >= 0x20000:
            if rng.random() > 0.04:
                continue
        if len(block) < 8:
            continue
        texts.append("".join(rng.choice(block) + rng.choice(["", "", "", " "]) for _ in range(24)))
    lines = [line for line in text.splitlines() if line]
    for _ in range(25):
        texts.append("\n".join(rng.sample(lines, 3)))
    letters = ["a", "b", "the", " ", "  ", "\n", "\r\n", "1", "23", "é", "e\u0301", "日本", "ß", "'s", "'LL", "!", "...", "😀", "<user>", "<keep>", "▁", "\u00a0", "Ж", "क्", "A", "Z", "ﬁ", "\u0301", "\x01", "\t", "½", "ing", "er"]
    for _ in range(80):
        texts.append("".join(rng.choice(letters) for _ in range(rng.randint(3, 25))))
    return [t.encode() for t in texts] + BYTES


def valid(b):
    """As Go reads bytes: U+FFFD for each one that is not part of a character."""
    out, i = [], 0
    while i < len(b):
        for n in (1, 2, 3, 4):
            try:
                out.append(b[i:i + n].decode())
                i += n
                break
            except UnicodeDecodeError:
                pass
        else:
            out.append("\ufffd")
            i += 1
    return "".join(out)


def digest(ids):
    return short(",".join(map(str, ids)))


def short(text):
    return hashlib.sha256(text.encode()).hexdigest()[:8]


RULES = "41\t61\nC5\t61 6F\n66 69\tFB01\n20 26 20\t20 2B 20\n1\t\n301\t\n65 301\tE9\n9\t20\nA\t20\nD\t20\nD A\t20\nA8\t20 308\n"


def train(text, work):
    """name -> the bytes of a model"""
    (work / "text").write_text("\n".join(line for line in text.splitlines() if line) + "\n" + "é ü ß Ж 日 本 e\u0301 ½\n" * 3)
    (work / "rules.tsv").write_text(RULES)
    common = dict(input=str(work / "text"), hard_vocab_limit=False, minloglevel=2, num_threads=1)
    for name, options in {
        "probable": dict(model_type="unigram", vocab_size=700, byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False, user_defined_symbols=["<user>", "<two words>", "ing"]),
        "rules": dict(model_type="unigram", vocab_size=500, normalization_rule_tsv=str(work / "rules.tsv"), user_defined_symbols=["<user>", "<keep>", "A"]),
        "joined-rules": dict(model_type="bpe", vocab_size=500, normalization_rule_tsv=str(work / "rules.tsv"), user_defined_symbols=["<user>", "<keep>"], byte_fallback=True),
    }.items():
        SentencePieceTrainer.train(model_prefix=str(work / name), **common, **options)
        m = pb.ModelProto()
        m.ParseFromString((work / f"{name}.model").read_bytes())
        m.trainer_spec.ClearField("input")
        m.normalizer_spec.ClearField("normalization_rule_tsv")
        yield name, m.SerializeToString()


def spm_json(data):
    """What transformers' SpmConverter makes of a unigram model, with its byte fallback."""
    m = pb.ModelProto()
    m.ParseFromString(data)
    tok = Tokenizer(models.Unigram([(p.piece, p.score) for p in m.pieces], unk_id=m.trainer_spec.unk_id, byte_fallback=m.trainer_spec.byte_fallback))
    tok.add_tokens([AddedToken(p.piece, normalized=False, special=p.type != 4) for p in m.pieces if p.type in (2, 3, 4)])  # as the class adds its unk_token
    parts = []
    if m.normalizer_spec.precompiled_charsmap:
        parts.append(normalizers.Precompiled(m.normalizer_spec.precompiled_charsmap))
    if m.normalizer_spec.remove_extra_whitespaces:
        parts += [normalizers.Strip(left=False, right=True), normalizers.Replace(Regex(" {2,}"), SPACE)]
    tok.normalizer = normalizers.Sequence(parts)
    tok.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, prepend_scheme="first")
    tok.decoder = decoders.Metaspace(SPACE, prepend_scheme="first")
    if m.trainer_spec.byte_fallback:
        tok.decoder = decoders.Sequence([decoders.ByteFallback(), tok.decoder])
    return tok


def tiktoken_json(path):
    """What transformers' TikTokenConverter makes of a file (convert_slow_tokenizer.py)."""
    to_char = {b: chr(b) for r in (range(33, 127), range(161, 173), range(174, 256)) for b in r}
    n = 0
    for b in range(256):
        if b not in to_char:
            to_char[b] = chr(256 + n)
            n += 1
    ranks = {base64.b64decode(t): int(r) for t, r in (line.split() for line in path.read_bytes().splitlines() if line)}

    def chars(b):
        return "".join(to_char[x] for x in b)

    merges = []
    for token, rank in ranks.items():
        local = [(token[:i], token[i:], rank) for i in range(1, len(token)) if token[:i] in ranks and token[i:] in ranks]
        merges += sorted(local, key=lambda x: (ranks[x[0]], ranks[x[1]]))
    merges.sort(key=lambda x: x[2])
    tok = Tokenizer(models.BPE({chars(t): r for t, r in ranks.items()}, [(chars(a), chars(b)) for a, b, _ in merges], fuse_unk=False, ignore_merges=True))
    pattern = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    tok.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)])
    tok.decoder = decoders.ByteLevel()
    return tok


def wordpiece_json(text):
    tok = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tok.normalizer = normalizers.BertNormalizer()
    tok.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tok.decoder = decoders.WordPiece()
    more = ["日 本 ü ж é <user> ½ ! ? . ' do not 1 2 3 0"] * 3
    tok.train_from_iterator(text.splitlines() + more, trainers.WordPieceTrainer(vocab_size=900, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"], show_progress=False))
    tok.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return tok


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--material", type=Path, required=True)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--check", type=Path)
    args = parser.parse_args()
    text = args.text.read_text()
    texts = corpus(text)
    sets = {}

    def spm(name, data):
        sp = SentencePieceProcessor(model_proto=data)
        sets.setdefault(name, {})["spm"] = [digest(sp.encode(t)) for t in texts]
        sets[name]["spm decoded"] = [short(sp.decode(sp.encode(t))) for t in texts]

    def hf(name, tok):
        ids = [tok.encode(valid(t), add_special_tokens=False).ids for t in texts]
        sets.setdefault(name, {})["hf"] = [digest(i) for i in ids]
        sets[name]["hf decoded"] = [short(tok.decode(i, skip_special_tokens=False)) for i in ids]

    work = Path("/tmp/hard_tokens")
    work.mkdir(exist_ok=True)
    m = args.material
    nfkc = (m / "sentencepiece/python/test/test_model.model").read_bytes()
    (args.out / "nfkc.model.gz").write_bytes(gzip.compress(nfkc, 9, mtime=0))
    for name, data in [("nfkc", nfkc), *train(text, work)]:
        spm(name, data)
        if name != "joined-rules":
            hf(name, spm_json(data))
        if name != "nfkc":
            (args.out / f"{name}.model").write_bytes(data)
    spm("mistral-v3", (m / "mistral/mistral_instruct_tokenizer_240323.model.v3").read_bytes())
    (args.out / "tiktoken.model").write_bytes((m / "torchtune/tiktoken_small.model").read_bytes())
    hf("tiktoken", tiktoken_json(args.out / "tiktoken.model"))
    wp = wordpiece_json(text)
    (args.out / "wordpiece.json.gz").write_bytes(gzip.compress(wp.to_str().encode(), 9, mtime=0))
    hf("wordpiece", wp)
    gpt2 = Tokenizer(models.BPE.from_file(str(m / "gpt2/lora-nlg/vocab.json"), str(m / "gpt2/lora-nlg/vocab.bpe")))
    gpt2.pre_tokenizer = pre_tokenizers.ByteLevel(False)
    gpt2.decoder = decoders.ByteLevel()
    hf("gpt-2", gpt2)
    out = {"tokenizers": __version__, "sentencepiece": sentencepiece.__version__, "texts": [base64.b64encode(t).decode() for t in texts], "sets": sets}
    (args.out / "hard.json.gz").write_bytes(gzip.compress(json.dumps(out, separators=(",", ":")).encode(), 9, mtime=0))
    print("tokenizers", __version__, "sentencepiece", sentencepiece.__version__, len(texts), "texts", list(sets))
    if args.check:
        sets.clear()
        for name in ["llama2/tokenizer.model", "mistral/tokenizer.model.v1", "torchtune/m.model"]:
            spm(name, (m / name).read_bytes())
        hf("torchtune/m.model", spm_json((m / "torchtune/m.model").read_bytes()))
        hf("llama3/test_tiktoken_tokenizer.model", tiktoken_json(m / "llama3/test_tiktoken_tokenizer.model"))
        hf("torchtune/tiny_bpe_tokenizer.json", Tokenizer.from_file(str(m / "torchtune/tiny_bpe_tokenizer.json")))
        hf("gpt2/lora-nlg/tokenizer.json", Tokenizer.from_file(str(m / "gpt2/lora-nlg/tokenizer.json")))
        args.check.write_text(json.dumps({**out, "sets": sets}))


if __name__ == "__main__":
    main()
