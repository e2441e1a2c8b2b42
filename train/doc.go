// Package train is the fine-tuning loop: which examples a step takes, the
// gradient over its micro-batches, clipping, the optimizer, evaluation,
// checkpoints and going on from one, and how much memory all that needs.
//
// Everything random follows from the seed and the number of the step, so a run
// that was stopped and resumed ends with the same bits as one that was not.
//
// The package takes its weights from a tensor.Source and hands what it makes to
// an Output. It knows no file format, and does not merge.
package train
