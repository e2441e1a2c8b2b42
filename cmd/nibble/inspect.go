package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/seed18967229/nibble/formats"
	"github.com/seed18967229/nibble/formats/vocab"
	"github.com/seed18967229/nibble/internal/memory"
	"github.com/seed18967229/nibble/merge"
	"github.com/seed18967229/nibble/nf4"
	"github.com/seed18967229/nibble/tensor"
)

func (a *app) inspectCommand() *cobra.Command {
	var tensors bool
	cmd := &cobra.Command{
		Use:     "inspect IN",
		Short:   "Show what a model, adapter or file of tensors is, from its headers",
		Example: "  nibble inspect stories260K\n  nibble inspect model.gguf --tensors",
		Args:    exactArgs(1),
		RunE:    func(_ *cobra.Command, args []string) error { return a.inspect(args[0], tensors) },
	}
	cmd.Flags().BoolVar(&tensors, "tensors", false, "list every tensor")
	return cmd
}

type inspectResult struct {
	Path   string `json:"path"`
	Format string `json:"format"`

	Model   *modelFacts   `json:"model,omitempty"`
	Adapter *adapterFacts `json:"adapter,omitempty"`

	Parameters    int64          `json:"parameters"`
	Bytes         int64          `json:"bytes"`
	BitsPerWeight float64        `json:"bits_per_weight"`
	Types         map[string]int `json:"types"`
	Quantization  string         `json:"quantization,omitempty"`

	Tensors []tensorFacts `json:"tensors,omitempty"`

	count  int
	sorted []string // types in order of appearance
}

type modelFacts struct {
	Family       string `json:"family"`
	Class        string `json:"class"`
	Blocks       int64  `json:"blocks"`
	Hidden       int64  `json:"hidden_size"`
	Heads        int64  `json:"num_attention_heads"`
	KVHeads      int64  `json:"num_key_value_heads"`
	HeadDim      int64  `json:"head_dim"`
	Intermediate int64  `json:"intermediate_size"`
	Vocab        int64  `json:"vocab_size"`
	Context      int64  `json:"max_position_embeddings"`
	Tied         bool   `json:"tie_word_embeddings"`
	Tokenizer    string `json:"tokenizer"`
}

type adapterFacts struct {
	Type    string   `json:"peft_type"`
	Base    string   `json:"base_model_name_or_path,omitempty"`
	Rank    int64    `json:"r"`
	Alpha   float64  `json:"lora_alpha"`
	Scale   float64  `json:"scale"`
	Targets []string `json:"target_modules"`
}

type tensorFacts struct {
	Name  string       `json:"name"`
	DType string       `json:"dtype"`
	Shape tensor.Shape `json:"shape"`
	Bytes int64        `json:"bytes"`
}

func (a *app) inspect(path string, tensors bool) error {
	in, err := formats.Open(path)
	if err != nil {
		return err
	}
	defer in.Close()
	r := &inspectResult{Path: path, Format: string(in.Kind), Types: make(map[string]int)}
	var src tensor.Source = in
	if in.Kind == formats.HF || in.Kind == formats.GGUF {
		m := &model{Input: in}
		if err := m.understand(); err != nil {
			// The tensors can be shown all the same.
			a.note("%v", err)
		} else {
			src = m.view
			r.Model = m.facts()
		}
	}
	if in.Adapter != nil {
		c := in.Adapter.Config
		r.Adapter = &adapterFacts{Type: c.PeftType, Base: c.BaseModel, Rank: c.R, Alpha: c.LoraAlpha, Scale: c.Scaling(), Targets: targets(in.Adapter)}
	}
	for info := range src.All() {
		kind := describe(src, info)
		if r.Types[kind] == 0 {
			r.sorted = append(r.sorted, kind)
		}
		r.Types[kind]++
		r.count++
		r.Parameters += info.Shape.Elems()
		r.Bytes += info.Size()
		if !info.DType.Float() && r.Quantization == "" {
			r.Quantization = kind
		}
		if tensors {
			r.Tensors = append(r.Tensors, tensorFacts{info.Name, kind, info.Shape, info.Size()})
		}
	}
	if r.Parameters > 0 {
		r.BitsPerWeight = 8 * float64(r.Bytes) / float64(r.Parameters)
	}
	return a.print(r)
}

