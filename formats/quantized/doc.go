// Package quantized recognises checkpoints whose weights are not stored as plain
// numbers, and shows those of 8 bits with scales beside them as one tensor each:
//
//	P.weight             F8_E4M3, F8_E5M2 or I8 [out, in]
//	P.weight_scale_inv   DeepSeek, Qwen and transformers' "fp8": for each block
//	P.weight_scale       compressed-tensors, ModelOpt, AutoFP8: one, or for each
//	                     row or block
//	P.qscale_weight      Mistral: one
//	P.scale              DeepSeek V4: for each block, as exponents
//
// The value of a weight is float32(weight) * float32(scale), the product rounded
// to float32, as llama.cpp's converter has it (dequant_simple in
// conversion/base.py). transformers and compressed-tensors multiply likewise and
// then round to the dtype of the scale or of the model.
//
// Which scale belongs to which weight follows from names and shapes; config.json
// says how large a block is. Everything else that quantizes weights, by GPTQ or
// as four-bit floats, is recognised by config.json or by the names of its tensors
// and refused by name (methods). What bitsandbytes stores is nf4/bnb's.
//
// The package reads headers and config.json only; weights are streamed, by package
// tensor/scaled.
package quantized
