// Package onig finds matches of the regular expressions that tokenizer.json
// files hold. Hugging Face's tokenizers give them to Oniguruma
// (https://github.com/kkos/oniguruma, doc/RE and doc/SYNTAX.md) in its Ruby
// syntax, with look-around, possessive quantifiers and set operations, and this
// package means by them what Oniguruma means: the leftmost match, by the first
// alternative that matches, over Unicode 16.
//
// There are no groups to capture and no back-references, so whether a match is
// found from a place in the pattern and a place in the text depends on nothing
// else. A Matcher that needs many steps remembers where it failed: then the time
// for a text grows with its length times that of the pattern, whatever both are.
//
// Not done: back-references, conditionals, calls of groups, \G, \K, \X and the
// absence operator; a look-behind may be 255 characters long. Letters of any case
// ((?i)) are those of Unicode's simple case folding, so "ss" is not "ß".
//
// The package knows nothing of tokens.
package onig
