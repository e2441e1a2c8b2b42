package convert

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/formats/gguf"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/pipeline"
	"github.com/seed18967229/nibble/tensor"
)

// The keys of a GGUF adapter, and the endings of its tensors' names.
const (
	keyAdapterType  = "adapter.type"
	keyAdapterAlpha = "adapter.lora.alpha"

	suffixA, suffixB         = ".lora_a", ".lora_b"
	hfSuffixA, hfSuffixB     = ".lora_A.weight", ".lora_B.weight"
	hfEmbeddingA, hfEmbedB   = ".lora_embedding_A", ".lora_embedding_B"
	adapterType, adapterKind = "adapter", "lora"
)

// AdapterScale is by what an adapter's product is multiplied.
type AdapterScale struct {
	Rank      int64 // 0 for one whose modules have ranks of their own
	Alpha     float64
	UseRSLoRA bool
}

// Of returns by what the product of a module of that rank is multiplied, as llama.cpp does
// it: alpha over rank, and 1 for an alpha of 0.
func (s AdapterScale) Of(rank int) float64 {
	if s.Alpha == 0 {
		return 1
	}
	return s.Alpha / float64(rank)
}

// AdapterToGGUF plans the GGUF file of a LoRA adapter of the model m, given
// its tensors by the names of the model's modules: MODULE.lora_A.weight [r, in]
// and MODULE.lora_B.weight [out, r]. The rows of B go the way of the weight's.
//
// llama.cpp multiplies by alpha/r, r being that of each pair. Of an adapter that is scaled
// by alpha/sqrt(r) the alpha that is written makes up for it.
func AdapterToGGUF(src tensor.Source, codecs tensor.Codecs, m *arch.Model, scale AdapterScale, o GGUFOptions) (*GGUF, error) {
	pairs, err := adapterPairs(src, m, scale.Rank)
	if err != nil {
		return nil, err
	}
	p := planner{src: src, codecs: codecs, m: m, plan: &pipeline.Plan{}}
	if p.out, err = o.adapterType(src); err != nil {
		return nil, err
	}
	for _, pair := range pairs {
		if err := p.addPair(pair); err != nil {
			return nil, err
		}
	}
	view, err := tensor.NewTable(nil, p.entries)
	if err != nil {
		return nil, err
	}
	alpha := scale.Alpha
	if scale.UseRSLoRA {
		alpha *= math.Sqrt(float64(scale.Rank))
	}
	meta := tensor.Meta{
		{Key: gguf.KeyArchitecture, Value: m.GGUF},
		{Key: gguf.KeyType, Value: adapterType},
		{Key: keyAdapterType, Value: adapterKind},
	}
	if o.General != nil {
		meta = append(meta, o.General(view.All())...)
	}
	p.plan.Meta = append(meta,
		tensor.KV{Key: keyAdapterAlpha, Value: float32(alpha)},
		tensor.KV{Key: gguf.KeyQuantizationVersion, Value: gguf.QuantizationVersion})
	return &GGUF{Source: view, Plan: p.plan}, nil
}

// adapterType is dtype for an adapter, which "auto" leaves at F32.
func (o GGUFOptions) adapterType(src tensor.Source) (tensor.DType, error) {
	if o.OutType == "auto" {
		return tensor.F32, nil
	}
	return o.dtype(nil)
}

// pair is what an adapter has for one tensor of a GGUF file: for a stack of
// experts, one for each.
type pair struct {
	arch.Tensor
	a, b []tensor.Info
}

