// Package engine takes micro-batches through a whole model whose blocks are
// leased one at a time: forward for a loss, forward and back for gradients, and
// token by token to generate.
//
// It goes through the layers in the outer loop and the micro-batches in the
// inner one, so that a step reads every weight twice however many micro-batches
// it has. What happens inside a block is package model's business, where weights
// come from is package stream's.
package engine
