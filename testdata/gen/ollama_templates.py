"""Renders chat templates as transformers does, for formats/ollama.

Run with jinja2 3.1 (transformers 5.23.0's):
    /work/peers/venv/bin/python testdata/gen/ollama_templates.py MATERIAL > formats/ollama/testdata/rendered.json
MATERIAL is the folder of chat templates: ollama/templates.jsonl (ollama, MIT) and
ik_llama/models/templates/*.jinja. The templates themselves are not stored, only what they
make of a few conversations, of those that put little around them. begin- and
end-of-sequence tokens are <BOS> and <EOS>.
"""
import glob, json, os, sys
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.ext import loopcontrols
from jinja2.exceptions import TemplateError

S, U, A = "system", "user", "assistant"
talks = {
    "first": [(U, "How are you?")],
    "later": [(U, "How are you?"), (A, "Fine."), (U, "Good to hear.\n\nWhy?")],
    "system": [(S, "Be short."), (U, "How are you?")],
    "all": [(S, "Be short."), (U, "How are you?"), (A, "Fine."), (U, "Why?"), (A, "I slept."), (U, "So did I.")],
}

def raise_exception(message):
    raise TemplateError(message)

env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
env.filters["tojson"] = lambda x, **k: json.dumps(x, ensure_ascii=False, **k)
env.globals.update(raise_exception=raise_exception, strftime_now=lambda f: "TODAY")

root = sys.argv[1]
sources = []
for i, line in enumerate(open(os.path.join(root, "ollama/templates.jsonl"))):
    for name, text in json.loads(line).items():
        sources.append((f"{name} {i+1}", text))
for path in sorted(glob.glob(os.path.join(root, "ik_llama/models/templates/*.jinja"))):
    sources.append((os.path.basename(path), open(path).read()))

out = []
for name, text in sources:
    made = {}
    for talk, messages in talks.items():
        try:
            made[talk] = env.from_string(text).render(
                messages=[{"role": r, "content": c} for r, c in messages],
                add_generation_prompt=True, bos_token="<BOS>", eos_token="<EOS>")
        except Exception:
            made[talk] = None
    if made["first"] and len(made["first"]) < 3000 and len(made["system"] or made["first"]) < 300:
        out.append({"name": name, "made": made})
json.dump(out, sys.stdout, indent=0, ensure_ascii=False)
