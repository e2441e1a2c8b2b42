// Package vocab holds what a tokenizer is, as model files spell it: the pieces
// with their scores and types, the special tokens, and the few settings that
// change how text is split. It reads and writes the three spellings that
// language models come with:
//
//   - tokenizer.model, a SentencePiece protocol buffer
//     (https://github.com/google/sentencepiece, src/sentencepiece_model.proto),
//   - the JSON files beside it in a Hugging Face directory
//     (tokenizer_config.json, added_tokens.json and others),
//   - the tokenizer.* metadata of a GGUF file, in the order and with the types
//     that llama.cpp's convert_hf_to_gguf.py writes.
//
// One kind is known: SPM, the byte-pair encoding of SentencePiece with byte
// fallback, as Llama 1, Llama 2, Mistral and Gemma use it. Others are refused
// with an error that wraps tensor.ErrUnsupported.
//
// The package knows nothing of how text is split into pieces (that is
// train/data/tokenizer), nor how a GGUF file is laid out.
package vocab
