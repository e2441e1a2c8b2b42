// Package kernel holds the inner loops: matrix products, the pieces of a
// transformer block with their gradients, and conversions between number
// formats. Everything here works on slices that the caller owns.
//
// Results do not depend on how many goroutines share the work: it is divided by
// output tiles whose bounds follow from the shapes alone, and each tile is
// computed in one order.
//
// The package knows neither tensors nor models nor files, and imports nothing
// of nibble's.
package kernel
