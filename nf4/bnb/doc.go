// Package bnb is how bitsandbytes and transformers store weights of 4 and 8 bits:
// the tensors beside a weight, the quant_state JSON, and the quantization_config
// of config.json.
//
// A linear layer P quantized to NF4 is these tensors
// (bitsandbytes 0.50.2, QuantState.as_dict and Linear4bit):
//
//	P.weight                                   U8 [ceil(n/2), 1]      codes
//	P.weight.absmax                            F32 or U8 [blocks]
//	P.weight.quant_map                         F32 [16]               the codebook
//	P.weight.nested_absmax                     F32 [ceil(blocks/256)] only with
//	P.weight.nested_quant_map                  F32 [256]              double quantization
//	P.weight.quant_state.bitsandbytes__nf4     U8                     JSON
//
// and one quantized by LLM.int8 these (Linear8bitLt):
//
//	P.weight         I8 [out, in]
//	P.SCB            F32 [out]     absmax of each row; a value is weight * SCB / 127
//	P.weight_format  U8 []         0 for rows; may be missing
//
// View shows either as one tensor P.weight of the weight's own shape, of DType NF4,
// FP4 or INT8, to be decoded by package nf4 or tensor/scaled. Plan writes them.
// Both read headers, quant_state and weight_format only; weights are
// streamed.
//
// The package knows nf4 and the pipeline, and neither files nor model families:
// the caller says which tensors are the weights of linear layers.
package bnb
