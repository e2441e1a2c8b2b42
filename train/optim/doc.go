// Package optim holds the optimizers and learning-rate schedules. An optimizer
// is one file and one row of a table; it owns no memory, so that what it keeps of
// a parameter can be in memory, on disk or in a checkpoint, the same way for all.
//
// The package knows parameters as named vectors with gradients, and nothing of
// models, adapters or data.
package optim
