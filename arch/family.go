package arch

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Role says what a tensor does in the model, whatever the family calls it.
type Role uint8

// The roles of a decoder's tensors. A projection's weight and bias share one.
const (
	NoRole    Role = iota
	Embedding      // token embeddings, rows by token
	FinalNorm      // before the head
	Head           // hidden state to logits
	AttnNorm       // before attention
	Query          //
	Key            //
	Value          //
	AttnOut        // attention's output projection
	MLPNorm        // before the MLP
	Gate           // MLP projection through the activation
	Up             // MLP projection beside it
	Down           // MLP projection back
)

// Rotary is how the two halves of each rotated pair lie in a head.
type Rotary uint8

const (
	// HalfSplit pairs element i with element i + headDim/2, as transformers'
	// Llama does (GPT-NeoX order).
	HalfSplit Rotary = iota
	// Interleaved pairs element 2i with element 2i+1, as Meta's Llama and GGUF's
	// llama do (GPT-J order).
	Interleaved
)

// Template is one kind of tensor of a family. In the names, {} stands for the
// number of the layer.
type Template struct {
	Role Role

	// HF and GGUF are the names, without the ".weight" or ".bias" that Part
	// says.
	HF, GGUF string

	// Part is "weight" or "bias".
	Part string

	// Linear marks the weight of a linear layer inside a block: what is
	// quantized, and what gets an adapter.
	Linear bool

	// Shape gives the dimensions, outermost first.
	Shape func(c *Config) []int64

	// If says when a model has the tensor; nil is always.
	If func(c *Config) bool

	// RotaryHeads gives the number of heads whose rows the two rotary layouts
	// order differently; nil for a tensor that is not rotated.
	RotaryHeads func(c *Config) int64
}

// Family is one table of how its models are made.
type Family struct {
	// Name is GGUF's general.architecture.
	Name string

	// ModelType is config.json's model_type, Class its architectures entry.
	ModelType, Class string

	// Activation is config.json's hidden_act.
	Activation string

	// Rotary and GGUFRotary are the layouts of checkpoints and of GGUF files.
	Rotary, GGUFRotary Rotary

	Tensors []Template
}

// Families returns every family nibble knows.
func Families() []*Family {
	return []*Family{llama}
}

func lookup(c *Config) (*Family, error) {
	var known []string
	for _, f := range Families() {
		if c.ModelType == f.ModelType || c.ModelType == "" && slices.Contains(c.Architectures, f.Class) {
			return f, nil
		}
		known = append(known, f.ModelType)
	}
	return nil, fmt.Errorf("%w: model_type %q (known: %s)", ErrUnsupported, c.ModelType, strings.Join(known, ", "))
}

// ByGGUF returns the family of a GGUF file's general.architecture.
func ByGGUF(name string) (*Family, error) {
	var known []string
	for _, f := range Families() {
		if f.Name == name {
			return f, nil
		}
		known = append(known, f.Name)
	}
	return nil, fmt.Errorf("%w: general.architecture %q (known: %s)", ErrUnsupported, name, strings.Join(known, ", "))
}

// Model is a family with the numbers of one model.
type Model struct {
	*Family
	*Config
}

// Tensor is one tensor a model has.
type Tensor struct {
	*Template

	// Layer is the number of the block, -1 outside the blocks.
	Layer int

	// Name is the checkpoint's name, GGUFName the one in GGUF.
	Name, GGUFName string

	Dims []int64
}

// Module returns the name of the module the tensor belongs to: Name without
// its last part.
func (t Tensor) Module() string { return strings.TrimSuffix(t.Name, "."+t.Part) }

// Tensors returns every tensor of the model in the order of computation:
// embeddings, the blocks, the final norm, the head. A tied head is not among
// them.
func (m *Model) Tensors() []Tensor {
	var out []Tensor
	for _, t := range m.outside(false) {
		out = append(out, m.tensor(t, -1))
	}
	for l := range int(m.NumHiddenLayers) {
		out = append(out, m.Block(l)...)
	}
	for _, t := range m.outside(true) {
		out = append(out, m.tensor(t, -1))
	}
	return out
}

// outside returns the templates outside the blocks that come before or after
// them in the table.
func (m *Model) outside(after bool) []*Template {
	var out []*Template
	seen := false
	for i := range m.Family.Tensors {
		t := &m.Family.Tensors[i]
		if strings.Contains(t.HF, "{}") {
			seen = true
		} else if seen == after && m.has(t) {
			out = append(out, t)
		}
	}
	return out
}

// Block returns the tensors of one block, in the order of computation.
func (m *Model) Block(layer int) []Tensor {
	var out []Tensor
	for i := range m.Family.Tensors {
		if t := &m.Family.Tensors[i]; strings.Contains(t.HF, "{}") && m.has(t) {
			out = append(out, m.tensor(t, layer))
		}
	}
	return out
}

// Find returns the tensor of a role and part; layer is -1 outside the blocks.
func (m *Model) Find(role Role, part string, layer int) (Tensor, bool) {
	for i := range m.Family.Tensors {
		t := &m.Family.Tensors[i]
		if t.Role == role && t.Part == part && strings.Contains(t.HF, "{}") == (layer >= 0) && m.has(t) {
			return m.tensor(t, layer), true
		}
	}
	return Tensor{}, false
}

func (m *Model) has(t *Template) bool { return t.If == nil || t.If(m.Config) }

func (m *Model) tensor(t *Template, layer int) Tensor {
	n := strconv.Itoa(layer)
	return Tensor{
		Template: t,
		Layer:    layer,
		Name:     strings.ReplaceAll(t.HF, "{}", n) + "." + t.Part,
		GGUFName: strings.ReplaceAll(t.GGUF, "{}", n) + "." + t.Part,
		Dims:     t.Shape(m.Config),
	}
}

// Params returns the number of parameters of the model.
func (m *Model) Params() int64 {
	var n int64
	for _, t := range m.Tensors() {
		e := int64(1)
		for _, d := range t.Dims {
			e *= d
		}
		n += e
	}
	return n
}

// LinearModules returns the short names of the linear layers inside a block
// ("q_proj"), in order: what "all-linear" means.
func (m *Model) LinearModules() []string {
	var out []string
	for i := range m.Family.Tensors {
		if t := &m.Family.Tensors[i]; t.Linear {
			out = append(out, t.HF[strings.LastIndexByte(t.HF, '.')+1:])
		}
	}
	return out
}
