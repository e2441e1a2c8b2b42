"""Where regular expressions match, by the engine of Hugging Face's tokenizers.

    python onig_goldens.py --out internal/onig/testdata

Writes matches.json: for each pattern and text the matches that are not empty, as byte offsets; null for a pattern
that the engine refuses.
"""

import argparse
import json
from pathlib import Path

from tokenizers import Regex, __version__, pre_tokenizers

CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"

# Of known tokenizers.
KNOWN = [
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+{CONTRACTIONS}?|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*{CONTRACTIONS}?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+",
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"\p{N}{1,3}", r"[一-龥぀-ゟ゠-ヿ]+", r"[0-9][0-9][0-9]", r"\d{1,3}(?=(?:\d{3})*\b)", r"(?=(\d{3})+(?!\d))", r"\s+$", r"\s?\p{L}+", r"\s?\p{P}+",
    r" ?[^(\s|.,!?…。，、।۔،)]+", r"[\p{P}\$\+<=>\^~\|`]+", r"(?:\r?\n)+(?!\r?\n)", r"\s{4}(?!\S)|\s{1,2}(?!\S)|\s{1}",
    r"[\p{Han}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+" + CONTRACTIONS + "?",
    r"[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}", r"<sentinel:[0-9]+>|(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z", r"([\t\n]|    |  )",
    r"(?<=[一-龥])", r"[^\n]+|[\n]+", r" {2,}",
]

# Of the syntax.
SYNTAX = [
    r"a|b|ab", r"ab|a|b", r"(?:ab)+", r"(ab)*?c", r"a{2}", r"a{2,}", r"a{,2}b", r"a{1,2}?", r"a{2}?b", r"a{1,2}+b", r"a++ab", r"a?+ab", r"a*+b", r"a{3,1}a", r"a{x}", r"{",
    r"x{0}y", r"(?:a|ab)(?:c|bcd)", r"(?>a|ab)c", r"a(?=b)", r"a(?!b)", r"(?<=a)b", r"(?<!a)b", r"(?<=a|bc)d", r"(?<!^)a", r"(?<=\s)\S+", r"\bab\b", r"\Bb",
    r"^a", r"a$", r"\Aa", r"a\z", r"a\Z", r".+", r"(?m).+", r"(?m:.)b", r"(?i)AB", r"a(?i)b|c", r"(?i:a(?-i)b)c", r"(?i:k|ſ)", r"(?i)[k-m]+", r"(?i)[^k]+",
    r"(?x) a  b # c", r"(?#note)a", r"(?<name>a)b", r"[]a]+", r"[^]a]+", r"[a-]+", r"[-a]+", r"[a\-b]+", r"[a-c&&b-z]+", r"[^a&&a-z]+", r"[a[bc]]+", r"[[:digit:]]+",
    r"[[:^digit:]]+", r"[[:punct:]]+", r"[[:space:]]+", r"[\d\-x]+", r"[\w]+", r"[\W]+", r"\p{Word}+", r"\p{Punct}+", r"\pL", r"[\w&&[^\d]]+", r"\h+", r"\H+", r"\R", r"\N+", r"\O+", r"\x41", r"\x{1F600}", r"\u00e9", r"\0",
    r"\e|\a|\f|\v", r"\.", r"\-\_\!", r"\p{^L}+", r"\P{L}+", r"\p{Letter}+", r"\p{Uppercase_Letter}+", r"\p{han}+", r"\p{Cyrillic}+", r"\p{Any}", r"\p{ASCII}+", r"\W+", r"\D+", r"\S+",
    r"", r"a*", r"(?:)", r"(?:a*)*", r"(?:a|b*)*c", r"(?:a*?)+b", r"(a|b|)+c", r"(?:(?:a?)?)*b", r"(?=a)a|b", r"(?!a)[ab]", r"(?=(?:ab)*c)a", r"(?:ab)*c|a|b", r"(?:a|b)*c|a",
    # Refused.
    r"(a", r"a)", r"[a", r"*a", r"+", r"{1}", r"a|{,2}", r"[b-a]", r"[\d-x]", r"[a-\d]", r"\p{Nothing}", "\\", r"(?<a", r"[]", r"(?Pa)",
]

TEXTS = [
    "", "a", "ab", "abab c", "aab aaab b", "abcabcd acd abd bcd", "a\nb\na", "\na\n", "aXbXc", "ABab aB Ab", "K k ſ s ß ss K", "x{1}y a{x}", "]a]-b-", "a b\tc\r\nd\n\n e",
    "I'll we'Ve'RE he'S it'ſ DON'T y'all'd've", "Hello, World!  This is   a test.\n\n\n  indented\tline \n", "HelloWorld fooBar XMLHttpRequest A1b2C3",
    "1234567 12 1 123456789012 3.14159 1,000,000 ١٢٣ ²³ ⅷ ½", "naïve café cafe\u0301 x\u0301\u0323 o\u0308\u0304", "Привет, мир! КАК дела?", "你好，世界。今天 天气 ひらがな カタカナ 한국어 テスト",
    "नमस्ते दुनिया। मराठी", "مرحبا بالعالم، كيف؟ ۔", "สวัสดีชาวโลก", "👨‍👩‍👧‍👦 🏳️‍🌈 👍🏽 🇩🇪 1️⃣", "for (int i = 0; i < 10; i++) {\n\t\tprintf(\"%d\\n\", i);\n\t}",
    "a\u00a0b\u3000c\u2009d\u2028e\u0085f\u200bg", "\t\t  \t \n \r\n  ", "     ", "!!!...???///\n\n/a", "<sentinel:12>IMGIMGABZ", "\x1b\x07\x0c\x0b", "A\u00e9\U0001F600", "\u0378\ue000\U0010ffff\u2427\U0002ebf0",
]


def matches(pattern, text):
    def spans(behavior):
        found = pre_tokenizers.Split(Regex(pattern), behavior=behavior).pre_tokenize_str(text)
        return [s for _, s in found]
    gaps = set(spans("removed"))
    at = [len(text[:i].encode()) for i in range(len(text) + 1)]
    return [x for a, b in spans("isolated") if (a, b) not in gaps for x in (at[a], at[b])]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    patterns = []
    for pattern in KNOWN + SYNTAX:
        try:
            Regex(pattern)
        except Exception:
            patterns.append([pattern, None])
            continue
        patterns.append([pattern, [matches(pattern, t) for t in TEXTS]])
    lines = ",\n".join(json.dumps(p, ensure_ascii=False, separators=(",", ":")) for p in patterns)
    texts = json.dumps(TEXTS, ensure_ascii=False)
    (args.out / "matches.json").write_text(f'{{"texts": {texts},\n"patterns": [\n{lines}\n]}}\n', encoding="utf-8")
    print("tokenizers", __version__, len(patterns))


if __name__ == "__main__":
    main()
