package ftype

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/seed18967229/nibble/tensor"
)

// Options say how the choice is made.
type Options struct {
	Type Type

	// Pure stores every matrix as the base type.
	Pure bool

	// Output and Embedding, unless Invalid, are the types of output.weight and of
	// the token embedding.
	Output, Embedding tensor.DType

	// LeaveOutput keeps output.weight as it is.
	LeaveOutput bool

	// Overrides are types for tensors by name. The first that matches counts.
	Overrides []Override

	// Imatrix says that there is an importance matrix.
	Imatrix bool
}

// Override is the type of the tensors whose name has a match of Pattern.
type Override struct {
	Pattern *regexp.Regexp
	DType   tensor.DType
}

// ParseOverride reads PATTERN=TYPE. As in llama-quantize the pattern, a regular
// expression, is put in lower case.
func ParseOverride(s string) (Override, error) {
	pattern, name, ok := strings.Cut(s, "=")
	if !ok || pattern == "" || name == "" {
		return Override{}, fmt.Errorf("%q is not of the form PATTERN=TYPE", s)
	}
	d, err := ParseDType(name)
	if err != nil {
		return Override{}, err
	}
	re, err := regexp.Compile(strings.ToLower(pattern))
	if err != nil {
		return Override{}, fmt.Errorf("pattern %q: %w", pattern, err)
	}
	return Override{re, d}, nil
}

// Choice is what a tensor is stored as.
type Choice struct {
	// In is the tensor as it was given, Out as it is stored: of In's shape
	// without outer dimensions of 1, which ggml does not keep.
	In, Out tensor.Info

	// Why says in some words what the type follows from.
	Why string

	// Fallback says why it is not the type that the rules have for it, "" if it
	// is.
	Fallback string

	// NeedsImatrix says that llama.cpp will not make such a tensor without
	// knowing what matters in it.
	NeedsImatrix bool
}

// Keeps reports whether the tensor stays as it is.
func (c Choice) Keeps() bool { return c.In.DType == c.Out.DType }

// Choose returns what each tensor of a model is stored as, in the order of the
// file.
func Choose(tensors []tensor.Info, m Model, o Options) ([]Choice, error) {
	x, ok := mixes[o.Type]
	if !ok {
		return nil, fmt.Errorf("%w: file type %v", tensor.ErrUnsupported, o.Type)
	}
	sorted := slices.SortedFunc(slices.Values(tensors), inFileOrder)
	c := chooser{m: &m, o: &o, mix: x, tied: true}
	for _, t := range sorted {
		k := kindOf(t.Name)
		if k == value {
			c.values++
		}
		c.tied = c.tied && k != head
	}
	out := make([]Choice, len(sorted))
	for i, t := range sorted {
		var err error
		if out[i], err = c.choose(t); err != nil {
			return nil, fmt.Errorf("tensor %q: %w", t.Name, err)
		}
	}
	return out, nil
}

// inFileOrder puts tensors of no layer first, then goes by layer and name.
func inFileOrder(a, b tensor.Info) int {
	la, _ := layerOf(a.Name)
	lb, _ := layerOf(b.Name)
	return cmp.Or(cmp.Compare(la, lb), cmp.Compare(a.Name, b.Name))
}

// layerOf returns the layer that a name begins with, and whether it does; -1 if
// not.
func layerOf(name string) (int, bool) {
	rest, ok := strings.CutPrefix(name, "blk.")
	if !ok {
		return -1, false
	}
	n, digits := 0, 0
	for ; digits < len(rest) && rest[digits] >= '0' && rest[digits] <= '9'; digits++ {
		n = min(n*10+int(rest[digits]-'0'), 1<<31-1)
	}
	if digits == 0 {
		return -1, false
	}
	return n, true
}

// chooser has what is counted on the way through the tensors.
type chooser struct {
	m    *Model
	o    *Options
	mix  mix
	tied bool // the token embedding is the output matrix too

	values      int // how many tensors are attn_v or like it
	value, down int // which of those, and of ffn_down, comes next
}

// choose chooses for the next tensor.
func (c *chooser) choose(t tensor.Info) (Choice, error) {
	out := Choice{In: t, Out: tensor.Info{Name: t.Name, DType: t.DType, Shape: trim(t.Shape)}}
	if why := kept(out.Out, c.o.LeaveOutput); why != "" {
		out.Why = why
		return out, nil
	}
	k := kindOf(t.Name)
	d, why, err := c.pick(out.Out, k)
	if err != nil {
		return out, err
	}
	out.Out.DType, out.Why = d, why
	if block, _ := d.Block(); !c.asked(t.Name, k) {
		out.Out.DType, out.Fallback, err = fit(d, t.Shape.Cols())
	} else if t.Shape.Cols()%block != 0 {
		err = fmt.Errorf("%w: %s asks for %v, whose blocks of %d rows of %d do not divide into", tensor.ErrUnsupported, why, d, block, t.Shape.Cols())
	}
	if err != nil {
		return out, err
	}
	out.NeedsImatrix = k != embedding && k != head && (needImatrix[out.Out.DType] || c.o.Type == Q2_K_S && out.Out.DType == tensor.Q2_K)
	return out, nil
}

// trim drops outer dimensions of 1.
func trim(s tensor.Shape) tensor.Shape {
	for len(s) > 1 && s[0] == 1 {
		s = s[1:]
	}
	return s
}

