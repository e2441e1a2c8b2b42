package arch

import (
	"slices"
	"strconv"
	"strings"
)

// Role says what a tensor does in the model, whatever the family calls it.
type Role uint8

// The roles of a decoder's tensors. A projection's weight and bias share one.
const (
	NoRole       Role = iota
	Embedding         // token embeddings, rows by token
	Position          // position embeddings, rows by position
	FinalNorm         // before the head
	Head              // hidden state to logits
	AttnNorm          // before attention
	QKV               // query, key and value in one projection
	Query             //
	Key               //
	Value             //
	QueryNorm         // of each head of the query
	KeyNorm           // of each head of the key
	AttnOut           // attention's output projection
	PostAttnNorm      // of attention's result
	MLPNorm           // before the MLP
	Router            // hidden state to the experts' scores
	GateUp            // gate and up in one projection
	Gate              // MLP projection through the activation
	Up                // MLP projection beside it
	Down              // MLP projection back
	SharedRouter      // hidden state to the shared expert's weight
	SharedGate        //
	SharedUp          //
	SharedDown        //
	PostMLPNorm       // of the MLP's result
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

// Template is one kind of tensor of a family. In the names, the first {} stands
// for the number of the layer and a second one for that of the expert.
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

	// Shape gives the dimensions in a checkpoint, outermost first. Of an expert
	// they are those of one.
	Shape func(c *Config) []int64

	// If says when a model has the tensor; nil is always. layer is -1 outside
	// the blocks.
	If func(c *Config, layer int) bool

	// Optional says that it may be there although If says otherwise, and is
	// then converted along: a head that is tied.
	Optional bool

	// RotaryHeads gives the number of heads whose rows the two rotary layouts
	// order differently; nil for a tensor that is not rotated.
	RotaryHeads func(c *Config) int64

	// Experts gives the number of experts, each of which has a tensor of its own
	// in a checkpoint; in GGUF they are stacked. nil for anything else.
	Experts func(c *Config) int64

	// PlusOne says that GGUF holds the weight plus 1 (Gemma's norms, which
	// scale by 1 + weight).
	PlusOne bool

	// Transposed says that a checkpoint holds the weight as [in, out] (GPT-2's
	// Conv1D); GGUF always has [out, in].
	Transposed bool

	// Wide says that GGUF has it as F32 whatever the other matrices are.
	Wide bool
}

// inBlock reports whether every block has one.
func (t *Template) inBlock() bool { return strings.Contains(t.HF, "{}") }

// short returns the last part of the module's name.
func (t *Template) short() string { return t.HF[strings.LastIndexByte(t.HF, '.')+1:] }

// Tensor is one tensor a model has.
type Tensor struct {
	*Template

	// Layer is the number of the block, -1 outside the blocks; Expert that of
	// the expert, -1 for what is not one's.
	Layer, Expert int

	// Name is the checkpoint's name, GGUFName the one in GGUF, which all experts
	// of a layer share.
	Name, GGUFName string

	// Dims are the dimensions in a checkpoint.
	Dims []int64
}

// Module returns the name of the module the tensor belongs to: Name without
// its last part.
func (t Tensor) Module() string { return strings.TrimSuffix(t.Name, "."+t.Part) }

// Out and In return the widths of the linear layer whose weight this is.
func (t Tensor) Out() int { return int(t.Dims[t.axis(0)]) }
func (t Tensor) In() int  { return int(t.Dims[t.axis(1)]) }

func (t Tensor) axis(i int) int {
	if t.Transposed {
		return 1 - i
	}
	return i
}

// GGUFDims returns the dimensions in GGUF, outermost first, for a stack of
// that many experts (0 for what is not one's).
func (t Tensor) GGUFDims(experts int64) []int64 {
	dims := slices.Clone(t.Dims)
	if t.Transposed {
		slices.Reverse(dims)
	}
	if experts > 0 {
		dims = append([]int64{experts}, dims...)
	}
	return dims
}

// Model is a family with the numbers of one model.
type Model struct {
	*Family
	*Config
}

