// Package records reads any file of training data as a sequence of rows, each
// one JSON object, or as plain text:
//
//   - JSON Lines: one object a line.
//   - JSON: a list of objects, or an object of which one key holds the list.
//   - CSV and TSV: a header, then rows; every value is a string.
//   - Parquet: numbers, strings, lists and structs become their JSON.
//   - Text: no rows, but an io.Reader.
//
// Each may be compressed with gzip or zstd. What a file holds is told by its
// content where that is certain (compression, Parquet), else by its name, else by
// what its beginning looks like.
//
// No file is loaded whole: memory is that of one row (at most 64 MiB), for Parquet
// that of one page of each column. Nothing a file says about itself is believed
// before it is checked.
//
// The package knows nothing of tokens or of what keys mean.
package records