// needImatrix are the types of tensors that llama.cpp makes with an importance
// matrix only.
var needImatrix = map[tensor.DType]bool{
	tensor.IQ1_S: true, tensor.IQ1_M: true, tensor.IQ2_XXS: true, tensor.IQ2_XS: true, tensor.IQ2_S: true, tensor.IQ3_XXS: true,
}

// asked reports whether the type is what --token-embedding-type or
// --output-tensor-type asks for, from which there is no falling back.
func (c *chooser) asked(name string, k kind) bool {
	switch k {
	case embedding:
		// The table of embeddings for each layer is large, so a pattern may name it.
		return c.o.Embedding != tensor.Invalid && (name != perLayerEmbedding || c.override(name) == nil)
	case head:
		return c.o.Output != tensor.Invalid
	}
	return false
}

func (c *chooser) override(name string) *Override {
	i := slices.IndexFunc(c.o.Overrides, func(o Override) bool { return o.Pattern.MatchString(name) })
	if i < 0 {
		return nil
	}
	return &c.o.Overrides[i]
}

// pick returns the type of a matrix by what the user or else the mix says,
// whatever the length of its rows.
func (c *chooser) pick(t tensor.Info, k kind) (tensor.DType, string, error) {
	if c.asked(t.Name, k) {
		if k == head {
			return c.o.Output, "--output-tensor-type", nil
		}
		return c.o.Embedding, "--token-embedding-type", nil
	}
	if o := c.override(t.Name); o != nil {
		return o.DType, "--tensor-type " + o.Pattern.String(), nil
	}
	if c.o.Pure {
		return c.mix.base, "--pure", nil
	}
	return c.byMix(t, k)
}

// byMix returns the type that the mix has for a matrix.
func (c *chooser) byMix(t tensor.Info, k kind) (tensor.DType, string, error) {
	base := c.mix.base
	if k == head || k == embedding && c.tied {
		return c.outputType(t)
	}
	if c.o.Type == MXFP4_MOE {
		// In BailingMoE 3 other matrices than experts have three dimensions.
		if len(t.Shape) > 2 && (c.m.Arch != "bailingmoe3" || k == up || k == gate || k == down) {
			return tensor.MXFP4, "experts", nil
		}
		return tensor.Q8_0, "not of experts", nil
	}
	switch k {
	case embedding:
		if c.mix.embedding != tensor.Invalid {
			return c.mix.embedding, "token embedding", nil
		}
	case value:
		d, why := c.valueType()
		c.value++
		return d, why, nil
	case key:
		if c.m.Experts == 8 {
			return tensor.Q8_0, "attn_k beside eight experts", nil
		}
	case up, gate:
		if _, err := c.layer(t.Name, 0); err != nil {
			return base, "", err
		}
	case down:
		i, err := c.layer(t.Name, c.down)
		c.down++
		if err != nil {
			return base, "", err
		}
		if d, why := c.apply(c.mix.down, i, c.m.Blocks); d != tensor.Invalid {
			return d, reason("ffn_down", why), nil
		}
	case attnOutput:
		if d, why := c.attnOutputType(); d != tensor.Invalid {
			return d, why, nil
		}
	}
	return base, "", nil
}

func reason(what, why string) string {
	if why == "" {
		return what
	}
	return what + " " + why
}

func (c *chooser) apply(r rule, i, n int) (tensor.DType, string) {
	if r == nil {
		return tensor.Invalid, ""
	}
	return r(place{c.m, c.o.Imatrix, i, n})
}

// outputType is the type of the matrix that gives the logits.
func (c *chooser) outputType(t tensor.Info) (tensor.DType, string, error) {
	why := "output"
	if c.tied {
		why = "token embedding that is the output too"
	}
	block, _ := c.mix.base.Block()
	switch {
	case c.o.Output != tensor.Invalid:
		return c.o.Output, "--output-tensor-type", nil
	case c.o.Type == MXFP4_MOE, c.m.Arch == "falcon", t.Shape.Cols()%block != 0, c.mix.base == tensor.Q8_0:
		return tensor.Q8_0, why, nil
	}
	return tensor.Q6_K, why, nil
}

// valueType is the type of attn_v, or of what it is part of.
func (c *chooser) valueType() (tensor.DType, string) {
	if c.m.Experts == 8 {
		return tensor.Q8_0, "attn_v beside eight experts"
	}
	d, why := c.apply(c.mix.value, c.value, c.values)
	if d == tensor.Invalid {
		d = c.mix.base
	} else {
		why = reason("attn_v", why)
	}
	if (d == tensor.Q3_K || d == tensor.Q4_K) && c.m.large() {
		return tensor.Q5_K, "attn_v of a 70B model"
	}
	return d, why
}

func (c *chooser) attnOutputType() (tensor.DType, string) {
	switch {
	case c.m.Arch == "falcon":
		return c.mix.falconO, "attn_output"
	case c.m.Experts == 8:
		if c.mix.eight {
			return tensor.Q5_K, "attn_output beside eight experts"
		}
		return tensor.Invalid, ""
	}
	d, _ := c.apply(c.mix.output, 0, 0)
	return d, "attn_output"
}

// layer returns which of its like a tensor of a feed-forward network is: the
// count, or with experts, of which a layer may have several tensors or none, the
// layer in its name.
func (c *chooser) layer(name string, count int) (int, error) {
	if c.m.Experts <= 1 {
		return count, nil
	}
	l, ok := layerOf(name)
	if !ok || l >= c.m.Blocks {
		return 0, fmt.Errorf("%w: of a feed-forward network, and not of one of the model's %d layers", tensor.ErrUnsupported, c.m.Blocks)
	}
	return l, nil
}
