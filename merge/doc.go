// Package merge changes base weights: it adds adapters to them. A Method turns
// the tensors of an adapter into an Effect: Changes, one for each base tensor, of
// which most are sums of Deltas, and the base as the adapter wants it, with its
// layers, its vocabulary, its head. Join puts those of several adapters together.
// View returns the base with changes done to it: a tensor.Source whose rows are
// computed when they are read, so that a merge needs memory for the factors of a few
// tensors and a few rows.
//
// Every adapter tensor must find its place, and what a configuration says must be
// there. Where PEFT would go on in silence there is an error, or a note: an adapter
// that is silently ignored is the commonest way to lose a fine-tune.
//
// The package knows no file format: an adapter is a Source with tensors named
// after the modules they change, and its configuration comes as a Config. What it
// does is what PEFT 0.21.2 does (tuners/lora: layer.py, variants.py, model.py;
// tuners/trainable_tokens; utils/other.py).
package merge
