// Package report writes what quantizing a model cost: as report.json, for programs, and
// as report.html, one file for people, which needs no network and no other file.
//
// It knows nothing of models and formats. Figures come from package distortion; a tensor
// is what it is called, and its place in the pictures is read off its name. The pictures
// are SVG in the page, not package chart's: they take the reader's colours, light or
// dark, and say what is under the pointer. The same Report gives the same bytes.
package report
