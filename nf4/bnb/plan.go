package bnb

import (
	"fmt"
	"slices"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/nf4"
	"github.com/seed18967229/nibble/pipeline"
	"github.com/seed18967229/nibble/tensor"
)

// Options says how a model is quantized.
type Options struct {
	// Type is tensor.NF4, tensor.FP4 or, for LLM.int8, tensor.INT8.
	Type tensor.DType

	// Of the 4-bit types, BlockSize is a power of two from 32 to 4096; where
	// transformers quantizes it is always 64. DoubleQuant quantizes the absmax too.
	// Storage is the dtype that the bytes of the codes are stored as
	// (bnb_4bit_quant_storage): U8, BF16, F16 or F32; tensor.Invalid is U8. Compute
	// is the dtype they are to be decoded to for products; tensor.Invalid is that of
	// the weights.
	BlockSize        int
	DoubleQuant      bool
	Storage, Compute tensor.DType

	// BlockSizes has the block sizes of weights by name that have another one than
	// BlockSize, which bitsandbytes reads from each weight's own quant_state; 0 copies
	// the weight.
	BlockSizes map[string]int

	// Linear names the weights of the model's linear layers, the output head's
	// included if it has its own. All others are copied.
	Linear []string

	// Why says of other tensors why they are copied, for the account.
	Why map[string]string

	// Head is the module of the output head, "lm_head". It keeps its dtype if
	// SkipModules is nil.
	Head string

	// SkipModules names modules whose weights are copied, as llm_int8_skip_modules
	// does in transformers. A list that is not nil replaces the automatic one,
	// which is the head.
	SkipModules []string

	// AlsoSkip names, for whoever loads the result, modules that are linear layers
	// there and are not in Linear.
	AlsoSkip []string

	// PerExpert says that weights of experts are in Linear. transformers 5 has the
	// experts of a layer in one parameter, which it does not load from weights of 4
	// or 8 bits; the configuration says so.
	PerExpert bool

	// DType is what weights are rounded to before they are quantized, F32, F16 or
	// BF16, as transformers does when it loads a model with that dtype.
	// tensor.Invalid keeps each weight's own.
	DType tensor.DType

	// LoftQ, if it is not nil, has adapters made that correct 4-bit weights.
	LoftQ *LoftQ

	// Was returns what a tensor whose elements share blocks or scales was before, and
	// what it becomes where it is not quantized again. nil refuses such tensors.
	Was func(info tensor.Info) tensor.DType

	// NonFinite is what is done with elements that are NaN or infinite; nil stops
	// the run at the first.
	NonFinite *pipeline.NonFinite
}

// Plan returns how to quantize the model src, whose tensors have their names in
// a Hugging Face checkpoint: one step for each weight of a linear layer, which
// makes the tensors that bitsandbytes would store, and a copy of everything
// else. The Account says what was decided and, after the run, how large the
// errors are. Errors name the tensor; nothing but headers is read.
func Plan(src tensor.Source, codecs tensor.Codecs, o Options) (*pipeline.Plan, *Account, error) {
	if err := o.check(src); err != nil {
		return nil, nil, err
	}
	skip, err := newMatcher(o.SkipModules)
	if err != nil {
		return nil, nil, err
	}
	linear := make(map[string]bool, len(o.Linear))
	for _, name := range o.Linear {
		linear[name] = true
	}
	p := &pipeline.Plan{Meta: tensor.Meta{{Key: "format", Value: "pt"}}}
	a := &Account{o: o, compute: o.Compute}
	var kept []string // linear layers that no pattern names but that are copied
	for info := range src.All() {
		was := info.DType
		if encoded(was) {
			if o.Was == nil {
				return nil, nil, hint.Add(fmt.Errorf("tensor %q: %w: it is %v already", info.Name, tensor.ErrUnsupported, info.DType),
					"dequantize the model first, or start from the original")
			}
			was = o.Was(info)
		}
		module := moduleOf(info.Name)
		reason := o.Why[info.Name]
		if linear[info.Name] {
			if pattern, ok := skip.match(module); ok {
				reason = fmt.Sprintf("module to skip %q", pattern)
			} else if o.SkipModules == nil && module == o.Head {
				reason = "output head"
			} else if reason = unfit(info); reason != "" {
				kept = append(kept, module)
			} else if size, other := o.BlockSizes[info.Name]; other && size == 0 {
				reason = "chosen to keep its type"
				kept = append(kept, module)
			} else {
				step, err := a.quantize(codecs, info, was)
				if err != nil {
					return nil, nil, fmt.Errorf("tensor %q: %w", info.Name, err)
				}
				p.Steps = append(p.Steps, step)
				continue
			}
		}
		step := pipeline.Copy(info, info.Name)
		if was != info.DType {
			if step, err = pipeline.Cast(codecs, info.Name, tensor.Info{Name: info.Name, DType: was, Shape: info.Shape}); err != nil {
				return nil, nil, err
			}
			step.Action = "dequantize"
		}
		p.Steps = append(p.Steps, step)
		a.kept(info, step, reason)
	}
	if !slices.ContainsFunc(a.results, func(r Result) bool { return r.Quantized() }) {
		return nil, nil, hint.Add(fmt.Errorf("%w: no weight is left to be quantized", tensor.ErrUnsupported),
			"shorten the list of modules to skip")
	}
	a.skip = skipList(o, skip, linear, kept)
	return p, a, nil
}

