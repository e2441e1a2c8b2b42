"""Renders chat templates with transformers and stores what came out.

    python chat_goldens.py MATERIAL OUT

MATERIAL holds the templates of public models (ik_llama/models/templates/*.jinja, ollama/templates.jsonl) and minja's
contexts. OUT gets templates.json.zst (name, source), contexts.json (what is rendered) and goldens.json.zst: for every
template and every context the text, or the class and message of the error. Made with transformers 5.23.0, jinja2 3.1.6,
tokenizers 0.23.3, Python 3.11; zstandard by the zstd program. The clock stands at 2026-11-26 09:08:07.
"""

import glob
import json
import os
import subprocess
import sys
from datetime import datetime

os.environ["HF_HUB_OFFLINE"] = "1"

from tokenizers import Tokenizer, models, pre_tokenizers  # noqa: E402
from transformers import PreTrainedTokenizerFast  # noqa: E402
from transformers.utils import chat_template_utils  # noqa: E402


class Clock(datetime):
    @classmethod
    def now(cls, tz=None):
        return cls(2026, 11, 26, 9, 8, 7)


chat_template_utils.datetime = Clock

BOS, EOS = "<|startoftext|>", "<|endoftext|>"
SPECIAL = {"pad_token": "<pad>", "unk_token": "<unk>"}


