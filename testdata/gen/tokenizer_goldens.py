"""What SentencePiece and transformers make of a corpus of hard texts.

    python tokenizer_goldens.py --stories STORIES260K/tokenizer.model --mistral MISTRAL_V3.model \
        --text SHAKESPEARE.txt --out train/data/tokenizer/testdata

Writes small models trained on the text (every setting that Llama's tokenizers do
not use), and for each model NAME.json: the tokens of each text by SentencePiece,
those by transformers where they differ, what random tokens decode to, and the
ends of tokens in the text.
"""

import argparse
import base64
import gzip
import io
import random
import shutil
import unicodedata
from pathlib import Path

import common  # first: it sets up torch

import transformers
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer, sentencepiece_model_pb2 as pb
from transformers import AddedToken
from transformers.tokenization_utils_base import generate_merges

SPACE = "\u2581"
Type = pb.ModelProto.SentencePiece

SENTENCES = [
    "", " ", "  ", "a", " a", "a ", " a ", "Hello world", "Hello, y'all! How are you?",
    "Once upon a time, there was a little girl named Lily. She loved to play outside in the park.",
    "The quick brown fox jumps over the lazy dog. THE QUICK BROWN FOX. tHe qUiCk",
    "Größe, naïve café, Ångström, œuvre, ß, İstanbul, ﬁ ligature",
    "Съешь же ещё этих мягких французских булок", "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία",
    "דג סקרן שט בים מאוכזב", "نص حكيم له سر قاطع وذو شأن عظيم", "ऋषियों को सताने वाले दुष्ट राक्षसों",
    "เป็นมนุษย์สุดประเสริฐเลิศคุณค่า", "色は匂へど散りぬるを 我が世誰ぞ常ならむ", "다람쥐 헌 쳇바퀴에 타고파", "天地玄黃,宇宙洪荒。日月盈昃",
    "კოდი ასომთავრული", "Այբուբեն", "ᏣᎳᎩ ᚠᚢᚦᚨᚱᚲ 𐎀𐎁 𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𓀀𓁐 \U00020000\U0002a6d6", "e\u0301 vs \u00e9, A\u030a, \u1100\u1161\u11a8",
    "👨‍👩‍👧‍👦 🏳️‍🌈 👍🏽 🇩🇪🇫🇷 1️⃣ ❤️ ☺︎ 🫠", "zalgo: t\u0335\u0322e\u0316\u0301\u0300x\u035ct", "\u202eright to left\u202c \u200b\u200c\u200d\ufeff\u2060",
    "func main() {\n\tfor i := 0; i < 10; i++ {\n\t\tfmt.Println(\"i =\", i) // comment\n\t}\n}\n",
    "def f(x):\n    if x is None:\n        return {'a': [1, 2.5e-3], \"b\": None}\n    return lambda y: x ** y  # ok\n",
    "<html><body class=\"a b\">&amp; &#39;</body></html>", "SELECT * FROM t WHERE a='b' AND c<>NULL;", "a=b;c=d&e=f?g#h%20i",
    "https://example.com/a/very/long/path?with=query&and=more#fragment", "C:\\Users\\x\\y.txt \\n \\t \\\\", "rm -rf /*; $(x) `y` ${z}",
    "0123456789 3.14159 1,000,000 -42 +1e10 0xFF 1st 2nd", "====== ------ ...... ______ ###### ~~~~~~ !!!???",
    "\n", "\n\n\n", "\t", "\r\n", "a\nb", "a\n\nb\n", "\ta\t\tb", " \n \n ", "a\u00a0b\u3000c\u2009d\u2003e\u1680f\u2028g\u2029h\u0085i",
    SPACE, SPACE * 2, " " + SPACE, "a" + SPACE + "b", SPACE + " a", "a" + SPACE, "a " + SPACE + " b  ",
    "".join(chr(i) for i in range(32)), "".join(chr(i) for i in range(127, 161)), "\0", "a\0b", "\ufffd", "\uffff\U0010ffff\ue000\U000f0000",
    "<s>", "</s>", "<unk>", "<s> a </s>", "a<s>b", "<0x0A>", "<0xFF", "[INST] hi [/INST]", "[REFERENCE_DOC_3]", "a[REFERENCE_DOC_1]b",
    "[REFERENCE_DOC_1][REFERENCE_DOC_12]", "[REFERENCE_DOC_", "[PAD1]", "<user>", "<user><user> <user>", "<x y>", "<x  y>a<x y> <x y>",
    "thethe the", "bothe", "other theatre", "hello<user>world", " <user> ", "▁▁the▁▁▁▁", "   the   ",
    "a" * 300, "ab" * 200, "aab" * 100, "the" * 100, "\u00e9" * 100, "日" * 100, " " * 300, "\n" * 100, "=" * 300, "0" * 200,
    "antidisestablishmentarianism pneumonoultramicroscopicsilicovolcanoconiosis", "xXxXxXxX" * 20, "Mmmmmmmm... zzzZZZ",
]

