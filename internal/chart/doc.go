// Package chart draws the few pictures nibble makes.
//
// It knows nothing of where the numbers come from.
package chart
