"""Trains LoRA on all linear layers by PyTorch and PEFT on the CPU, for `make bench-train`.

    python3 peft_train.py MODEL DATA.jsonl TOKENS STEPS RANK ALPHA float32|bfloat16 [checkpointing]

Every step is over all lines of DATA, {"text"} each, cut so that TOKENS of an example go
through the model, each with a label. Prints the versions, then for each step its
seconds and its loss.
"""

import json
import os
import sys
import time

os.environ["HF_HUB_OFFLINE"] = "1"

import peft
import sentencepiece
import torch
import transformers

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

path, data, tokens, steps, rank, alpha, dtype, *options = sys.argv[1:]
tokens, steps = int(tokens), int(steps)

tokenizer = sentencepiece.SentencePieceProcessor(model_file=os.path.join(path, "tokenizer.model"))
examples = []
for line in open(data):
    ids = [tokenizer.bos_id()] + tokenizer.encode(json.loads(line)["text"])
    if len(ids) <= tokens:
        sys.exit(f"peft_train.py: an example of {len(ids)} tokens, want more than {tokens}")
    examples.append(ids[: tokens + 1])
examples = torch.tensor(examples)
inputs, labels = examples[:, :-1].contiguous(), examples[:, 1:].contiguous()

torch.manual_seed(1)
model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=getattr(torch, dtype), device_map="cpu")
model.config.use_cache = False
if "checkpointing" in options:
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.enable_input_require_grads()
model = peft.get_peft_model(
    model, peft.LoraConfig(task_type="CAUSAL_LM", r=int(rank), lora_alpha=int(alpha), lora_dropout=0.0, target_modules="all-linear")
)
model.train()
optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4, weight_decay=0.0)

print(f"PEFT {peft.__version__}, transformers {transformers.__version__}, torch {torch.__version__}, {torch.get_num_threads()} threads", flush=True)
for _ in range(steps):
    start = time.perf_counter()
    # Next tokens are given as they are, so that no position is computed in vain.
    loss = model(input_ids=inputs, labels=labels, shift_labels=labels).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1.0)
    optimizer.step()
    optimizer.zero_grad()
    print(time.perf_counter() - start, loss.item(), flush=True)
