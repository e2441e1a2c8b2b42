// Package pipeline runs a plan: data that says, for every output tensor, which
// input it comes from and how. The planner, which reads headers only, decides
// everything; the executor decides nothing but which step runs next.
//
// A step streams: it reads panels of its inputs and writes panels of its
// outputs through memory that it has declared beforehand (Step.Scratch). Steps
// run concurrently as far as the memory budget allows, and since every output
// has its place in the file before the first byte is written, the result is the
// same bytes for any number of workers.
//
// The package knows tensors, and neither formats nor encodings.
package pipeline
