#!/bin/sh
# Checks nibble's directories in transformers, bitsandbytes and PEFT. Needs Python 3.11 or later.
#
#     run_python.sh NIBBLE STORIES_HF
#
# STORIES_HF is stories260K as a Hugging Face directory. Every expectation comes
# from transformers itself, on another road to the same weights:
#
#   converted (to safetensors, and to GGUF and back)   the original
#   NF4, FP4, INT8, of every kind                      what nibble dequantizes it to
#   merged, through NF4 as well                        the base under PEFT
#   merged and quantized                               what nibble dequantizes it to
#   trained adapter, that of --init-adapter            loads in PEFT, and equals its merge
#   trained, by every method                           what nibble says of text with it
#   every family, through GGUF                         the original, its tokenizer too
#
# python.sh says which Python that is.
set -eu

if [ $# -ne 2 ]; then
	echo "usage: run_python.sh NIBBLE STORIES_HF" >&2
	exit 2
fi
here=$(cd "$(dirname "$0")" && pwd)
data=$(dirname "$here")
nibble=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
stories=$2
python=$("$here/python.sh")

work=$(mktemp -d)
mkdir "$work/families"
trap 'rm -rf "$work"' EXIT INT TERM
load() { "$python" "$here/transformers_load.py" "$@"; }
nibble() { "$nibble" "$@" --quiet; }

# The first words of a story, and a few tokens for the model with 37 of them.
story=1,403,407,261,378,432,383,286,261,376,298,315,421,395
few=1,5,9,13,17,21,25,29,33

load "$stories" "$work/original.json" --write --tokens $story
nibble convert "$stories" "$work/copied"
load "$work/copied" "$work/original.json" --kind plain --tolerance 0
nibble convert "$stories" "$work/model.gguf" --outtype f32
nibble convert "$work/model.gguf" "$work/from_gguf"
load "$work/from_gguf" "$work/original.json" --kind plain --tolerance 0

# quantized NAME KIND MODEL TOKENS FLAGS...: the logits of what nibble
# quantizes and of what it decodes that to.
quantized() {
	name=$1 kind=$2 model=$3 tokens=$4
	shift 4
	nibble quantize "$model" "$work/$name" "$@" >"$work/quantize.txt"
	nibble dequantize "$work/$name" "$work/$name-plain" --dtype f32 >"$work/quantize.txt"
	load "$work/$name-plain" "$work/$name.json" --kind plain --write --tokens "$tokens"
	load "$work/$name" "$work/$name.json" --kind "$kind"
}
# bitsandbytes rounds what it decodes to the type that the weights had; F32 leaves
# nothing to round.
nibble convert "$data/families/qwen2" "$work/qwen2" --outtype f32 >"$work/convert.txt"
quantized nf4 nf4 "$stories" $story
# Block sizes chosen for each weight, and with more room weights that keep their type.
quantized chosen nf4 "$stories" $story --target-bits 9.1
quantized chosen-wide nf4 "$stories" $story --target-bits 15
for model in "$stories" "$work/qwen2"; do
	n=$(basename "$model")
	quantized "$n-nf4-plain" nf4 "$model" $story --no-double-quant
	quantized "$n-nf4-bf16" nf4 "$model" $story --quant-storage bf16
	quantized "$n-nf4-32" nf4 "$model" $story --block-size 32
	quantized "$n-fp4" fp4 "$model" $story --type fp4
	quantized "$n-int8" int8 "$model" $story --type int8
done
nibble convert "$data/families/gpt2" "$work/gpt2" --outtype f32 >"$work/convert.txt"
nibble convert "$data/families/qwen2moe" "$work/qwen2moe" --outtype f32 >"$work/convert.txt"
quantized gpt2-nf4 nf4 "$work/gpt2" $story
quantized qwen2moe-nf4 nf4 "$work/qwen2moe" $story

gqa=$data/llama/gqa
for adapter in adapter_r3 adapter_r1_rslora; do
	load "$gqa" "$work/peft.json" --adapter "$gqa/$adapter" --write --tokens $few
	nibble merge --base "$gqa" --adapter "$gqa/$adapter" --out "$work/merged_$adapter" --dtype f32
	load "$work/merged_$adapter" "$work/peft.json" --kind plain
done
load "$gqa/nf4" "$work/peft.json" --adapter "$gqa/adapter_r3" --write --tokens $few
nibble merge --base "$gqa/nf4" --adapter "$gqa/adapter_r3" --out "$work/merged_nf4" --dtype f32
load "$work/merged_nf4" "$work/peft.json" --kind plain

nibble train --model "$work/nf4" --data "$data/stories260K/shakespeare.txt" --output-dir "$work/trained" \
	--iters 4 --batch-size 2 --max-seq-length 64 --rank 4 --learning-rate 1e-2
load "$work/nf4" "$work/trained.json" --adapter "$work/trained" --write --tokens $story
nibble merge --base "$work/nf4" --adapter "$work/trained" --out "$work/merged_trained" --dtype f32
load "$work/merged_trained" "$work/trained.json" --kind plain
nibble merge --base "$stories" --through nf4 --adapter "$work/trained" --out "$work/merged_through" --dtype f32 >"$work/merge.txt"
load "$work/merged_through" "$work/trained.json" --kind plain

# trained NAME BASE FLAGS...: what nibble says of a text, and after a prompt, with what it
# trained, and that it is another model than before.
trained() {
	name=$1 base=$2
	shift 2
	nibble train --model "$base" --data "$data/stories260K/shakespeare.txt" --output-dir "$work/$name" \
		--iters 12 --batch-size 4 --grad-accumulation-steps 2 --max-seq-length 64 "$@"
	case " $* " in
	*" --fine-tune-type full "*) set -- "$work/$name" "" ;;
	*) set -- "$base" "$work/$name" ;;
	esac
	nibble eval --model "$1" ${2:+--adapter "$2"} --data "$data/stories260K/shakespeare.txt" --max-seq-length 64 --json >"$work/eval.json"
	nibble generate --model "$1" ${2:+--adapter "$2"} --prompt "First Citizen" --max-tokens 50 --json >"$work/generate.json"
	"$python" "$here/trained_load.py" "$1" "$data/stories260K/perplexity.json" "$work/eval.json" "$work/generate.json" ${2:+--adapter "$2"}
}
trained lora "$stories" --rank 4 --learning-rate 1e-2
trained rslora "$stories" --rank 4 --learning-rate 1e-2 --use-rslora
trained qlora "$work/nf4" --rank 4 --learning-rate 1e-2
trained dora "$stories" --fine-tune-type dora --rank 4 --learning-rate 1e-2
trained qdora "$work/nf4" --fine-tune-type dora --rank 4 --learning-rate 1e-2
trained full "$stories" --fine-tune-type full --learning-rate 1e-3

