package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/formats/convert"
	"github.com/seed18967229/nibble/nf4/bnb"
	"github.com/seed18967229/nibble/tensor"
)

// bnbInput is what quantizing to a type of bitsandbytes starts from: the tensors
// of the output as they were, in its order.
type bnbInput struct {
	*model // what the directory's other files are made of
	src    tensor.Source
	dtype  tensor.DType
	notes  []string
}

// Why tensors are not quantized.
const (
	expertReason = "experts"
	otherReason  = "parts that are not text"
)

// roleReasons say why tensors are not quantized that transformers does not have
// as linear layers. A router is a parameter there, though the one of a shared
// expert is a layer.
var roleReasons = map[arch.Role]string{
	arch.Embedding: "embeddings", arch.Position: "embeddings", arch.Router: "routers",
	arch.AttnNorm: "norms", arch.QueryNorm: "norms", arch.KeyNorm: "norms", arch.PostAttnNorm: "norms",
	arch.MLPNorm: "norms", arch.PostMLPNorm: "norms", arch.FinalNorm: "norms",
}

// newBnbInput finds out what there is to quantize of a view that has the tensors of m,
// and completes the options with it: as transformers 5 chooses, but that it quantizes
// the parts of a model that are not text too.
func newBnbInput(m *model, view *convert.View, o *bnb.Options) (*bnbInput, error) {
	b := &bnbInput{model: m, dtype: m.dtype()}
	name := func(t arch.Tensor) string { return t.Name }
	if m.view.Partial() {
		// The names of the text model's tensors lead on to other parts, so all keep
		// those that are stored.
		b.model = &model{Input: m.Input, stored: m.stored, merged: m.merged}
		b.src = m.stored
		name = func(t arch.Tensor) string { return m.view.Origin(t.Name).From[0] }
		o.AlsoSkip = otherModules(m.view)
	} else {
		turned, err := view.OutIn(m.arch, codecs)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", m.Path, err)
		}
		b.src = turned
	}
	o.Why = make(map[string]string)
	for _, d := range m.view.Dropped {
		o.Why[d.Name] = otherReason
	}
	order := make(map[string]int)
	own := m.arch.Tensors()
	for i, t := range append(own, m.arch.Extras()...) {
		n := name(t)
		order[n] = len(order) + 1
		switch {
		case i >= len(own):
			o.Why[n] = "tied to the embeddings"
		case t.Part == "bias":
			o.Why[n] = "biases"
		case roleReasons[t.Role] != "":
			o.Why[n] = roleReasons[t.Role]
		case t.Experts != nil && !o.PerExpert:
			o.Why[n] = expertReason
		default:
			o.Linear = append(o.Linear, n)
		}
		if t.Role == arch.Head {
			o.Head = strings.TrimSuffix(n, ".weight")
		}
		// What transformers 4 has as linear layers.
		if t.Role == arch.Router {
			o.AlsoSkip = append(o.AlsoSkip, t.Module())
		}
		if t.Experts != nil && !o.PerExpert && !slices.Contains(o.AlsoSkip, "experts") {
			o.AlsoSkip = append(o.AlsoSkip, "experts")
		}
	}
	var err error
	if b.src, err = inOrder(b.src, order); err != nil {
		return nil, fmt.Errorf("%s: %w", m.Path, err)
	}
	return b, b.again(m, o)
}

// again says what weights were that have been quantized before.
func (b *bnbInput) again(m *model, o *bnb.Options) error {
	kinds := make(map[string]int)
	for info := range m.original().All() {
		if blockType(info.DType) || info.DType.Opaque() {
			kinds[describe(m.original(), info)]++
		}
	}
	if len(kinds) == 0 {
		return nil
	}
	o.Was = func(info tensor.Info) tensor.DType { return plainType(b.src, info, tensor.Invalid) }
	if m.gguf != nil {
		_, own, err := m.gguf.OwnTypes(codecs)
		if err != nil {
			return fmt.Errorf("%s: %w", m.Path, err)
		}
		b.dtype = own
		o.Was = func(tensor.Info) tensor.DType { return own }
	}
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		b.notes = append(b.notes, fmt.Sprintf("%s had been quantized before, to %s: the errors add up", plural(kinds[kind], "tensor"), kind))
	}
	return nil
}

// otherModules returns the modules that the parts of a model beside text are, as
// transformers 4 and 5 name them.
func otherModules(v *convert.View) []string {
	var list []string
	for _, d := range v.Dropped {
		if d.Reason != convert.OtherPart {
			continue
		}
		module, _, _ := strings.Cut(strings.TrimPrefix(d.Name, "model."), ".")
		for _, name := range []string{"model." + module, module} {
			if !slices.Contains(list, name) {
				list = append(list, name)
			}
		}
	}
	return list
}

// inOrder returns src with the tensors in the order given by number, and those
// that have none behind them, by name with numbers as numbers. So those of a layer
// are together, and layers follow each other.
func inOrder(src tensor.Source, order map[string]int) (tensor.Source, error) {
	infos := slices.SortedFunc(src.All(), func(a, b tensor.Info) int {
		x, y := order[a.Name], order[b.Name]
		switch {
		case x == 0 && y == 0:
			return byNumber(a.Name, b.Name)
		case x == 0:
			return 1
		case y == 0:
			return -1
		}
		return cmp.Compare(x, y)
	})
	var entries []tensor.Entry
	for _, info := range infos {
		entries = append(entries, tensor.Forward(src, info, info.Name))
	}
	return tensor.NewTable(src.Meta(), entries)
}

// byNumber compares names part by part, numbers by their value.
func byNumber(a, b string) int {
	return slices.CompareFunc(strings.Split(a, "."), strings.Split(b, "."), func(x, y string) int {
		m, errM := strconv.ParseUint(x, 10, 64)
		n, errN := strconv.ParseUint(y, 10, 64)
		if errM == nil && errN == nil {
			return cmp.Or(cmp.Compare(m, n), cmp.Compare(x, y))
		}
		return cmp.Compare(x, y)
	})
}
