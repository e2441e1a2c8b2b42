// Package demo holds the model and the text that nibble demo works on, embedded
// in the program. README.md in its folder tells where they come from.
//
// It knows nothing of what is done with them.
package demo
