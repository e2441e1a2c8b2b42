// Command bench measures nibble's conversions on a large synthetic checkpoint
// beside cp and fsync of the same bytes. `make bench-convert` runs it; its
// figures go into BENCHMARKS.md.
//
// It runs the built program from outside and knows nothing of how it works.
package main
