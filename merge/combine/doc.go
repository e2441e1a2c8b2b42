// Package combine makes one tensor of several: of what several adapters add to it, of what
// several fine-tuned models differ from their base in, or of the weights of several models
// themselves. A Method knows nothing of adapters or checkpoints: it reads rows and gives rows.
//
// The methods and the names of their parameters are mergekit's (v0.1.4), and with its
// defaults they compute what it computes, in float32 rows and float64 sums whatever the
// models are stored in. Where PEFT's add_weighted_adapter uses a word for something else,
// that is a choice of its own: rescale "density" divides what DARE keeps by the density, as
// the paper and PEFT do, where mergekit restores the L1 norm; majority_sign_method is PEFT's.
// PEFT's arithmetic on the factors of adapters is in the methods that begin with "peft-".
//
// What a method must know of a whole tensor, a threshold or a norm, it finds once, when its
// first row is asked for, by reading the rows of its inputs in panels: memory does not grow
// with the tensor. A threshold is exact. What is equal in magnitude is kept in the order in
// which it lies, so that exactly the number of elements stays that the density says.
//
// Methods that draw at random have no state: what becomes of an element is a hash of the
// seed, the place of the adapter in the list, the name of the tensor and the place of the
// element. So neither workers nor the order of reading change the result. PEFT and mergekit
// draw from PyTorch's generator, so their masks are others.
//
// # Where mergekit is not followed
//
//   - breadcrumbs drops everything if gamma times the number of elements is below 1; here it
//     then drops no large element.
//   - magnitude pruning fails if density times the number of elements is below 1; here nothing
//     is kept.
//   - model_stock takes products of norms below 1e-6 for 1e-6, which bends the angle between
//     small differences; here only zero is guarded. Where differences cancel so that its ratio
//     is not defined, the base stays.
//   - della ranks within the second dimension, which of a matrix is its rows; here within rows
//     whatever the number of dimensions. In a row of one element it is lost; here such an
//     element is kept with the probability of the density.
package combine
