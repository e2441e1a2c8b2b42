// Package unigram is the other way in which SentencePiece splits text
// (https://github.com/google/sentencepiece, src/unigram_model.cc and
// src/normalizer.cc): every piece has the logarithm of a probability, and of all
// the ways to make a text of pieces the most probable one counts.
//
// A Model finds it. A Charsmap is the normalization of text that comes with such
// models ("precompiled_charsmap"): a table of character sequences and what is put in
// their place, as a double array of its own format with texts behind it.
//
// The memory and the time of both grow with their size alone, whatever a stranger
// wrote into them. The package knows nothing of files, words or special tokens.
package unigram
