// Package tokenizer splits text into the pieces of a vocabulary and puts pieces
// together again.
//
// It does what SentencePiece's byte-pair encoding does
// (https://github.com/google/sentencepiece, src/bpe_model.cc, normalizer.cc and
// sentencepiece_processor.cc), which is also what llama.cpp's SPM tokenizer
// does: of all adjacent pieces, those that make the piece of the highest score
// are joined first, the leftmost among equals, until nothing can be joined. A
// character without a piece becomes its bytes. A byte that is not part of valid
// UTF-8 counts as the character U+FFFD.
//
// Text is processed word by word, where a word ends between two characters that
// are not adjacent in any piece. No join can cross such a place, so the result
// is that of the whole text, in memory that does not grow with it.
//
// What is like Hugging Face's tokenizers: added tokens are taken out of the text
// before anything else, the longest first among those that start at the same
// place. What is not: transformers puts no space in front of a text that starts
// with one, SentencePiece and this package always do; and transformers looks for
// special tokens in all text, this package only if asked, so that "<s>" in
// somebody's text is text.
//
// The package knows nothing of files or of models.
package tokenizer