# requantized NAME KIND BASE FLAGS...: the logits of what nibble merges and quantizes in
# one pass, and of what it decodes that to.
requantized() {
	name=$1 kind=$2 base=$3
	shift 3
	nibble merge --base "$base" --adapter "$work/trained" --out "$work/$name" "$@" >"$work/merge.txt"
	nibble dequantize "$work/$name" "$work/$name-plain" --dtype f32 >"$work/merge.txt"
	load "$work/$name-plain" "$work/$name.json" --kind plain --write --tokens $story
	load "$work/$name" "$work/$name.json" --kind "$kind"
}
for type in nf4 fp4 int8; do
	requantized "merged-$type" "$type" "$stories" --quantize "$type"
done
requantized kept-nf4 nf4 "$work/nf4" --quantize keep
requantized kept-int8 int8 "$work/$(basename "$stories")-int8" --quantize keep

# An adapter that corrects what quantizing lost, its alpha taken into it.
nibble quantize "$stories" "$work/corrected" --init-adapter loftq:3 --rank 8 --alpha 12
load "$work/corrected" "$work/corrected.json" --adapter "$work/corrected-loftq" --write --tokens $story
nibble merge --base "$work/corrected" --adapter "$work/corrected-loftq" --out "$work/merged_corrected" --dtype f32
load "$work/merged_corrected" "$work/corrected.json" --kind plain

# Every family, after it has been a GGUF file. transformers 5 splits some texts of
# tokenizers with a tokenizer.model otherwise than llama.cpp, which GGUF files mean.
for dir in "$data"/families/*/; do
	[ -f "$dir/convert_f32.json" ] || continue # llama.cpp does not know it
	nibble convert "$dir" "$work/family.gguf" --outtype f32 --force >"$work/convert.txt"
	nibble convert "$work/family.gguf" "$work/families/$(basename "$dir")" >"$work/convert.txt"
done
"$python" "$here/families_load.py" "$data/families" "$work/families" \
	--loses llama=tokens --loses llama-linear=tokens --loses mixtral=tokens --loses phi3=tokens \
	--loses mistral=tokens --loses mistral=class --loses mistral=logits
echo "transformers, bitsandbytes and PEFT agree with nibble"
