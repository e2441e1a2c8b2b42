// Package tokenizer splits text into the tokens of a vocabulary and puts tokens
// together again, in one of two ways.
//
// What a tokenizer.json describes, or the metadata of a GGUF file with byte-level
// BPE, is split as Hugging Face's tokenizers do: that is package formats/vocab/bpe.
//
// A SentencePiece vocabulary is split as SentencePiece's byte-pair encoding does
// (https://github.com/google/sentencepiece, src/bpe_model.cc, normalizer.cc and
// sentencepiece_processor.cc), which is also what llama.cpp's SPM tokenizer
// does: of all adjacent pieces, those that make the piece of the highest score
// are joined first, the leftmost among equals, until nothing can be joined. A
// character without a piece becomes its bytes. A model of type unigram has the pieces
// that are together the most probable (src/unigram_model.cc). Text is normalized by the
// model's own table, if it has one.
//
// Its text is processed word by word, where a word ends between two characters
// that are not adjacent in any piece. No join can cross such a place, so the result
// is that of the whole text, in memory that does not grow with it. (Probabilities are added
// up anew for each word. SentencePiece adds them up for all of the text in 32 bits, so
// that ways of the same probability can end another way in it.)
//
// For both, a byte that is not part of valid UTF-8 counts as the character U+FFFD,
// and added tokens are taken out of the text before anything else, the longest
// first among those that start at the same place. Special tokens are, other than in
// transformers, looked for only if asked, so that "<s>" in somebody's text is text.
// And where transformers puts no space in front of a text that starts with one,
// SentencePiece, and this package for its vocabularies, always do.
//
// From GGUF, byte-level BPE is split by the patterns that the tokenizers of its
// pre-tokenizer's name have in tokenizer.json. llama.cpp differs from them in
// combining marks: it does not normalize (Qwen), and its patterns of gpt-4o and
// tekken know no \p{M}.
//
// The package knows nothing of files or of models.
package tokenizer
