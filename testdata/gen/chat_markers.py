"""Which bytes transformers takes for the assistant's in templates with {% generation %} markers.

    python chat_markers.py NAMED TESTDATA

NAMED is train/data/chat/named, TESTDATA train/data/chat/testdata with contexts.json; markers.json goes there: for each template and conversation the
text and the byte ranges of return_assistant_tokens_mask, with a tokenizer that makes a token of each byte. Made with transformers 5.23.0, jinja2 3.1.6 and
tokenizers 0.23.3 on Python 3.11.
"""

import json
import os
import sys

os.environ["HF_HUB_OFFLINE"] = "1"

from tokenizers import Tokenizer, models, pre_tokenizers  # noqa: E402
from transformers import PreTrainedTokenizerFast  # noqa: E402

CONTEXTS = ["minja-simple", "turns", "no-system", "spaces", "unicode", "assistant-first", "two-users", "parts", "reasoning"]

# Markers in other places than at the end of an answer.
OTHERS = {
    "text alone": "{% for m in messages %}<{{ m.role }}>{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}{% else %}{{ m.content }}{% endif %}\n{% endfor %}",
    "trimmed": "{%- for m in messages -%}\n  [{{ m.role }}]\n  {%- if m.role == 'assistant' -%}\n    {%- generation -%}  {{ m.content | trim }}\n {{ eos_token }}\n{%- endgeneration -%}\n  {%- else -%} {{ m.content }} {%- endif -%}\n{%- endfor -%}",
    "parts of a turn": "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}a:{% endgeneration %} no {% generation %}{{ m.content }}{% if loop.last %}{{ eos_token }}{% endif %}{% endgeneration %}{% else %}{{ m.role }}{% endif %}{% endfor %}",
    "everything": "{% generation %}{% for m in messages %}{{ m.content }}{% endfor %}{% endgeneration %}",
}


def tokenizer():
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    t = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return PreTrainedTokenizerFast(tokenizer_object=t, bos_token="<s>", eos_token="</s>")


def ranges(text, offsets, mask):
    out = []
    for (a, b), m in zip(offsets, mask):
        a, b = len(text[:a].encode()), len(text[:b].encode())
        if m and out and out[-1][1] >= a:
            out[-1][1] = max(b, out[-1][1])
        elif m:
            out.append([a, b])
    return out


def main(named, testdata):
    tok = tokenizer()
    prelude = open(named + "/prelude.jinja").read().rstrip("\n")
    sources = {f[:-6]: prelude + open(f"{named}/{f}").read().rstrip("\n") for f in sorted(os.listdir(named)) if f != "prelude.jinja"}
    contexts = {c["name"]: c for c in json.load(open(testdata + "/contexts.json")) if c["name"] in CONTEXTS}
    rows = []
    for name, source in [*sources.items(), *OTHERS.items()]:
        for c in contexts.values():
            try:
                text = tok.apply_chat_template(c["messages"], chat_template=source, tokenize=False)
            except Exception:
                continue
            out = tok.apply_chat_template(c["messages"], chat_template=source, return_dict=True, return_assistant_tokens_mask=True,
                                          tokenizer_kwargs={"return_offsets_mapping": True})
            rows.append({"template": name, **({"source": source} if name in OTHERS else {}), "context": c["name"], "text": text,
                         "spans": ranges(text, out["offset_mapping"], out["assistant_masks"])})
    with open(testdata + "/markers.json", "w", encoding="utf-8") as f:
        f.write("[\n" + ",\n".join(json.dumps(r, ensure_ascii=False) for r in rows) + "\n]\n")
    print(len(rows))


main(*sys.argv[1:])