BYTES = [
    b"\x80", b"\xbf", b"\xff", b"\xfe\xff", b"\xc3", b"\xc3 ", b"\xc3(", b"\xe2\x96", b"\xe2\x96 \x81", b"\xe2(\xa1", b"\xf0\x9f\x98", b"\xf0\x9f\x98a",
    b"\xc0\x80", b"\xc1\xbf", b"\xe0\x80\xaf", b"\xed\xa0\x80", b"\xed\xbf\xbf", b"\xf4\x90\x80\x80", b"\xf8\x88\x80\x80\x80", b"\xf0\x80\x80\x80",
    b"a\xffb", b" \xff ", b"the\xc3the", b"\xffthe \xe2\x82 end\xc2", "日本".encode()[:-1], "日本".encode()[1:], "é".encode("latin-1") + " café".encode(),
]


def corpus():
    rnd = random.Random(260)
    out = [s.encode() for s in SENTENCES] + BYTES
    for n in list(range(1, 20)) + [32, 33, 64, 65]:
        out.append((" " * n + "x").encode())
        out.append(("x" + " " * n + "y").encode())
    # Every block of assigned characters.
    blocks = []
    for start in list(range(0x80, 0x3400, 0x40)) + list(range(0x3400, 0xfff0, 0x400)) + list(range(0x10000, 0x20000, 0x100)):
        chars = [c for c in map(chr, range(start, start + 0x40)) if unicodedata.category(c) not in ("Cn", "Cs")]
        if chars:
            blocks.append("".join(rnd.choice(chars) for _ in range(3)))
    out += [" ".join(blocks[i:i + 8]).encode() for i in range(0, len(blocks), 8)]
    words = "the The and of to a in is you that it he was for on are with as I his they be at one have this ing ed er".split()
    for _ in range(40):
        out.append("".join(rnd.choice(words) + rnd.choice(["", " ", " ", " ", "  ", "\n", ", "]) for _ in range(12)).encode())
    for _ in range(40):
        out.append("".join(chr(rnd.randrange(32, 127)) for _ in range(rnd.randrange(1, 40))).encode())
    for _ in range(40):
        out.append(bytes(rnd.choice([rnd.randrange(256), 32, rnd.randrange(97, 123)]) for _ in range(rnd.randrange(1, 24))))
    for _ in range(20):
        out.append("".join(rnd.choice(["a", "b", "the", "<user>", " ", "  ", SPACE, "é", "<x y>", "\n"]) for _ in range(20)).encode())
    return out


def encoded(b):
    try:
        return {"text": b.decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(b).decode()}


def train(text, **settings):
    """A model of 320 pieces of the text."""
    out = io.BytesIO()
    lines = [line for line in text.splitlines() if line.strip()]
    SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=out, model_type="bpe", vocab_size=320 + 256 * settings.get("byte_fallback", False),
        normalization_rule_name="identity", num_threads=1, minloglevel=2, character_coverage=0.999, **settings)
    m = pb.ModelProto.FromString(out.getvalue())
    return m


def unused(m):
    """Makes every third piece of several characters unused that can be joined in one way only, and one character."""
    m = pb.ModelProto.FromString(m.SerializeToString())
    normal = {p.piece: p for p in m.pieces if p.type == Type.NORMAL}
    part = lambda s: len(s) == 1 or s in normal
    once = [p for p in normal.values() if sum(part(p.piece[:k]) and part(p.piece[k:]) for k in range(1, len(p.piece))) == 1]
    for p in once[::3]:
        p.type = Type.UNUSED
    normal["e"].type = Type.UNUSED
    return m


