// Command nibble takes a language model from the format it was published in to
// the format it is used in, and fine-tunes it on a machine that could not hold
// it in memory.
//
// This package is flags, wiring and printing: one file for each command, and
// what several of them share in app.go, model.go, adapter.go, configfile.go,
// progress.go and trainoutput.go. It knows every package and does no arithmetic.
package main
