package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/formats/gguf/imatrix"
	"github.com/seed18967229/nibble/internal/fsx"
	"github.com/seed18967229/nibble/internal/memory"
	"github.com/seed18967229/nibble/train/engine"
	trainmodel "github.com/seed18967229/nibble/train/model"
)

// imatrixOptions are the flags of imatrix.
type imatrixOptions struct {
	model, data, out string
	chunks           int
	length           int
	batch            int
	output           bool
}

func (a *app) imatrixCommand() *cobra.Command {
	var o imatrixOptions
	cmd := &cobra.Command{
		Use:   "imatrix --model IN --data FILE --out FILE",
		Short: "Measure which columns of the weights matter, for quantize --imatrix",
		Long: `Run a model over a text and store how large what each weight is multiplied with
is, column by column: the importance matrix that quantize --imatrix, and
llama-quantize --imatrix, spend precision by. The file and its figures are those
of llama-imatrix.

The text is cut into chunks of --max-seq-length tokens, each begun with the bos
token. The perplexity that is printed is llama-perplexity's, of the chunks used.
Of a mixture of experts each expert is measured by the tokens that are routed to
it.`,
		Example: "  nibble imatrix --model stories260K --data calibration.txt --out imatrix.gguf",
		Args:    exactArgs(0),
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.imatrix(cmd.Context(), &o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.model, "model", "", "the model")
	f.StringVar(&o.data, "data", "", "text file, like what the model will be used for")
	f.StringVar(&o.out, "out", "", "the file to write")
	f.IntVar(&o.chunks, "chunks", 0, "chunks to use at most (default all)")
	f.IntVarP(&o.length, "max-seq-length", "c", 512, "tokens of a chunk; lowered to the model's context")
	f.IntVar(&o.batch, "batch-size", 8, "chunks that go through the model at a time")
	f.BoolVar(&o.output, "process-output", false, "measure the head too")
	need(cmd, "model", "data", "out")
	return cmd
}

type imatrixResult struct {
	Model string `json:"model"`
	Data  string `json:"data"`
	Out   string `json:"out"`

	Weights   int `json:"weights"`
	Chunks    int `json:"chunks"`
	ChunkSize int `json:"chunk_size"`

	Loss       float64 `json:"loss"`
	Perplexity float64 `json:"perplexity"`

	// Unused has for each weight with experts that no token was routed to how many
	// they are.
	Unused map[string]int `json:"unused_experts,omitempty"`
	Notes  []string       `json:"notes,omitempty"`

	Seconds float64 `json:"seconds"`
	PeakRSS int64   `json:"peak_rss"`
}

func (r *imatrixResult) text(w io.Writer) {
	fmt.Fprintf(w, "%s: what %d weights of %s are multiplied with, in %d chunks of %d tokens\n", r.Out, r.Weights, r.Model, r.Chunks, r.ChunkSize)
	fmt.Fprintf(w, "  perplexity %.4f\n", r.Perplexity)
	for _, n := range r.Notes {
		fmt.Fprintf(w, "  %s\n", n)
	}
	fmt.Fprintf(w, "  %.1f s, peak memory %s\n", r.Seconds, memory.FormatSize(r.PeakRSS))
}

func (a *app) imatrix(ctx context.Context, o *imatrixOptions) error {
	if o.length < shortest || o.batch < 1 || o.chunks < 0 {
		return badUsage(fmt.Errorf("--max-seq-length %d, --batch-size %d, --chunks %d: want at least %d, 1 and 0", o.length, o.batch, o.chunks, shortest))
	}
	if err := fsx.CheckOutput(o.out, o.model, o.data); err != nil {
		return badUsage(err)
	}
	if err := a.writable(o.out); err != nil {
		return err
	}
	m, err := openModel(o.model)
	if err != nil {
		return err
	}
	defer m.Close()
	v, tok, err := m.tokenizer()
	if err != nil {
		return err
	}
	text, err := readChunks(o.data, v, tok, min(o.length, int(m.arch.MaxPositionEmbeddings)))
	if err != nil {
		return err
	}
	if err := text.enough(o.data); err != nil {
		return err
	}

	sums := engine.NewSquares(m.arch, func(t arch.Tensor) bool {
		return t.Layer >= 0 || o.output && t.Role == arch.Head
	})
	e, err := m.engine("", text.size, int64(a.memory), sums.Observe)
	if err != nil {
		return err
	}
	defer e.Close()

	start := time.Now()
	n := text.len()
	if o.chunks > 0 {
		n = min(n, o.chunks)
	}
	bar := a.progress("imatrix", int64(n), itemsUnit)
	loss, labels, err := engine.Evaluate(ctx, e, n, o.batch, func(b *trainmodel.Batch, i int) error {
		bar.add(1)
		b.AddWhole(text.chunk(i), text.scored())
		return sums.Err()
	})
	bar.stop()
	if err != nil {
		return modelError(ctx, o.model, err)
	}
	list, err := sums.All()
	if err != nil {
		return modelError(ctx, o.model, err)
	}

	r := &imatrixResult{
		Model: o.model, Data: o.data, Out: o.out, Weights: len(list), Chunks: n, ChunkSize: text.size,
		Loss: loss / float64(labels), Perplexity: engine.Perplexity(loss, labels),
	}
	file := &imatrix.File{Datasets: []string{o.data}, Chunks: n, ChunkSize: text.size}
	for _, in := range list {
		x := imatrix.Matrix{Name: in.Name, Mats: len(in.Counts), Sums: in.Sums}
		unused := 0
		for _, c := range in.Counts {
			x.Counts = append(x.Counts, float32(c))
			if c == 0 {
				unused++
			}
		}
		file.Entries = append(file.Entries, x)
		if unused > 0 {
			if r.Unused == nil {
				r.Unused = make(map[string]int)
			}
			r.Unused[in.Name] = unused
		}
	}
	if len(r.Unused) > 0 {
		r.Notes = append(r.Notes, fmt.Sprintf("%d weights have experts that no token of the text was routed to: all columns of those count alike; more text would help", len(r.Unused)))
	}
	if _, own := m.arch.Find(arch.Head, "weight", -1); o.output && !own {
		r.Notes = append(r.Notes, "the head is the embeddings, and llama.cpp has no importance for those")
	}
	if err := imatrix.Write(o.out, file, a.force); err != nil {
		return err
	}
	r.Seconds = time.Since(start).Seconds()
	r.PeakRSS = memory.PeakRSS()
	return a.print(r)
}

// writable returns an error if an output cannot be written, before there is
// anything to write.
func (a *app) writable(path string) error {
	f, err := fsx.Create(path, a.force)
	if err != nil {
		return err
	}
	return f.Abort()
}

// modelError says which model a run failed with, unless it was interrupted.
func modelError(ctx context.Context, path string, err error) error {
	if ctx.Err() != nil {
		return err
	}
	return fmt.Errorf("%s: %w", path, err)
}
