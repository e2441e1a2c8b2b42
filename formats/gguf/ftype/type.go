package ftype

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/seed18967229/nibble/tensor"
)

// Type is what a file is quantized to: a number of llama.h, enum llama_ftype,
// the value of general.file_type.
type Type uint32

// The types that can be chosen.
const (
	Q4_0      Type = 2
	Q4_1      Type = 3
	Q8_0      Type = 7
	Q5_0      Type = 8
	Q5_1      Type = 9
	Q2_K      Type = 10
	Q3_K_S    Type = 11
	Q3_K_M    Type = 12
	Q3_K_L    Type = 13
	Q4_K_S    Type = 14
	Q4_K_M    Type = 15
	Q5_K_S    Type = 16
	Q5_K_M    Type = 17
	Q6_K      Type = 18
	Q2_K_S    Type = 21
	IQ4_NL    Type = 25
	IQ4_XS    Type = 30
	TQ1_0     Type = 36
	TQ2_0     Type = 37
	MXFP4_MOE Type = 38
)

// mix is what a Type means. A rule that is nil changes nothing.
type mix struct {
	name string
	base tensor.DType // of every matrix that no rule is about

	embedding tensor.DType // of the token embedding where there is an output matrix beside it; Invalid is base

	value  rule // attn_v, attn_qkv, attn_kv_b
	down   rule // ffn_down
	output rule // attn_output, unless the model is of eight experts or Falcon

	eight   bool         // with eight experts attn_output is Q5_K
	falconO tensor.DType // attn_output of Falcon
}

// mixes are the rules, as llama_tensor_get_type_impl has them.
var mixes = map[Type]mix{
	Q4_0: {name: "q4_0", base: tensor.Q4_0, down: withImatrix(true, early(8, tensor.Q4_1))},
	Q4_1: {name: "q4_1", base: tensor.Q4_1},
	Q5_0: {name: "q5_0", base: tensor.Q5_0, down: withImatrix(true, early(8, tensor.Q5_1))},
	Q5_1: {name: "q5_1", base: tensor.Q5_1},
	Q8_0: {name: "q8_0", base: tensor.Q8_0},

	Q2_K: {name: "q2_k", base: tensor.Q2_K, eight: true,
		value: orElse(grouped(tensor.Q4_K), always(tensor.Q3_K)), down: always(tensor.Q3_K), output: always(tensor.Q3_K)},
	Q2_K_S: {name: "q2_k_s", base: tensor.Q2_K, value: grouped(tensor.Q4_K), down: early(8, tensor.Q4_K)},
	Q3_K_S: {name: "q3_k_s", base: tensor.Q3_K, eight: true},
	Q3_K_M: {name: "q3_k_m", base: tensor.Q3_K, eight: true,
		value:  orElse(first(2, tensor.Q5_K), always(tensor.Q4_K)),
		down:   orElse(early(16, tensor.Q5_K), falcon(moreBits(tensor.Q4_K), always(tensor.Q4_K))),
		output: always(tensor.Q4_K)},
	Q3_K_L: {name: "q3_k_l", base: tensor.Q3_K,
		value: always(tensor.Q5_K), down: falcon(always(tensor.Q4_K), always(tensor.Q5_K)), output: always(tensor.Q5_K), falconO: tensor.Q4_K},
	Q4_K_S: {name: "q4_k_s", base: tensor.Q4_K, eight: true,
		value: first(4, tensor.Q5_K), down: falcon(nil, early(8, tensor.Q5_K))},
	Q4_K_M: {name: "q4_k_m", base: tensor.Q4_K, eight: true,
		value: moreBits(tensor.Q6_K), down: falcon(orElse(early(16, tensor.Q6_K), moreBits(tensor.Q5_K)), moreBits(tensor.Q6_K))},
	Q5_K_S: {name: "q5_k_s", base: tensor.Q5_K},
	Q5_K_M: {name: "q5_k_m", base: tensor.Q5_K, value: moreBits(tensor.Q6_K), down: moreBits(tensor.Q6_K)},
	Q6_K:   {name: "q6_k", base: tensor.Q6_K},

	IQ4_NL: {name: "iq4_nl", base: tensor.IQ4_NL, eight: true, value: grouped(tensor.Q5_K), down: withImatrix(false, early(8, tensor.Q5_K))},
	IQ4_XS: {name: "iq4_xs", base: tensor.IQ4_XS, eight: true, value: grouped(tensor.Q5_K), down: withImatrix(false, early(8, tensor.Q5_K))},

	TQ1_0: {name: "tq1_0", base: tensor.TQ1_0, embedding: tensor.Q4_K},
	TQ2_0: {name: "tq2_0", base: tensor.TQ2_0, embedding: tensor.Q4_K},

	MXFP4_MOE: {name: "mxfp4", base: tensor.MXFP4},
}

// aliases are the other names that llama-quantize takes.
var aliases = map[string]Type{"q3_k": Q3_K_M, "q4_k": Q4_K_M, "q5_k": Q5_K_M, "mxfp4_moe": MXFP4_MOE}

// Types returns every Type by its names, which are lower case.
func Types() map[string]Type {
	all := maps.Clone(aliases)
	for t, m := range mixes {
		all[m.name] = t
	}
	return all
}

// String returns the name, in lower case.
func (t Type) String() string {
	if m, ok := mixes[t]; ok {
		return m.name
	}
	return fmt.Sprintf("Type(%d)", uint32(t))
}

// Base returns what matrices are stored as that no rule is about.
func (t Type) Base() tensor.DType { return mixes[t].base }

// targets are the types of a tensor that a user can ask for by name: those of ggml that
// stand for weights.
var targets = []tensor.DType{
	tensor.F32, tensor.F16, tensor.BF16, tensor.Q4_0, tensor.Q4_1, tensor.Q5_0, tensor.Q5_1, tensor.Q8_0,
	tensor.Q2_K, tensor.Q3_K, tensor.Q4_K, tensor.Q5_K, tensor.Q6_K,
	tensor.IQ1_S, tensor.IQ1_M, tensor.IQ2_XXS, tensor.IQ2_XS, tensor.IQ2_S, tensor.IQ3_XXS, tensor.IQ3_S, tensor.IQ4_NL, tensor.IQ4_XS,
	tensor.TQ1_0, tensor.TQ2_0, tensor.MXFP4, tensor.NVFP4, tensor.Q1_0, tensor.Q2_0,
}

// ParseDType returns the type of a tensor of that name in ggml, in any case.
func ParseDType(name string) (tensor.DType, error) {
	i := slices.IndexFunc(targets, func(d tensor.DType) bool { return strings.EqualFold(d.String(), name) })
	if i < 0 {
		return tensor.Invalid, fmt.Errorf("no tensor type %q", name)
	}
	return targets[i], nil
}