// Tensors returns every tensor of the model in the order of computation:
// embeddings, the blocks, the final norm, the head. A tied head is not among
// them.
func (m *Model) Tensors() []Tensor {
	var out []Tensor
	blocks := false
	for i := range m.Family.Tensors {
		t := &m.Family.Tensors[i]
		switch {
		case t.inBlock() && !blocks:
			blocks = true
			for l := range int(m.NumHiddenLayers) {
				out = append(out, m.Block(l)...)
			}
		case !t.inBlock() && m.has(t, -1):
			out = append(out, m.tensor(t, -1, -1))
		}
	}
	return out
}

// Block returns the tensors of one block, in the order of computation; those of
// one expert follow each other.
func (m *Model) Block(layer int) []Tensor {
	var out []Tensor
	var experts []*Template
	flush := func() {
		if len(experts) > 0 {
			for e := range int(experts[0].Experts(m.Config)) {
				for _, t := range experts {
					out = append(out, m.tensor(t, layer, e))
				}
			}
		}
		experts = nil
	}
	for i := range m.Family.Tensors {
		t := &m.Family.Tensors[i]
		switch {
		case !t.inBlock() || !m.has(t, layer):
		case t.Experts != nil:
			experts = append(experts, t)
		default:
			flush()
			out = append(out, m.tensor(t, layer, -1))
		}
	}
	flush()
	return out
}

// Find returns the tensor of a role and part; layer is -1 outside the blocks.
// Of experts' tensors it finds none.
func (m *Model) Find(role Role, part string, layer int) (Tensor, bool) {
	if t := m.template(role, part, layer, false); t != nil {
		return m.tensor(t, layer, -1), true
	}
	return Tensor{}, false
}

// FindExpert returns the tensor of a role that one expert of a layer has.
func (m *Model) FindExpert(role Role, layer, expert int) (Tensor, bool) {
	if t := m.template(role, "weight", layer, true); t != nil {
		return m.tensor(t, layer, expert), true
	}
	return Tensor{}, false
}

// NameOf returns the checkpoint's name for the weight of a role outside the blocks,
// whether or not the model has it: a tied head has a name.
func (m *Model) NameOf(role Role) string {
	for i := range m.Family.Tensors {
		if t := &m.Family.Tensors[i]; t.Role == role && t.Part == "weight" && !t.inBlock() {
			return m.tensor(t, -1, -1).Name
		}
	}
	return ""
}

func (m *Model) template(role Role, part string, layer int, expert bool) *Template {
	for i := range m.Family.Tensors {
		t := &m.Family.Tensors[i]
		if t.Role == role && t.Part == part && t.inBlock() == (layer >= 0) && (t.Experts != nil) == expert && m.has(t, layer) {
			return t
		}
	}
	return nil
}

// Extras returns the tensors that the model may have beside Tensors.
func (m *Model) Extras() []Tensor {
	var out []Tensor
	for i := range m.Family.Tensors {
		if t := &m.Family.Tensors[i]; t.Optional && !t.inBlock() && !m.has(t, -1) {
			out = append(out, m.tensor(t, -1, -1))
		}
	}
	return out
}

func (m *Model) has(t *Template, layer int) bool { return t.If == nil || t.If(m.Config, layer) }

func (m *Model) tensor(t *Template, layer, expert int) Tensor {
	name := strings.Replace(t.HF, "{}", strconv.Itoa(layer), 1)
	return Tensor{
		Template: t,
		Layer:    layer,
		Expert:   expert,
		Name:     strings.Replace(name, "{}", strconv.Itoa(expert), 1) + "." + t.Part,
		GGUFName: strings.Replace(t.GGUF, "{}", strconv.Itoa(layer), 1) + "." + t.Part,
		Dims:     t.Shape(m.Config),
	}
}

// NumParams returns the number of parameters of the model.
func (m *Model) NumParams() int64 {
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

// FanInFanOut reports whether the family stores the weights of linear layers as
// [in, out], in PEFT's words.
func (m *Model) FanInFanOut() bool {
	return slices.ContainsFunc(m.Block(0), func(t Tensor) bool { return t.Transposed })
}

// LinearModules returns the short names of the linear layers inside a block
// ("q_proj"), in order: what "all-linear" means.
func (m *Model) LinearModules() []string {
	var out []string
	for i := range m.Family.Tensors {
		if t := &m.Family.Tensors[i]; t.Linear && !slices.Contains(out, t.short()) {
			out = append(out, t.short())
		}
	}
	return out
}
