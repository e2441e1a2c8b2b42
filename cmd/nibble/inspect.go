package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/formats"
	"github.com/seed18967229/nibble/formats/convert"
	"github.com/seed18967229/nibble/formats/quantized"
	"github.com/seed18967229/nibble/internal/memory"
	"github.com/seed18967229/nibble/merge"
	"github.com/seed18967229/nibble/nf4"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/tensor/scaled"
)

func (a *app) inspectCommand() *cobra.Command {
	var o inspectOptions
	cmd := &cobra.Command{
		Use:   "inspect IN",
		Short: "Show what a model, adapter or file of tensors is",
		Long: `Show what a model, adapter or file of tensors is. Only headers are read.

--stats reads every value as well: smallest, largest, mean, standard deviation,
largest magnitude, and how many are zero, NaN or infinite. --plot draws how the
magnitudes are distributed.`,
		Example: "  nibble inspect stories260K\n  nibble inspect model.gguf --tensors\n  nibble inspect model.gguf --stats --plot weights.png",
		Args:    exactArgs(1),
		RunE:    func(cmd *cobra.Command, args []string) error { return a.inspect(cmd.Context(), args[0], o) },
	}
	f := cmd.Flags()
	f.BoolVar(&o.tensors, "tensors", false, "list every tensor")
	f.BoolVar(&o.stats, "stats", false, "read all values and list statistics of every tensor")
	f.StringVar(&o.plot, "plot", "", "draw the magnitudes of the weights into this PNG file; implies --stats")
	return cmd
}

// inspectOptions are the flags of inspect.
type inspectOptions struct {
	tensors, stats bool
	plot           string
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
	Shards        []shardFacts   `json:"shards"`

	// Nested is where in the file the tensors are, NotRead what else is there.
	Nested  string   `json:"nested,omitempty"`
	NotRead []string `json:"not_read,omitempty"`

	// NotDecoded is why nothing but their headers can be read of the weights.
	NotDecoded string `json:"not_decoded,omitempty"`

	Tensors []tensorFacts `json:"tensors,omitempty"`

	// Values are statistics of all tensors together, Magnitudes counts them by
	// octave, without 0 and what is too small for an exponent of its own; Plot is
	// the picture.
	Values     *valueFacts `json:"values,omitempty"`
	Magnitudes []octave    `json:"magnitudes,omitempty"`
	Plot       string      `json:"plot,omitempty"`

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

	Values *valueFacts `json:"values,omitempty"`
}

// shardFacts are of a file that tensors are in.
type shardFacts struct {
	Name  string `json:"name"`
	Bytes int64  `json:"bytes"`
}

func (a *app) inspect(ctx context.Context, path string, o inspectOptions) error {
	o.stats = o.stats || o.plot != ""
	in, err := formats.Open(path)
	if err != nil {
		return err
	}
	defer in.Close()
	picture, err := a.createPlot(o.plot, path)
	if err != nil {
		return err
	}
	if picture != nil {
		defer picture.Abort()
	}
	r := &inspectResult{Path: path, Format: string(in.Kind), Types: make(map[string]int), Shards: shards(in), Nested: nested(in), NotRead: notRead(in)}
	var src tensor.Source = in
	var known *arch.Model
	if isModel(in) {
		m := &model{Input: in}
		if err := m.understand(); err != nil {
			// The tensors can be shown all the same.
			a.note("%v", err)
		} else {
			src, known = m.asStored(), m.arch
		}
		if m.arch != nil {
			r.Model = m.facts()
		}
	}
	if in.HF != nil {
		if r.Quantization, err = quantized.Describe(in, in.HF.Config()); err != nil && r.Quantization != "" {
			r.NotDecoded = errorText(err)
		}
	}
	if in.Adapter != nil {
		c := in.Adapter.Config
		r.Adapter = &adapterFacts{Type: c.PeftType, Base: c.BaseModel, Rank: c.R, Alpha: c.LoraAlpha, Scale: c.Scaling(), Targets: targets(in.Adapter)}
	}
	if in.GGUF != nil && convert.IsAdapter(in.Meta()) {
		f := convert.DescribeAdapter(in)
		r.Adapter = &adapterFacts{Type: "LORA of " + f.Architecture, Rank: f.Rank, Alpha: f.Alpha, Scale: f.Alpha / float64(max(1, f.Rank)), Targets: f.Targets}
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
		if o.tensors || o.stats {
			r.Tensors = append(r.Tensors, tensorFacts{Name: info.Name, DType: kind, Shape: info.Shape, Bytes: info.Size()})
		}
	}
	if r.Parameters > 0 {
		r.BitsPerWeight = 8 * float64(r.Bytes) / float64(r.Parameters)
	}
	if !o.stats {
		return a.print(r)
	}
	s, err := a.survey(ctx, src, known)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	for i := range r.Tensors {
		r.Tensors[i].Values = s.tensors[r.Tensors[i].Name]
	}
	r.Values, r.Magnitudes, r.Plot = s.total.facts(), s.octaves(), o.plot
	if picture != nil {
		png, err := s.plot("Magnitudes of the weights of " + filepath.Base(path))
		if err != nil {
			return err
		}
		if _, err := picture.Write(png); err != nil {
			return fmt.Errorf("%s: %w", o.plot, err)
		}
		if err := picture.Commit(); err != nil {
			return err
		}
	}
	return a.print(r)
}

