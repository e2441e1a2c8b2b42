// Package model is the arithmetic of a decoder: the forward pass and the
// explicit backward pass of each family's block, and the loss, over weights
// that are leased one block at a time.
//
// Nothing is recorded during the forward pass but the hidden states between
// blocks; the backward pass computes the inside of a block again. Frozen
// weights get no gradient. Adapters are added to linear layers here; merging
// them is another package's business.
//
// The package knows neither where weights come from nor how long they stay,
// neither data nor optimizers' rules.
package model