// targets lists the modules an adapter changes, by the last part of their
// names, in order of appearance.
func targets(src tensor.Source) []string {
	var out []string
	seen := make(map[string]bool)
	for info := range src.All() {
		module, ok := merge.ModuleOf(info.Name)
		short := module[strings.LastIndexByte(module, '.')+1:]
		if ok && !seen[short] {
			seen[short] = true
			out = append(out, short)
		}
	}
	return out
}

// describe names a tensor's type, with the block size of one that has it as a
// parameter.
func describe(src tensor.Source, info tensor.Info) string {
	h, err := nf4.Describe(src, info.Name)
	if !info.DType.Opaque() || err != nil {
		return info.DType.String()
	}
	s := fmt.Sprintf("%v block %d", info.DType, h.BlockSize)
	if h.Double {
		s += " double-quantized"
	}
	return s
}

// tokenizerKinds are the names that people know.
var tokenizerKinds = map[vocab.Kind]string{vocab.SPM: "SentencePiece BPE", vocab.BPE: "byte-level BPE"}

func (m *model) facts() *modelFacts {
	f := &modelFacts{
		Family: m.arch.Name, Class: m.arch.Class, Blocks: m.arch.NumHiddenLayers, Hidden: m.arch.HiddenSize,
		Heads: m.arch.NumAttentionHeads, KVHeads: m.arch.NumKeyValueHeads, HeadDim: m.arch.HeadDim,
		Intermediate: m.arch.IntermediateSize, Vocab: m.arch.VocabSize, Context: m.arch.MaxPositionEmbeddings,
		Tied: m.arch.TieWordEmbeddings, Tokenizer: "none",
	}
	if v, err := m.vocab(); err == nil {
		f.Tokenizer = fmt.Sprintf("%s, %d tokens", tokenizerKinds[v.Kind], len(v.Pieces))
		if v.ChatTemplate != "" {
			f.Tokenizer += ", chat template"
		}
	} else {
		f.Tokenizer = errorText(err)
	}
	return f
}

func (r *inspectResult) text(w io.Writer) {
	fmt.Fprintf(w, "%s: %s\n", r.Path, r.Format)
	line := func(name, format string, args ...any) {
		fmt.Fprintf(w, "  %-13s %s\n", name, fmt.Sprintf(format, args...))
	}
	if m := r.Model; m != nil {
		line("family", "%s (%s)", m.Family, m.Class)
		line("shape", "%d blocks, hidden %d, %d heads of %d (%d key/value), MLP %d", m.Blocks, m.Hidden, m.Heads, m.HeadDim, m.KVHeads, m.Intermediate)
		tied := ""
		if m.Tied {
			tied = ", head tied to the embeddings"
		}
		line("vocabulary", "%d, context %d%s", m.Vocab, m.Context, tied)
		line("tokenizer", "%s", m.Tokenizer)
	}
	if f := r.Adapter; f != nil {
		line("type", "%s, rank %d, alpha %g, scale %.4g", f.Type, f.Rank, f.Alpha, f.Scale)
		line("targets", "%s", strings.Join(f.Targets, ", "))
		if f.Base != "" {
			line("base", "%s", f.Base)
		}
	}
	line("parameters", "%s", thousands(r.Parameters))
	line("size", "%s, %.2f bits per weight", memory.FormatSize(r.Bytes), r.BitsPerWeight)
	var types []string
	for _, t := range r.sorted {
		types = append(types, fmt.Sprintf("%d %s", r.Types[t], t))
	}
	line("tensors", "%d: %s", r.count, strings.Join(types, ", "))
	for _, t := range r.Tensors {
		fmt.Fprintf(w, "  %-60s %-8s %-16v %12s\n", t.Name, t.DType, t.Shape, memory.FormatSize(t.Bytes))
	}
}

// thousands writes a number with commas.
func thousands(n int64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
