// Command bench measures nibble beside others, for BENCHMARKS.md: its conversions on a
// large synthetic checkpoint beside cp and fsync of the same bytes (make
// bench-convert); quantizing such a checkpoint to NF4 beside reading and writing the
// same bytes, and a GGUF file beside llama.cpp (make bench-quantize); merging an adapter
// beside cp, beside quantizing alone and beside PEFT, and taking it out again (make
// bench-merge); training over models of the shapes of real ones, within budgets of memory,
// and beside PEFT (make bench-train); fine-tuning a small model in all ways, each at its
// best learning rate (make bench-stories); and in memory its products of matrices beside
// OpenBLAS and its NF4 beside bitsandbytes (make bench-peers).
//
// It runs the built program from outside and knows nothing of how it works, but for
// what is in memory, which it calls. The models to train on are quantized by the parts of
// nibble quantize, as their weights are nowhere before. Peers are called by what they
// offer in public, from the programs in peers.
package main