def hf_tokens(sp):
    """transformers' LlamaTokenizer of a model, without special tokens.

    Its vocabulary and merges are given here, in the order of the scores, as in the tokenizer.json files of published
    models. What transformers 5.23 itself makes of a tokenizer.model has the merges in the order of ids, and so splits
    several spaces in a row in another way than SentencePiece and than those files.
    """
    pieces = range(sp.get_piece_size())
    vocab = {sp.id_to_piece(i): i for i in pieces}
    scores = {sp.id_to_piece(i): sp.get_score(i) for i in pieces}
    tok = transformers.LlamaTokenizer(vocab=vocab, merges=generate_merges(vocab, scores), legacy=False)
    proto = pb.ModelProto.FromString(sp.serialized_model_proto())
    tok.add_tokens([AddedToken(p.piece, normalized=False, special=p.type == Type.CONTROL)
                    for p in proto.pieces if p.type in (Type.CONTROL, Type.USER_DEFINED)])
    assert len(tok) == len(vocab)
    return lambda text: tok(text, add_special_tokens=False)["input_ids"]


def goldens(name, model, with_hf):
    sp = SentencePieceProcessor(model_file=str(model))
    hf = hf_tokens(sp) if with_hf else None
    texts = []
    for b in corpus():
        ids = sp.encode(b)
        row = {**encoded(b), "ids": ids, "decoded": sp.decode(ids)}
        if row["decoded"] == row.get("text"):
            del row["decoded"]  # as it was
        if hf and "text" in row and (other := hf(row["text"])) != ids:
            row["transformers"] = other
        texts.append(row)
    rnd = random.Random(name)
    n = sp.get_piece_size()
    decode = []
    for _ in range(60):
        # Mostly special and byte pieces, where the rules are.
        ids = [rnd.choice([rnd.randrange(n), rnd.randrange(min(n, 262)), rnd.randrange(3)]) for _ in range(rnd.randrange(1, 12))]
        decode.append({"ids": ids, "text": sp.decode(ids)})
    for pieces in [[SPACE], [SPACE, SPACE], [SPACE, "<s>", SPACE], ["<s>", SPACE], ["<s>", SPACE + "a"], ["<unk>", SPACE], [SPACE, "<unk>", SPACE]]:
        ids = [sp.piece_to_id(p) for p in pieces]
        decode.append({"ids": ids, "text": sp.decode(ids)})
    ends = []
    for s in SENTENCES[:40]:
        proto = sp.encode(s, return_type="proto")
        # In bytes. Of the bytes of a character only the last has an end.
        ends.append({"text": s, "ends": [[i, p.end] for i, p in enumerate(proto.pieces) if not sp.is_byte(p.id) or p.surface]})
    return {"made_by": common.versions("sentencepiece", "transformers", "tokenizers") if hf else common.versions("sentencepiece"),
            "texts": texts, "decode": decode, "ends": ends}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("stories", "mistral", "text", "out"):
        parser.add_argument("--" + name, type=Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    transformers.logging.set_verbosity_error()

    text = args.text.read_text()
    squeeze = train(text, remove_extra_whitespaces=True, user_defined_symbols=["<user>", "the", SPACE * 2])
    bare = train(text, remove_extra_whitespaces=False, add_dummy_prefix=False, byte_fallback=True,
                 user_defined_symbols=["<user>", "  ", "<x y>", "the", SPACE * 3])
    models = {"squeeze": squeeze, "bare": bare, "unused": unused(bare)}
    spaces = pb.ModelProto.FromString(squeeze.SerializeToString())
    spaces.normalizer_spec.escape_whitespaces = False
    for p in spaces.pieces:
        if p.piece != SPACE * 2:
            p.piece = p.piece.replace(SPACE, " ")
    models["spaces"] = spaces
    for name, m in models.items():
        m.trainer_spec.ClearField("accept_language")
        (args.out / f"{name}.model").write_bytes(m.SerializeToString())
        common.write_json(args.out / f"{name}.json", goldens(name, args.out / f"{name}.model", False))

    shutil.copyfile(args.stories, args.out / "stories260K.model")
    common.write_json(args.out / "stories260K.json", goldens("stories260K", args.stories, True))
    with gzip.GzipFile(args.out / "mistral-v3.model.gz", "wb", mtime=0) as f:
        f.write(args.mistral.read_bytes())
    common.write_json(args.out / "mistral-v3.json", goldens("mistral-v3", args.mistral, True))


if __name__ == "__main__":
    main()
