// Package vocab holds what a tokenizer is, as model files spell it: the pieces
// with their types, what joins them, the special tokens, and the settings that
// change how text is split. It reads and writes the spellings that language models
// come with:
//
//   - tokenizer.model, a SentencePiece protocol buffer
//     (https://github.com/google/sentencepiece, src/sentencepiece_model.proto),
//     or tiktoken's lines of tokens and ranks, as *.tiktoken too,
//   - tokenizer.json of Hugging Face's tokenizers (package bpe), and vocab.json
//     with merges.txt that were there before it,
//   - the JSON files beside them in a Hugging Face directory
//     (tokenizer_config.json, added_tokens.json and others),
//   - the tokenizer.* metadata of a GGUF file, with the keys, types, values and
//     order that llama.cpp's convert_hf_to_gguf.py writes.
//
// Three kinds are read and written. SPM is the byte-pair encoding of SentencePiece, as
// Llama 1, Llama 2, Mistral, Gemma and Phi 3 use it. BPE is byte-level byte-pair
// encoding, as GPT-2, Llama 3 and Qwen do. Unigram is SentencePiece's other way, as in
// T5; in GGUF it is "t5", where llama.cpp's converter calls that of a Llama-like family
// "llama" and has it split as BPE. A tokenizer.json with a Unigram or a WordPiece model
// is there to split text by, and not for GGUF. Others are refused with an error that
// wraps tensor.ErrUnsupported.
//
// GGUF says of byte-level BPE only the name of a pre-tokenizer, tokenizer.ggml.pre.
// What each name stands for is in the table of schemes, which is llama.cpp's.
//
// The package knows nothing of how text is split into pieces (that is
// train/data/tokenizer), nor how a GGUF file is laid out. Which files count for a
// family, and what its converter adds, comes from package arch.
package vocab
