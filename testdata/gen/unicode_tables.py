"""The general categories of all characters, as the regular expressions of Hugging Face's tokenizers know them.

    python unicode_tables.py --out internal/ucd

Writes categories.bin: runs of characters of one category, in order from U+0000 to U+10FFFF. A run is its length
as a varint and then the number of the category in CATS. Asks tokenizers about each character (its engine is
Oniguruma); surrogates, which are no characters, are Cs. Prints what else internal/ucd and formats/vocab/bpe
have in their tables: the script Han, and what the parts of tokenizers that are not regular expressions take
for a number, for punctuation and for a combining mark, and how they lower a letter.
"""

import argparse
import sys
from pathlib import Path

from tokenizers import Regex, __version__, normalizers, pre_tokenizers

CATS = "Cn Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Zl Zp Cc Cf Co Cs".split()
CHARS = [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000]


def matches(pattern):
    removed = pre_tokenizers.Split(Regex(pattern), behavior="removed")
    return {ord(c) for c in CHARS if not removed.pre_tokenize_str(c)}


def runs(values):
    """[first, last] of each run of equal values."""
    start = 0
    for i in range(1, len(values) + 1):
        if i == len(values) or values[i] != values[start]:
            yield start, i - 1, values[start]
            start = i


def ranges(chars):
    flags = [c in chars for c in range(0x110000)]
    return " ".join(f"{a:x}-{b:x}" if a != b else f"{a:x}" for a, b, v in runs(flags) if v)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()

    cat = [CATS.index("Cs")] * 0x110000
    for i, name in enumerate(CATS):
        if name != "Cs":
            for c in matches(rf"\p{{{name}}}"):
                cat[c] = i
    out = bytearray()
    for a, b, value in runs(cat):
        n = b - a + 1
        while n >= 0x80:
            out.append(n & 0x7F | 0x80)
            n >>= 7
        out += bytes([n, value])
    (args.out / "categories.bin").write_bytes(out)

    number = {i for i, c in enumerate(cat) if CATS[c][0] == "N"}
    word = {i for i, c in enumerate(cat) if CATS[c][0] in "LM" or CATS[c] in ("Nd", "Nl", "Pc")}
    print("tokenizers", __version__)
    print("Han:", ranges(matches(r"\p{Han}")))
    print(r"\w beside L, M, Nd, Nl, Pc:", ranges(matches(r"\w") - word), "| missing:", ranges(word - matches(r"\w")))
    digits = pre_tokenizers.Digits(individual_digits=True)
    print("Digits beside N:", ranges({ord(c) for c in CHARS if len(digits.pre_tokenize_str("a" + c)) > 1} - number))
    punctuation = pre_tokenizers.Punctuation()
    print("Punctuation:", ranges({ord(c) for c in CHARS if len(punctuation.pre_tokenize_str("a" + c)) > 1}))
    whitespace = pre_tokenizers.Whitespace()
    regex_word = {ord(c) for c in CHARS if len(whitespace.pre_tokenize_str("a" + c)) == 1 and whitespace.pre_tokenize_str(c)}
    print(r"Whitespace's \w beside L, M, Nd, Nl, Pc:", ranges(regex_word - word), "| missing:", ranges(word - regex_word))
    strip = normalizers.StripAccents()
    print("StripAccents:", ranges({ord(c) for c in CHARS if strip.normalize_str(c) == ""}))
    lower = normalizers.Lowercase()
    print("Lowercase:", " ".join(f"{ord(c):x}:{lower.normalize_str(c)!a}" for c in CHARS if lower.normalize_str(c) != c.lower()))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
