// Package imatrix reads and writes importance matrices: for each weight the sum
// of the squares of what its columns were multiplied by while a model went
// through a text, and how many vectors those were. Quantizing with one spends
// the precision where it shows.
//
// The files are those of llama.cpp (tools/imatrix, common/imatrix-loader.cpp at
// v0.5.0). Since 2025 they are GGUF:
//
//	general.type         "imatrix"
//	imatrix.datasets     the texts
//	imatrix.chunk_count  uint32, the chunks that were read of them
//	imatrix.chunk_size   uint32, the tokens of a chunk
//	NAME.in_sum2         F32 [mats, columns], sums of squares
//	NAME.counts          F32 [mats, 1], vectors in each sum
//
// where NAME is that of a weight, "blk.0.ffn_down.weight", and mats is 1, or the
// number of experts. The form before that, .dat, is read too. A little-endian
// int32 counts the entries, each of which is
//
//	int32 length, name; int32 calls; int32 n, n float32: means times calls
//
// and behind them may stand an int32 count of chunks, and an int32 length and
// the name of the text.
package imatrix
