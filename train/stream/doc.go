// Package stream leases the weights of a model one block at a time from any
// tensor.Source, in their stored encoding, while background readers fetch the
// blocks that come next into a fixed set of slots.
//
// What is stored in files is read past the page cache where the system can do that,
// right to where it stays; what a Source computes is read through it. A file that
// changes while it is in use is an error.
//
// It knows which tensors a block has (arch) and how to open them (tensor), and
// nothing of what is computed with them.
package stream
