// Package memory reads how much memory the process has used at most, and knows
// how sizes are written ("4GiB").
//
// It knows nothing of what the memory is used for.
package memory