// isModel reports whether the input has what tells a model from a file of tensors.
func isModel(in *formats.Input) bool {
	return in.HF != nil || in.GGUF != nil && !convert.IsAdapter(in.Meta())
}

// shards lists the files that the tensors of an input are in.
func shards(in *formats.Input) []shardFacts {
	var out []shardFacts
	for _, path := range in.Paths() {
		if st, err := os.Stat(path); err == nil {
			out = append(out, shardFacts{filepath.Base(path), st.Size()})
		}
	}
	return out
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
	if !info.DType.Opaque() {
		return info.DType.String()
	}
	if h, err := scaled.Describe(src, info.Name); err == nil {
		return h.Kind()
	}
	h, err := nf4.Describe(src, info.Name)
	if err != nil {
		return info.DType.String()
	}
	s := fmt.Sprintf("%v block %d", info.DType, h.BlockSize)
	if h.Double {
		s += " double-quantized"
	}
	return s
}

func (m *model) facts() *modelFacts {
	f := &modelFacts{
		Family: m.arch.Name, Class: m.arch.Classes[0], Blocks: m.arch.NumHiddenLayers, Hidden: m.arch.HiddenSize,
		Heads: m.arch.NumAttentionHeads, KVHeads: m.arch.NumKeyValueHeads, HeadDim: m.arch.HeadDim,
		Intermediate: m.arch.IntermediateSize, Vocab: m.arch.VocabSize, Context: m.arch.MaxPositionEmbeddings,
		Tied: m.arch.TieWordEmbeddings, Tokenizer: "none",
	}
	if t, err := m.describeVocab(); err == nil {
		f.Tokenizer = fmt.Sprintf("%s, %d tokens", t.Type, t.Tokens)
		if t.ChatTemplate {
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
	switch {
	case r.NotDecoded != "":
		line("quantization", "%s, which is not decoded", r.Quantization)
	case r.Quantization != "":
		line("quantization", "%s", r.Quantization)
	}
	line("parameters", "%s", thousands(r.Parameters))
	line("size", "%s, %.2f bits per weight", memory.FormatSize(r.Bytes), r.BitsPerWeight)
	var types []string
	for _, t := range r.sorted {
		types = append(types, fmt.Sprintf("%d %s", r.Types[t], t))
	}
	line("tensors", "%d: %s", r.count, strings.Join(types, ", "))
	if r.Nested != "" {
		line("found in", "%s", plain(r.Nested))
	}
	if len(r.NotRead) > 0 {
		line("not read", "%s", listed(r.NotRead))
	}
	if n := len(r.Shards); n > 1 {
		bySize := func(x, y shardFacts) int { return cmp.Compare(x.Bytes, y.Bytes) }
		line("files", "%d of %s to %s", n, memory.FormatSize(slices.MinFunc(r.Shards, bySize).Bytes), memory.FormatSize(slices.MaxFunc(r.Shards, bySize).Bytes))
	}
	if r.Values != nil {
		statsTable(w, r.Tensors, r.Values)
		if r.Plot != "" {
			fmt.Fprintf(w, "%s: picture of the magnitudes\n", r.Plot)
		}
		return
	}
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

// plural writes a number of things.
func plural(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}
