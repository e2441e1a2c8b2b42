// Package merge adds adapters to base weights. A Method turns the tensors of an
// adapter into Deltas, one for each base tensor it changes, and View returns the
// base with the deltas added: a tensor.Source whose rows are computed when they
// are read, so that a merge needs memory for the adapter and a few rows.
//
// Every adapter tensor must find its place. One that does not is an error: an
// adapter that is silently ignored is the commonest way to lose a fine-tune.
//
// The package knows no file format: an adapter is a Source with tensors named
// after the modules they change, and its configuration comes as a Config.
package merge