// check checks the options against src.
func (o *Options) check(src tensor.Source) error {
	four := o.Type == tensor.NF4 || o.Type == tensor.FP4
	switch {
	case !four && o.Type != tensor.INT8:
		return fmt.Errorf("%w: quantization to %v, want NF4, FP4 or INT8", tensor.ErrUnsupported, o.Type)
	case !four && (o.BlockSize != 0 || o.DoubleQuant || o.Storage != tensor.Invalid || o.Compute != tensor.Invalid):
		return fmt.Errorf("%w: INT8 with block size, double quantization, storage or compute dtype, which are of 4 bits", tensor.ErrUnsupported)
	case !four && o.LoftQ != nil:
		return fmt.Errorf("%w: LoftQ with %v, want NF4 or FP4", tensor.ErrUnsupported, o.Type)
	case o.Storage != tensor.Invalid && storageName(o.Storage) == "":
		return fmt.Errorf("%w: 4-bit codes stored as %v, want U8, F32, F16 or BF16", tensor.ErrUnsupported, o.Storage)
	}
	if four {
		if err := nf4.CheckBlockSize(int64(o.BlockSize)); err != nil {
			return err
		}
		for name, size := range o.BlockSizes {
			if err := nf4.CheckBlockSize(int64(size)); err != nil && size != 0 {
				return fmt.Errorf("tensor %q: %w", name, err)
			}
		}
	}
	for _, d := range []tensor.DType{o.DType, o.Compute} {
		if d != tensor.Invalid && dtypeName(d) == "" {
			return fmt.Errorf("%w: weights of %v, want F32, F16 or BF16", tensor.ErrUnsupported, d)
		}
	}
	var missing []string
	for _, name := range o.Linear {
		if !tensor.Has(src, name) {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("tensor %q: %w (%d of %d weights of linear layers are missing)",
			missing[0], tensor.ErrNotFound, len(missing), len(o.Linear))
	}
	return nil
}

// unfit returns why a weight of a linear layer cannot be quantized, "" if it
// can.
func unfit(info tensor.Info) string {
	switch {
	case len(info.Shape) != 2:
		return fmt.Sprintf("shape %v is not [out, in]", info.Shape)
	case info.Shape.Elems() == 0:
		return fmt.Sprintf("shape %v is empty", info.Shape)
	}
	return ""
}

// skipList returns llm_int8_skip_modules: nil if the automatic list names
// everything that was not quantized, else a list that does.
func skipList(o Options, skip matcher, linear map[string]bool, kept []string) []string {
	if o.SkipModules == nil && len(kept)+len(o.AlsoSkip) == 0 {
		return nil
	}
	list := slices.Clone(o.SkipModules)
	// A head that shares the embeddings' weight is a linear layer to transformers
	// all the same.
	if _, named := skip.match(o.Head); o.Head != "" && !named && (o.SkipModules == nil || !linear[o.Head+".weight"]) {
		list = append(list, o.Head)
	}
	return append(append(list, o.AlsoSkip...), kept...)
}

// encoded reports whether elements of a dtype share blocks or scales.
func encoded(d tensor.DType) bool {
	elems, _ := d.Block()
	return d.Opaque() || elems > 1
}

// quantize returns the step that makes the tensors of a weight, whose elements
// were of the dtype was.
func (a *Account) quantize(codecs tensor.Codecs, info tensor.Info, was tensor.DType) (pipeline.Step, error) {
	to := a.o.DType
	if to == tensor.Invalid {
		to = was
	}
	if dtypeName(to) == "" {
		return pipeline.Step{}, hint.Add(fmt.Errorf("%w: quantizing %v", tensor.ErrUnsupported, was),
			"say which of f32, f16 and bf16 to round it to")
	}
	if _, ok := codecs[info.DType]; !ok {
		return pipeline.Step{}, fmt.Errorf("%w: no decoder for %v", tensor.ErrUnsupported, info.DType)
	}
	if a.compute == tensor.Invalid {
		a.compute = to
	}
	own := a.o
	if size, other := own.BlockSizes[info.Name]; other {
		own.BlockSize = size
	}
	w := &weight{o: &own, in: info, source: to, codecs: codecs}
	m := w.maker()
	out, err := m.layout()
	if err != nil {
		return pipeline.Step{}, err
	}
	w.done = a.quantized(info, out)
	return pipeline.Step{Action: kindOf(a.o.Type), In: []string{info.Name}, Out: out, Scratch: m.scratch(), Run: m.run}, nil
}
