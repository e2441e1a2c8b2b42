"""The tokenizer files of the families' checkpoints, laid out as the real ones are.

Two vocabularies are SentencePiece: that of stories260K, and the same one rearranged as Gemma's is. The byte-level
ones are those of testdata/tokenizers.
"""

import json
import shutil
import tempfile
from pathlib import Path

from sentencepiece import sentencepiece_model_pb2 as sentencepiece_pb
from transformers import AutoTokenizer

TESTDATA = Path(__file__).parent.parent
STORIES = TESTDATA.parent / "cmd" / "nibble" / "demo" / "stories260K" / "tokenizer.model"
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6

INST = ("{% for message in messages %}{% if message['role'] == 'user' %}[INST] {{ message['content'] }} [/INST]"
        "{% else %}{{ message['content'] }}</s>{% endif %}{% endfor %}")
TURNS = ("{{ bos_token }}{% for message in messages %}<start_of_turn>{{ message['role'] }}\n{{ message['content'] }}"
         "<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}")
PHI = ("{% for message in messages %}<|{{ message['role'] }}|>\n{{ message['content'] }}<|end|>\n{% endfor %}"
       "{% if add_generation_prompt %}<|assistant|>\n{% endif %}")
HEADERS = ("{{ bos_token }}{% for message in messages %}<|start_header_id|>{{ message['role'] }}<|end_header_id|>\n\n"
           "{{ message['content'] }}<|eot_id|>{% endfor %}")
CHATML = ("{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
          "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")
TOOLS = "{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}" + CHATML


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    text = value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    path.write_text(text, encoding="utf-8")


def added(content, special=True, rstrip=False):
    return {"content": content, "lstrip": False, "normalized": False, "rstrip": rstrip, "single_word": False, "special": special}


def fast(path):
    """tokenizer.json as transformers makes it of tokenizer.model."""
    with tempfile.TemporaryDirectory() as tmp:
        AutoTokenizer.from_pretrained(path).save_pretrained(tmp)
        compact(Path(tmp, "tokenizer.json"), path / "tokenizer.json")


def compact(source, target):
    """The same JSON without indentation: half the size."""
    value = json.loads(source.read_text(encoding="utf-8"))
    target.write_text(json.dumps(value, ensure_ascii=False, separators=(",", ":")), encoding="utf-8")