// adapterPairs matches an adapter's tensors with those of a model, in the
// adapter's order.
func adapterPairs(src tensor.Source, m *arch.Model, rank int64) ([]*pair, error) {
	weights := make(map[string]arch.Tensor)
	for _, t := range append(m.Tensors(), m.Extras()...) {
		if t.Part == "weight" && len(t.Dims) == 2 {
			weights[t.Module()] = t
		}
	}
	var out []*pair
	byName := make(map[string]*pair)
	for info := range src.All() {
		module, isB, embedding := cutAdapter(info.Name)
		t, ok := weights[module]
		if !ok {
			return nil, hint.Add(fmt.Errorf("adapter tensor %q: %w: no part of a LoRA of a linear layer that the %s family has", info.Name, tensor.ErrUnsupported, m.Name),
				"was the adapter trained on another model? GGUF adapters hold low-rank matrices only; merge one that has more")
		}
		if embedding != (t.Role == arch.Embedding) {
			return nil, fmt.Errorf("adapter tensor %q: %w: the name is not that of what %s has", info.Name, tensor.ErrMalformed, module)
		}
		x := byName[t.GGUFName]
		if x == nil {
			n := 1
			if t.Expert >= 0 {
				n = int(m.NumExperts)
			}
			x = &pair{Tensor: t, a: make([]tensor.Info, n), b: make([]tensor.Info, n)}
			byName[t.GGUFName] = x
			out = append(out, x)
		}
		own := rank
		if half := map[bool]int{true: 1}[isB]; own == 0 && len(info.Shape) == 2 {
			own = info.Shape[half]
		}
		want, at := tensor.Shape{own, int64(t.In())}, &x.a[max(t.Expert, 0)]
		if isB {
			want, at = tensor.Shape{int64(t.Out()), own}, &x.b[max(t.Expert, 0)]
		}
		if embedding { // a table of vocab rows is a layer from vocab to hidden
			want = tensor.Shape{own, int64(t.Out())}
			if isB {
				want = tensor.Shape{int64(t.In()), own}
			}
		}
		if !info.Shape.Equal(want) {
			return nil, hint.Add(fmt.Errorf("adapter tensor %q: %w: shape %v, the model and the rank make it %v", info.Name, tensor.ErrMalformed, info.Shape, want),
				"was the adapter trained on another model?")
		}
		*at = info
	}
	for _, x := range out {
		for i := range x.a {
			if x.a[i].Name == "" || x.b[i].Name == "" {
				return nil, fmt.Errorf("adapter of %q: %w: A or B of it is missing (GGUF needs both, and those of all experts of a layer)", x.Module(), tensor.ErrUnsupported)
			}
			if x.a[i].Shape[0] != x.b[0].Shape[1] || x.b[i].Shape[1] != x.b[0].Shape[1] {
				return nil, fmt.Errorf("adapter of %q: %w: A and B have different ranks, or those of experts that are one tensor in GGUF", x.Module(), tensor.ErrUnsupported)
			}
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%w: the adapter has no tensors", tensor.ErrMalformed)
	}
	return out, nil
}

// cutAdapter returns the module that an adapter's tensor is for.
func cutAdapter(name string) (module string, isB, embedding bool) {
	for _, s := range []struct {
		suffix       string
		b, embedding bool
	}{{hfSuffixA, false, false}, {hfSuffixB, true, false}, {hfEmbeddingA, false, true}, {hfEmbedB, true, true}} {
		if module, ok := strings.CutSuffix(name, s.suffix); ok {
			return module, s.b, s.embedding
		}
	}
	return "", false, false
}

// addPair adds A and B of one tensor. Of the embeddings llama.cpp wants A
// transposed (convert_lora_to_gguf.py).
func (p *planner) addPair(x *pair) error {
	nameA, nameB := x.GGUFName+suffixA, x.GGUFName+suffixB
	a, b := tensor.Forward(p.src, x.a[0], nameA), tensor.Forward(p.src, x.b[0], nameB)
	ofA, ofB := Origin{From: names(x.a)}, Origin{From: names(x.b)}
	switch order := between(p.m.Rotary, p.m.GGUFRotary, p.m.HeadDim); {
	case x.Expert >= 0:
		a, b = stack(p.src, p.codecs, x.a, nameA), stack(p.src, p.codecs, x.b, nameB)
		ofA.Change, ofB.Change = stackUp, stackUp
	case x.Role == arch.Embedding:
		a, ofA.Change = transposed(p.src, p.codecs, x.a[0], nameA), transpose
	case x.RotaryHeads != nil && order != nil:
		b, ofB.Change = reorder(p.src, p.codecs, x.b[0], nameB, order), permute
	}
	if err := p.store(a, p.matrixType(a.Info), ofA); err != nil {
		return err
	}
	return p.store(b, p.matrixType(b.Info), ofB)
}

// AdapterFromGGUF returns a GGUF adapter in the form that AdapterToGGUF takes,
// and its scale. m is the model that it is for. Block types are decoded to F32.
func AdapterFromGGUF(g tensor.Source, codecs tensor.Codecs, m *arch.Model) (*View, AdapterScale, error) {
	var scale AdapterScale
	if err := checkAdapter(g.Meta(), m); err != nil {
		return nil, scale, err
	}
	alpha, ok := tensor.Lookup[float32](g.Meta(), keyAdapterAlpha)
	if !ok {
		return nil, scale, fmt.Errorf("metadata %q: %w: it is missing or no float32", keyAdapterAlpha, tensor.ErrMalformed)
	}
	weights := make(map[string][]arch.Tensor)
	for _, t := range append(m.Tensors(), m.Extras()...) {
		weights[t.GGUFName] = append(weights[t.GGUFName], t)
	}
	view := &View{Origins: make(map[string]Origin)}
	var entries []tensor.Entry
	first := true
	for info := range g.All() {
		name, isA := strings.CutSuffix(info.Name, suffixA)
		if !isA {
			var isB bool
			if name, isB = strings.CutSuffix(info.Name, suffixB); !isB {
				return nil, scale, fmt.Errorf("tensor %q: %w: neither a %s nor a %s", info.Name, tensor.ErrUnsupported, suffixA, suffixB)
			}
		}
		targets := weights[name]
		if len(targets) == 0 || len(targets[0].Dims) != 2 {
			return nil, scale, hint.Add(fmt.Errorf("tensor %q: %w: the model has no matrix %q", info.Name, tensor.ErrMalformed, name), "give the model that the adapter was trained on")
		}
		list, rank, change, err := adapterEntries(g, codecs, m, info, targets, isA)
		if err != nil {
			return nil, scale, err
		}
		if !first && rank != scale.Rank {
			scale.Rank = 0
		}
		if first {
			scale.Rank, first = rank, false
		}
		for _, e := range list {
			view.Origins[e.Info.Name] = Origin{[]string{info.Name}, change}
		}
		entries = append(entries, list...)
	}
	if len(entries) == 0 {
		return nil, scale, fmt.Errorf("%w: the adapter has no tensors", tensor.ErrMalformed)
	}
	if scale.Alpha = float64(alpha); alpha == 0 {
		scale.Alpha = float64(scale.Rank) // llama.cpp then takes 1 for alpha/r
	}
	stored, err := tensor.NewTable(tensor.Meta{{Key: "format", Value: "pt"}}, entries)
	if err != nil {
		return nil, scale, err
	}
	for i, e := range entries {
		if !e.Info.DType.Float() {
			entries[i] = decoded(stored, codecs, e.Info, e.Info.Name, nil)
		}
	}
	view.Source, err = tensor.NewTable(stored.Meta(), entries)
	return view, scale, err
}

func checkAdapter(meta tensor.Meta, m *arch.Model) error {
	for _, want := range []struct{ key, value string }{
		{gguf.KeyType, adapterType}, {keyAdapterType, adapterKind}, {gguf.KeyArchitecture, m.GGUF},
	} {
		if got, _ := tensor.Lookup[string](meta, want.key); got != want.value {
			return fmt.Errorf("metadata %q: %w: it is %q, want %q", want.key, tensor.ErrUnsupported, got, want.value)
		}
	}
	return nil
}

// adapterEntries returns what a tensor of a GGUF adapter is in a checkpoint's
// names and layout, its rank, and the change.
func adapterEntries(g tensor.Source, codecs tensor.Codecs, m *arch.Model, info tensor.Info, targets []arch.Tensor, isA bool) ([]tensor.Entry, int64, string, error) {
	t := targets[0]
	embedding := t.Role == arch.Embedding
	suffix, side, dim := hfSuffixB, int64(t.Out()), 0
	if isA {
		suffix, side, dim = hfSuffixA, int64(t.In()), 1
	}
	if embedding {
		suffix, side, dim = hfEmbedB, int64(t.In()), 0
		if isA {
			suffix, side, dim = hfEmbeddingA, int64(t.Out()), 0
		}
	}
	shape := info.Shape
	if t.Expert >= 0 && len(shape) == 3 && shape[0] == m.NumExperts {
		shape = shape[1:]
	}
	if len(shape) != 2 || shape[dim] != side || (t.Expert >= 0) != (len(info.Shape) == 3) || shape[1-dim] < 1 {
		return nil, 0, "", hint.Add(fmt.Errorf("tensor %q: %w: shape %v does not fit a weight of %v", info.Name, tensor.ErrMalformed, info.Shape, tensor.Shape(t.Dims)),
			"give the model that the adapter was trained on")
	}
	rank := shape[1-dim]
	if t.Expert >= 0 {
		var out []tensor.Entry
		for _, x := range targets {
			part := tensor.Info{Name: x.Module() + suffix, DType: info.DType, Shape: shape}
			out = append(out, slice(g, info.Name, part, int64(x.Expert)*part.Size()))
		}
		return out, rank, unstack, nil
	}
	name := t.Module() + suffix
	order := between(m.GGUFRotary, m.Rotary, m.HeadDim)
	switch {
	case embedding && isA:
		return []tensor.Entry{transposed(g, codecs, info, name)}, rank, transpose, nil
	case !isA && t.RotaryHeads != nil && order != nil:
		return []tensor.Entry{reorder(g, codecs, info, name, order)}, rank, permute, nil
	}
	return []tensor.Entry{tensor.Forward(g, info, name)}, rank, "", nil
}

// IsAdapter reports whether the metadata is that of a GGUF adapter.
func IsAdapter(meta tensor.Meta) bool {
	kind, _ := tensor.Lookup[string](meta, gguf.KeyType)
	return kind == adapterType
}

// AdapterFacts is what a GGUF adapter's metadata and headers say of it.
type AdapterFacts struct {
	Architecture string
	Rank         int64 // of its first matrix
	Alpha        float64
	Targets      []string // modules by the last part of their names
}

// DescribeAdapter returns the facts of a GGUF adapter, as far as it has them.
func DescribeAdapter(g tensor.Source) AdapterFacts {
	var f AdapterFacts
	f.Architecture, _ = tensor.Lookup[string](g.Meta(), gguf.KeyArchitecture)
	alpha, _ := tensor.Lookup[float32](g.Meta(), keyAdapterAlpha)
	f.Alpha = float64(alpha)
	for info := range g.All() {
		name, isB := strings.CutSuffix(info.Name, ".weight"+suffixB)
		if !isB {
			continue
		}
		if f.Rank == 0 {
			f.Rank = info.Shape.Cols()
		}
		if short := name[strings.LastIndexByte(name, '.')+1:]; !slices.Contains(f.Targets, short) {
			f.Targets = append(f.Targets, short)
		}
	}
	return f
}

// AdapterAsNamed returns a GGUF adapter in the form that AdapterToGGUF takes, but with the
// names that it has, each expert of a stack a module of its own, and rows in GGUF's order; and
// its scale. It is for those who look at an adapter without its model.
func AdapterAsNamed(g tensor.Source, codecs tensor.Codecs) (*tensor.Table, AdapterScale, error) {
	alpha, _ := tensor.Lookup[float32](g.Meta(), keyAdapterAlpha)
	scale := AdapterScale{Alpha: float64(alpha)}
	var entries []tensor.Entry
	for info := range g.All() {
		nameA, isA := strings.CutSuffix(info.Name, suffixA)
		nameB, isB := strings.CutSuffix(info.Name, suffixB)
		module, suffix := strings.TrimSuffix(nameA, ".weight"), hfSuffixA
		if isB {
			module, suffix = strings.TrimSuffix(nameB, ".weight"), hfSuffixB
		}
		switch {
		case !isA && !isB:
			return nil, scale, fmt.Errorf("tensor %q: %w: neither a %s nor a %s", info.Name, tensor.ErrUnsupported, suffixA, suffixB)
		case len(info.Shape) == 3 && info.Shape.Elems() > 0:
			for e := range info.Shape[0] {
				part := tensor.Info{Name: fmt.Sprintf("%s.%d%s", module, e, suffix), DType: info.DType, Shape: info.Shape[1:]}
				entries = append(entries, slice(g, info.Name, part, e*part.Size()))
			}
		case isA && turned(g, info, nameA+suffixB):
			entries = append(entries, transposed(g, codecs, info, module+suffix))
		default:
			entries = append(entries, tensor.Forward(g, info, module+suffix))
		}
	}
	t, err := tensor.NewTable(g.Meta(), entries)
	return t, scale, err
}

// turned reports whether A is stored as [in, r], as that of the embeddings is.
func turned(g tensor.Source, a tensor.Info, nameB string) bool {
	b, err := g.Info(nameB)
	return err == nil && len(a.Shape) == 2 && len(b.Shape) == 2 && a.Shape[0] != b.Shape[1] && a.Shape[1] == b.Shape[1]
}
