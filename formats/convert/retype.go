package convert

import (
	"context"
	"fmt"

	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/formats/gguf"
	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/pipeline"
	"github.com/seed18967229/nibble/tensor"
)

// Retype plans a GGUF file with the tensors and the metadata of another one, its
// matrices as outType, one of OutTypes but "auto". What that says of the file's
// types is replaced.
func Retype(g tensor.Source, codecs tensor.Codecs, m *arch.Model, outType string) (*pipeline.Plan, error) {
	p := planner{src: g, codecs: codecs, m: m, plan: &pipeline.Plan{}}
	var err error
	if p.out, err = (GGUFOptions{OutType: outType}).dtype(nil); err != nil {
		return nil, err
	}
	weights := make(map[string]arch.Tensor)
	for _, t := range m.Tensors() {
		weights[t.GGUFName] = t
	}
	for info := range g.All() {
		as := info.DType
		if t, ok := weights[info.Name]; ok {
			as = p.storedAs(t, info)
		}
		if err := p.store(tensor.Forward(g, info, info.Name), as, Origin{}); err != nil {
			return nil, err
		}
	}
	ft, ok := gguf.FileTypeOf(p.out)
	if !ok {
		return nil, fmt.Errorf("%w: a GGUF file of %v", tensor.ErrUnsupported, p.out)
	}
	set := map[string]uint32{gguf.KeyFileType: uint32(ft), gguf.KeyQuantizationVersion: gguf.QuantizationVersion}
	for _, kv := range g.Meta() {
		if v, ok := set[kv.Key]; ok {
			kv.Value = v
			delete(set, kv.Key)
		}
		p.plan.Meta = append(p.plan.Meta, kv)
	}
	for _, key := range []string{gguf.KeyFileType, gguf.KeyQuantizationVersion} {
		if v, missing := set[key]; missing {
			p.plan.Meta = append(p.plan.Meta, tensor.KV{Key: key, Value: v})
		}
	}
	return p.plan, nil
}

// OwnTypes returns the dtype that each tensor is best stored as in a checkpoint,
// and that of the model: what its matrices are, or F16 where those are of a block
// type. What GGUF widened to F32 becomes that too where no bit is lost; it reads
// those tensors.
func (c *Checkpoint) OwnTypes(codecs tensor.Codecs) (func(tensor.Info) tensor.DType, tensor.DType, error) {
	types := make(map[string]tensor.DType)
	own := tensor.Invalid
	for info := range c.All() {
		d := info.DType
		if elems, _ := d.Block(); elems > 1 {
			d = tensor.F16
		}
		types[info.Name] = d
		if own == tensor.Invalid && !c.Widened[info.Name] && len(info.Shape) > 1 && d.Float() {
			own = d
		}
	}
	if own == tensor.F16 || own == tensor.BF16 {
		for info := range c.All() {
			if !c.Widened[info.Name] || info.DType != tensor.F32 {
				continue
			}
			exact, err := narrows(c, codecs, info, own)
			if err != nil {
				return nil, own, err
			}
			if exact {
				types[info.Name] = own
			}
		}
	}
	if own == tensor.Invalid {
		own = tensor.F32
	}
	return func(info tensor.Info) tensor.DType { return types[info.Name] }, own, nil
}

// narrows reports whether every number of a tensor is one of the narrower type d.
func narrows(src tensor.Source, codecs tensor.Codecs, info tensor.Info, d tensor.DType) (bool, error) {
	round := func(v float32) float32 { return kernel.F16ToF32(kernel.F32ToF16(v)) }
	if d == tensor.BF16 {
		round = func(v float32) float32 { return kernel.BF16ToF32(kernel.F32ToBF16(v)) }
	}
	exact := true
	err := pipeline.EachPanel(context.Background(), codecs, src, info.Name, func(w []float32, _ int64) error {
		for _, v := range w {
			exact = exact && (round(v) == v || v != v)
		}
		return nil
	})
	return exact, err
}