def llama(path, template=INST, tokenizer_json=False, **more):
    """Llama 2's and Mistral's: LlamaTokenizer over tokenizer.model."""
    shutil.copyfile(STORIES, path / "tokenizer.model")
    config = {
        "add_bos_token": True, "add_eos_token": False,
        "added_tokens_decoder": {"0": added("<unk>"), "1": added("<s>"), "2": added("</s>")},
        "bos_token": "<s>", "clean_up_tokenization_spaces": False, "eos_token": "</s>", "legacy": False,
        "model_max_length": 4096, "pad_token": None, "sp_model_kwargs": {}, "tokenizer_class": "LlamaTokenizer",
        "unk_token": "<unk>", "use_default_system_prompt": False, **more}
    if template is not None:
        config["chat_template"] = template
    write(path / "tokenizer_config.json", config)
    write(path / "special_tokens_map.json", {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"})
    if tokenizer_json:
        fast(path)


def mistral(path):
    """Named templates, tokenizer.json beside tokenizer.model, and add_prefix_space, which becomes a key of GGUF."""
    llama(path, tokenizer_json=True, add_prefix_space=True, template=[
        {"name": "default", "template": INST}, {"name": "tool_use", "template": "{{ tools | tojson }}" + INST}])


def mixtral(path):
    llama(path, template=None, legacy=True)
    write(path / "chat_template.json", {"chat_template": INST})


def llama_bare(path):
    """As early Llama checkpoints are: the special tokens are objects, and there is no added_tokens_decoder."""
    shutil.copyfile(STORIES, path / "tokenizer.model")

    def token(text):
        return {"__type": "AddedToken", "content": text, "lstrip": False, "normalized": True, "rstrip": False,
                "single_word": False}
    write(path / "tokenizer_config.json", {
        "bos_token": token("<s>"), "clean_up_tokenization_spaces": False, "eos_token": token("</s>"),
        "model_max_length": 2048, "pad_token": None, "tokenizer_class": "LlamaTokenizer", "unk_token": token("<unk>")})


def gemma_model():
    """tokenizer.model of stories260K with Gemma's order: pad, eos, bos, unk first, turns at 106 and 107, no dummy prefix.

    <mask>, <unused0> and two spaces are user-defined pieces in Gemma's file too.
    """
    proto = sentencepiece_pb.ModelProto()
    proto.ParseFromString(STORIES.read_bytes())
    old = list(proto.pieces)[3:]
    first = [("<pad>", CONTROL), ("<eos>", CONTROL), ("<bos>", CONTROL), ("<unk>", UNKNOWN), ("<mask>", USER_DEFINED),
             ("<unused0>", USER_DEFINED), ("▁▁", USER_DEFINED)]
    turns = [("<start_of_turn>", USER_DEFINED), ("<end_of_turn>", USER_DEFINED)]

    def piece(text, kind):
        return sentencepiece_pb.ModelProto.SentencePiece(piece=text, score=0, type=kind)
    bytes_before = 106 - len(first)
    pieces = [*(piece(*p) for p in first), *old[:bytes_before], *(piece(*p) for p in turns), *old[bytes_before:]]
    del proto.pieces[:]
    proto.pieces.extend(pieces)
    spec = proto.trainer_spec
    spec.pad_id, spec.eos_id, spec.bos_id, spec.unk_id = 0, 1, 2, 3
    spec.pad_piece, spec.eos_piece, spec.bos_piece, spec.unk_piece = "<pad>", "<eos>", "<bos>", "<unk>"
    spec.vocab_size = len(pieces)
    proto.normalizer_spec.add_dummy_prefix = False
    proto.normalizer_spec.remove_extra_whitespaces = False
    return proto.SerializeToString(deterministic=True)


def gemma(path, turns_special=True, template=None, tokenizer_json=False, more_added=(), **more):
    (path / "tokenizer.model").write_bytes(gemma_model())
    tokens = {
        "0": added("<pad>"), "1": added("<eos>"), "2": added("<bos>"), "3": added("<unk>"), "4": added("<mask>", special=False),
        "5": added("<unused0>", special=False), "6": added("▁▁", special=False),
        "106": added("<start_of_turn>", special=turns_special), "107": added("<end_of_turn>", special=turns_special),
        **{str(i): t for i, t in more_added}}
    config = {
        "add_bos_token": True, "add_eos_token": False, "added_tokens_decoder": tokens,
        "additional_special_tokens": ["<start_of_turn>", "<end_of_turn>"] if turns_special else [],
        "bos_token": "<bos>", "clean_up_tokenization_spaces": False, "eos_token": "<eos>",
        "model_max_length": 1000000000000000019884624838656, "pad_token": "<pad>", "sp_model_kwargs": {},
        "spaces_between_special_tokens": False, "tokenizer_class": "GemmaTokenizer", "unk_token": "<unk>",
        "use_default_system_prompt": False, **more}
    if not turns_special:
        del config["additional_special_tokens"]
    if template is not None:
        config["chat_template"] = template
    write(path / "tokenizer_config.json", config)
    if tokenizer_json:
        fast(path)


def gemma1(path):
    """<start_of_turn> is not special and does not look so to the converter; <mask> and <unused0> do look so."""
    gemma(path, turns_special=False)


def gemma2(path):
    gemma(path, template=TURNS)


def gemma3(path):
    gemma(path)
    write(path / "chat_template.jinja", TURNS)


def gemma3_vision(path):
    """An image token past the SentencePiece vocabulary, and the template where processors have it.

    With tokenizer.json: config.json has no bos_token_id, and the converter finds <bos> there alone.
    """
    gemma(path, more_added=[(518, added("<image_soft_token>")), (519, added("<start_of_image>")), (520, added("<end_of_image>"))],
          image_token="<image_soft_token>", boi_token="<start_of_image>", eoi_token="<end_of_image>",
          processor_class="Gemma3Processor", tokenizer_json=True)
    write(path / "chat_template.json", {"chat_template": TURNS})


def phi3(path):
    """Added tokens past the SentencePiece vocabulary, with rstrip, in every file that may name them."""
    names = ["<|endoftext|>", "<|assistant|>", "<|placeholder1|>", "<|placeholder2|>", "<|placeholder3|>", "<|placeholder4|>",
             "<|system|>", "<|end|>", "<|placeholder5|>", "<|placeholder6|>", "<|user|>"]
    write(path / "added_tokens.json", {n: 512 + i for i, n in enumerate(names)})
    tokens = {"0": added("<unk>"), "1": added("<s>"), "2": added("</s>", special=False, rstrip=True)}
    tokens |= {str(512 + i): added(n, rstrip=n != "<|endoftext|>") for i, n in enumerate(names)}
    llama(path, template=PHI, added_tokens_decoder=tokens, eos_token="<|endoftext|>", pad_token="<|endoftext|>",
          padding_side="left", tokenizer_json=True)
    write(path / "special_tokens_map.json", {"bos_token": "<s>", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>",
                                             "unk_token": "<unk>"})


def byte_level(name, files=("tokenizer.json", "tokenizer_config.json"), edit=None):
    """The files of testdata/tokenizers/NAME, with a change to tokenizer_config.json."""
    def make(path):
        for file in files:
            source = TESTDATA / "tokenizers" / name / file
            compact(source, path / file) if file == "tokenizer.json" else shutil.copyfile(source, path / file)
        if edit is not None:
            config = json.loads((path / "tokenizer_config.json").read_text(encoding="utf-8"))
            edit(path, config)
            write(path / "tokenizer_config.json", config)
    return make


def _jinja(template, **additional):
    def edit(path, config):
        config.pop("chat_template", None)
        write(path / "chat_template.jinja", template)
        for name, text in additional.items():
            write(path / "additional_chat_templates" / f"{name}.jinja", text)
    return edit


gpt2 = byte_level("gpt2", files=("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt"))
phi4 = byte_level("gpt2")
llama3 = byte_level("llama3", edit=_jinja(HEADERS))
qwen2 = byte_level("qwen2")
qwen3 = byte_level("qwen2", edit=_jinja(CHATML))
qwen3_tools = byte_level("qwen2", edit=_jinja(CHATML, tool_use=TOOLS))
