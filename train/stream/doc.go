// Package stream leases the weights of a model one block at a time from any
// tensor.Source, in their stored encoding, while a background reader fetches the
// blocks that come next into a fixed set of buffers.
//
// It knows which tensors a block has (arch) and how to open them (tensor), and
// nothing of what is computed with them.
package stream
