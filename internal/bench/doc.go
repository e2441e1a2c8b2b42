// Command bench measures nibble beside others, for BENCHMARKS.md: its conversions on a
// large synthetic checkpoint beside cp and fsync of the same bytes (make
// bench-convert), and its products of matrices beside OpenBLAS (make bench-peers).
//
// It runs the built program from outside and knows nothing of how it works, but for
// the products, which it calls.
package main
