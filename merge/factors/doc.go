// Package factors works on the low-rank matrices of adapters: what they are worth, module
// by module, and how to have them at another rank, several as one, or of a model that was
// fine-tuned whole.
//
// A Module says where a pair is, a Pair is one in memory: W + Scale·B·A. Products are never
// formed: what is said of one is computed from its factors (lowrank.Product), and what is
// decomposed of a model's weights is decoded by rows. Pairs are handled one at a time, so an
// adapter need not fit in memory.
//
// As merge does, the package knows no file format: an adapter is a Source with tensors named
// after the modules that they change.
package factors
