// Package receipt writes down what a merge destroys, so that the base can be made
// again from the merged model, bit for bit.
//
// A merged weight m is the base's weight plus a delta, rounded. Taking the delta
// off again gives the base's weight to within half of m's last place: where the
// base's last place is no finer than that, which is nearly everywhere, that is the
// weight itself; where it is finer by k bits, because the sum has a larger exponent,
// k bits are lost. Those k bits are what a receipt holds, beside the deltas
// themselves, and whatever else of the base's files the merged model does not say:
// headers, configuration, tensors in encodings that cannot be told from values.
//
//	magic "NIBRCPT1"                                          8 bytes
//	for each tensor: the factors of its deltas, its blocks    streams of blocks
//	for each literal: its bytes                               streams of blocks
//	the manifest: JSON, zstd
//	its offset, stored size and size, each 8 bytes; the SHA-256 of what is stored
//	magic "NIBRCPT1"
//
// Numbers are little-endian. The manifest says how long every block is; the blocks
// of a receipt lie one after another without a gap. A block is
//
//	CRC-32C of the rest    4 bytes
//	how it is coded        1 byte
//	what is coded
//
// and can be decoded by itself, so both ways are parallel, by tensors, and need memory
// for a panel of rows and the factors of the tensors at work. The deltas are made
// with kernel.MulFused and so are the same on every machine. The order of blocks is
// that of the base's tensors: a receipt does not depend on the number of workers.
//
// Every byte of every file of the base is in exactly one tensor or literal, and each
// of those has its SHA-256 in the manifest: what is restored is proved, not assumed.
package receipt
