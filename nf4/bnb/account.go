package bnb

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/seed18967229/nibble/tensor"
)

// Result is what was done with one tensor of the source.
type Result struct {
	Name  string
	DType tensor.DType
	Shape tensor.Shape

	// Action is "nf4", "fp4", "int8" or "copy", Reason why a tensor was copied, ""
	// if nobody said.
	Action, Reason string

	// Before and After are the bytes of the tensor and of those made of it;
	// without the quant_state until the run.
	Before, After int64

	// RelRMS is the root of the mean squared error relative to that of the
	// elements, after the run; 0 for a copy.
	RelRMS float64
}

// Account says what a Plan does. It is safe for concurrent use.
type Account struct {
	o       Options
	compute tensor.DType // as asked for, or of the first weight that is quantized
	skip    []string

	mu      sync.Mutex
	results []Result
}

// Results returns one Result for each tensor of the source, in its order.
func (a *Account) Results() []Result {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.results)
}

func (a *Account) copied(info tensor.Info, reason string) {
	a.results = append(a.results, Result{
		Name: info.Name, DType: info.DType, Shape: info.Shape,
		Action: "copy", Reason: reason, Before: info.Size(), After: info.Size(),
	})
}

// quantized returns what the step calls when it is done.
func (a *Account) quantized(info tensor.Info, out []tensor.Info) func(text int64, relRMS float64) {
	r := Result{Name: info.Name, DType: info.DType, Shape: info.Shape, Action: kindOf(a.o.Type), Before: info.Size()}
	for _, o := range out {
		if !o.Late() {
			r.After += o.Size()
		}
	}
	i, planned := len(a.results), r.After
	a.results = append(a.results, r)
	return func(text int64, relRMS float64) {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.results[i].After = planned + text
		a.results[i].RelRMS = relRMS
	}
}

// QuantizationConfig returns the quantization_config of config.json: all fields
// that transformers 5.23 writes, in its order and with its indentation of two
// spaces; fields of the other width have their defaults. llm_int8_skip_modules
// names every linear layer that was not quantized, or is null if transformers
// finds them by itself.
func (a *Account) QuantizationConfig() []byte {
	four := a.o.Type != tensor.INT8
	kind, compute := "fp4", "float32"
	if four {
		kind, compute = kindOf(a.o.Type), dtypeName(a.compute)
	}
	return fmt.Appendf(nil, `{
  "_load_in_4bit": %t,
  "_load_in_8bit": %t,
  "bnb_4bit_compute_dtype": %q,
  "bnb_4bit_quant_storage": %q,
  "bnb_4bit_quant_type": %q,
  "bnb_4bit_use_double_quant": %t,
  "llm_int8_enable_fp32_cpu_offload": false,
  "llm_int8_has_fp16_weight": false,
  "llm_int8_skip_modules": %s,
  "llm_int8_threshold": 6.0,
  "load_in_4bit": %t,
  "load_in_8bit": %t,
  "quant_method": "bitsandbytes"
}`, four, !four, compute, storageName(a.o.storage()), kind, a.o.DoubleQuant, jsonList(a.skip), four, !four)
}

// jsonList writes names as an indented list, or null if there is no list.
func jsonList(names []string) string {
	switch {
	case names == nil:
		return "null"
	case len(names) == 0:
		return "[]"
	}
	items := make([]string, len(names))
	for i, n := range names {
		text, _ := json.Marshal(n) // a string is always marshalled
		items[i] = "    " + string(text)
	}
	return "[\n" + strings.Join(items, ",\n") + "\n  ]"
}
