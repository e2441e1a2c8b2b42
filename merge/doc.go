// Package merge changes base weights: it adds adapters to them. A Method turns
// the tensors of an adapter into Changes, one for each base tensor it changes;
// most are sums of Deltas. View returns the base with the changes done to it: a
// tensor.Source whose rows are computed when they are read, so that a merge needs
// memory for the adapter and a few rows.
//
// Every adapter tensor must find its place. One that does not is an error: an
// adapter that is silently ignored is the commonest way to lose a fine-tune.
//
// The package knows no file format: an adapter is a Source with tensors named
// after the modules they change, and its configuration comes as a Config.
package merge
