// Package bpe splits text as Hugging Face's tokenizers do
// (https://github.com/huggingface/tokenizers) by a tokenizer.json. Its model is mostly
// byte-pair encoding: the byte-level kind of GPT-2, Llama 3 and Qwen, and the kind
// with byte fallback that Llama 2 and Gemma are converted to. Unigram, to which other
// SentencePiece models are converted, and WordPiece, which is BERT's, are done too.
//
// A tokenizer.json is a pipeline, and a Spec holds its parts as data:
//
//	text -> added tokens taken out -> Normalizer -> PreTokenizer: words
//	     -> Model: each word made of tokens -> PostProcessor: bos, eos
//	tokens -> Decoder: text
//
// Every part is what the library does, with the characters of the Unicode version
// that it has (normalization is of Unicode 9, patterns of 16). Text that is not
// UTF-8, which the library never sees, has U+FFFD for each byte that is not.
//
// Done are these models with all their settings except dropout, and a Unigram model
// without an unknown token; all normalizers; the pre-tokenizers that models of text use,
// the post-processors and the decoders. Parts that are not (UnicodeScripts, FixedLength,
// CTC) and models of other types are refused with an error that wraps
// tensor.ErrUnsupported. A stranger's file costs memory and time in proportion to its
// size.
//
// The package knows nothing of files, of GGUF, or of where a Spec comes from.
package bpe
