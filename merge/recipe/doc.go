// Package recipe says which models and adapters are merged, by which method of package combine,
// and with which parameters: the same everywhere, or by layer and by tensor.
//
// In a file it is what mergekit (v0.1.4) calls a configuration, with adapters beside the models:
//
//	merge_method: ties
//	base_model: base
//	models:
//	  - model: one
//	    parameters:
//	      weight: 0.5
//	      density: [0.2, 0.5, 1]      # over the layers, from the first to the last
//	adapters:
//	  - adapter: two
//	    parameters:
//	      weight:
//	        - filter: mlp             # tensors whose name has it
//	          value: 0.3
//	        - value: 0.7              # the others
//	parameters:
//	  normalize: true
//	out_dtype: bfloat16
//
// Of what says a parameter the first counts that has a value for the tensor: that of the model,
// that of the slice, that of the file, and the method's default. A list of numbers is a gradient:
// its values lie at even distances over the layers of the slice and those between are
// interpolated; what is in no layer has the first.
//
// Slices are read if together they are the whole model, layer by layer. A key that is not known,
// and a parameter that the method does not take, is an error.
package recipe