def tokenizer():
    """Each byte is a token, so that a mask over tokens is a mask over bytes."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    t = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return PreTrainedTokenizerFast(tokenizer_object=t, bos_token=BOS, eos_token=EOS, **SPECIAL)


def load_templates(root):
    out = []
    for path in sorted(glob.glob(root + "/ik_llama/models/templates/*.jinja")):
        out.append({"name": os.path.basename(path)[: -len(".jinja")], "source": open(path, encoding="utf-8", newline="").read()})
    for i, line in enumerate(open(root + "/ollama/templates.jsonl", encoding="utf-8")):
        (name, source), = json.loads(line).items()
        out.append({"name": f"ollama-{i + 1:02d}-{name}", "source": source})
    return out


def user(text, **more):
    return {"role": "user", "content": text, **more}


def system(text):
    return {"role": "system", "content": text}


def assistant(text, **more):
    return {"role": "assistant", "content": text, **more}


def call(name, arguments, id="abcdefgh1"):
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def tool(name, description, properties, required):
    return {"type": "function", "function": {"name": name, "description": description,
            "parameters": {"type": "object", "properties": properties, "required": required}}}


WEATHER = tool("get_weather", "The weather now.\nIn one city.", {
    "city": {"type": "string", "description": "City, \"quoted\" & <b>"},
    "unit": {"type": "string", "enum": ["C", "F"], "default": "C"},
    "days": {"type": ["integer", "null"], "minimum": 1, "maximum": 14},
    "where": {"type": "object", "properties": {"lat": {"type": "number"}, "lon": {"type": "number"}}, "required": ["lat"]},
    "tags": {"type": "array", "items": {"type": "string"}},
}, ["city"])
PLAIN = tool("now", "The time.", {}, [])
TURNS = [system("Answer briefly."), user("What is 2+2?"), assistant("4"), user("And 3+3?"), assistant("6"), user("Thanks!"), assistant("You are welcome.")]
HARD = "  Grüße 🙂👩‍👩‍👧 漢字 עברית é\t\"quoted\" 'single' \\back\n\nnew line <|im_end|> {{ x }} {% y %} </s>\u2028\u00a0 "
REASON = [user("Which is larger?"), assistant("The second.", reasoning_content="Compare\nboth."), user("Sure?"),
          assistant("Yes.", reasoning_content="Compare again.")]
CALLS = [system("Use tools."), user("Weather in Rome?"), assistant("", tool_calls=[call("get_weather", {"city": "Rome", "days": 3})]),
         {"role": "tool", "name": "get_weather", "tool_call_id": "abcdefgh1", "content": "{\"sky\": \"clear\"}"}, assistant("Clear.")]


def contexts(root):
    out = []

    def add(name, messages, **more):
        out.append({"name": name, "messages": messages, **more})

    for name in ("simple", "system", "tool_use"):
        c = json.load(open(f"{root}/minja/contexts/{name}.json"))
        vars = {k: v for k, v in c.items() if k not in ("messages", "tools", "add_generation_prompt", "bos_token", "eos_token")}
        for generation in (True, False):
            add("minja-" + name + ("" if generation else "-closed"), c["messages"], tools=c.get("tools"), vars=vars, add_generation_prompt=generation)
    for generation in (True, False):
        suffix = "" if generation else "-closed"
        add("turns" + suffix, TURNS, add_generation_prompt=generation)
        add("turns-open" + suffix, TURNS[:-1], add_generation_prompt=generation)
        add("reasoning" + suffix, REASON, add_generation_prompt=generation)
        add("calls" + suffix, CALLS, tools=[WEATHER, PLAIN], add_generation_prompt=generation)
    add("no-system", TURNS[1:])
    add("user-only", [user("Hi")], add_generation_prompt=True)
    add("empty", [system(""), user(""), assistant("")], add_generation_prompt=True)
    add("spaces", [system("  a \n"), user("\n b "), assistant(" c\n\n"), user("d\n")], add_generation_prompt=True)
    add("unicode", [system(HARD), user(HARD), assistant(HARD), user(HARD)], add_generation_prompt=True)
    add("parts", [system([{"type": "text", "text": "Be kind."}]), user([{"type": "text", "text": "One"}, {"type": "text", "text": "Two"}]),
                  assistant([{"type": "text", "text": "Three"}]), user("Four")], add_generation_prompt=True)
    add("image", [user([{"type": "image", "image": "x.png"}, {"type": "text", "text": "What is this?"}]), assistant("A cat."),
                  user([{"type": "image_url", "image_url": {"url": "y"}}, {"type": "text", "text": "And this?"}])], add_generation_prompt=True)
    add("tools-open", [user("Weather?")], tools=[WEATHER], add_generation_prompt=True)
    add("tools-empty", [user("Weather?")], tools=[], add_generation_prompt=True)
    add("calls-parallel", [user("Both?"), assistant("Looking.", tool_calls=[
        call("get_weather", {"city": "Rome", "days": None, "where": {"lat": 41.9, "lon": -1e-7}, "tags": ["a", "ü"], "ok": True}, "abcdefgh1"),
        call("now", {}, "abcdefgh2")]),
        {"role": "tool", "name": "get_weather", "tool_call_id": "abcdefgh1", "content": "{\"sky\": \"clear\", \"t\": 21.5}"},
        {"role": "tool", "name": "now", "tool_call_id": "abcdefgh2", "content": "noon"}, user("So?")], tools=[WEATHER, PLAIN], add_generation_prompt=True)
    add("calls-text", [user("Weather?"), assistant("", tool_calls=[call("get_weather", "{\"city\": \"Rome\"}")]),
                       {"role": "tool", "tool_call_id": "abcdefgh1", "content": "clear"}], tools=[WEATHER], add_generation_prompt=True)
    add("calls-null", [user("Weather?"), {"role": "assistant", "content": None, "tool_calls": [call("now", {})]},
                       {"role": "tool", "tool_call_id": "abcdefgh1", "name": "now", "content": {"hour": 12, "list": [1, 2.0, 1e20, True, None]}}],
        tools=[PLAIN], add_generation_prompt=True)
    add("calls-reasoned", [user("Weather?"), assistant("", reasoning_content="I need a tool.", tool_calls=[call("now", {"zone": "UTC"})]),
                           {"role": "tool", "tool_call_id": "abcdefgh1", "name": "now", "content": "noon"}, assistant("Noon.", reasoning_content="It says noon."),
                           user("Thanks"), assistant("Sure.")], tools=[PLAIN])
    add("calls-foreign", [user("Weather?"), assistant("", tool_calls=[call("now", {}, "x")]), {"role": "tool", "tool_call_id": "x", "content": "noon"}],
        tools=[PLAIN], add_generation_prompt=True)
    add("thought-inline", [user("2+2?"), assistant("<think>\nEasy.\n</think>\n\n4"), user("3+3?"), assistant("<think>\nAlso.\n</think>\n\n6")])
    add("thinking-on", TURNS[:-1], vars={"enable_thinking": True, "thinking": True}, add_generation_prompt=True)
    add("thinking-off", TURNS[:-1], vars={"enable_thinking": False, "thinking": False}, add_generation_prompt=True)
    add("effort", REASON[:-1], vars={"reasoning_effort": "high", "model_identity": "You are X."}, add_generation_prompt=True)
    add("dated", TURNS[:2], vars={"date_string": "1 Jan 2025", "custom_tools": None, "tools_in_user_message": False}, add_generation_prompt=True)
    add("continue", TURNS, continue_final_message=True)
    add("continue-spaces", [user("Go on"), assistant("Once upon a time, ")], continue_final_message=True)
    add("documents", [user("Who?")], documents=[{"title": "T1", "text": "First."}, {"title": "T2", "text": "Second.", "n": 2}], add_generation_prompt=True)
    add("developer", [{"role": "developer", "content": "Be terse."}, user("Hi")], add_generation_prompt=True)
    add("unknown-role", [user("Hi"), {"role": "narrator", "content": "Meanwhile"}], add_generation_prompt=True)
    add("assistant-first", [assistant("Hello!"), user("Hi")], add_generation_prompt=True)
    add("two-users", [user("Hi"), user("There")], add_generation_prompt=True)
    add("late-system", [user("Hi"), assistant("Hello"), system("Now rhyme."), user("Go")], add_generation_prompt=True)
    add("no-content", [user("Hi"), {"role": "assistant"}, user("Still there?")], add_generation_prompt=True)
    add("null-content", [user("Hi"), assistant(None), user("Still there?")], add_generation_prompt=True)
    add("odd-types", [user(7), assistant(True), user(2.5)], add_generation_prompt=True)
    add("named", [user("Hi", name="ann"), assistant("Hello", name="bot", extra={"a": [1]})])
    return out


def outcome(tok, template, c):
    try:
        return {"text": tok.apply_chat_template(
            c["messages"], tools=c.get("tools"), documents=c.get("documents"), chat_template=template, tokenize=False,
            add_generation_prompt=c.get("add_generation_prompt", False), continue_final_message=c.get("continue_final_message", False),
            **c.get("vars", {}))}
    except Exception as e:
        return {"error": type(e).__name__, "message": str(e)}


def store(path, value):
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    subprocess.run(["zstd", "-q", "-f", "-19", "--long=23", "-o", path], input=text.encode(), check=True)


def main(root, out):
    tok = tokenizer()
    templates, cs = load_templates(root), contexts(root)
    goldens = {t["name"]: {c["name"]: outcome(tok, t["source"], c) for c in cs} for t in templates}
    store(out + "/templates.json.zst", templates)
    store(out + "/goldens.json.zst", goldens)
    with open(out + "/contexts.json", "w", encoding="utf-8") as f:
        f.write("[\n" + ",\n".join(json.dumps(c, ensure_ascii=False) for c in cs) + "\n]\n")
    rendered = sum("text" in o for g in goldens.values() for o in g.values())
    print(len(templates), "templates", len(cs), "contexts", rendered, "texts")


main(*sys.argv[1:])
