// Package optim holds the optimizers and learning-rate schedules. An optimizer
// is one file and one row in New; its state is a tensor.Source, so that a
// checkpoint stores it as any other set of tensors.
//
// The package knows parameters as named vectors with gradients, and nothing of
// models, adapters or data.
package optim
