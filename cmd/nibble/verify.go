package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/seed18967229/nibble/formats"
	"github.com/seed18967229/nibble/pipeline"
	"github.com/seed18967229/nibble/tensor"
)

func (a *app) verifyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "verify IN",
		Short: "Check structure, sizes and values; exit 0 only if sound",
		Long: `Check that headers, sizes and names are in order, that a model has all its
tensors in the right shapes and a tokenizer that fits, and read every byte to
find NaN and Inf. Exit code 3 if anything is wrong.`,
		Example: "  nibble verify stories260K",
		Args:    exactArgs(1),
		RunE:    func(cmd *cobra.Command, args []string) error { return a.verify(cmd.Context(), args[0]) },
	}
}

type verifyResult struct {
	Path     string   `json:"path"`
	Format   string   `json:"format"`
	Sound    bool     `json:"sound"`
	Problems []string `json:"problems"`
	Tensors  int      `json:"tensors"`
	Bytes    int64    `json:"bytes"`
}

func (r *verifyResult) text(w io.Writer) {
	for _, p := range r.Problems {
		fmt.Fprintln(w, p)
	}
	if r.Sound {
		fmt.Fprintf(w, "%s: %s, sound: %d tensors\n", r.Path, r.Format, r.Tensors)
	}
}

func (a *app) verify(ctx context.Context, path string) error {
	in, err := formats.Open(path)
	if err != nil {
		return err
	}
	defer in.Close()
	r := &verifyResult{Path: path, Format: string(in.Kind), Problems: []string{}}
	problem := func(err error) { r.Problems = append(r.Problems, strings.Split(errorText(err), "\n")...) }
	var src tensor.Source = in
	if in.Kind == formats.HF || in.Kind == formats.GGUF {
		m := &model{Input: in}
		if err := m.understand(); err != nil {
			problem(err)
		} else {
			src = m.view
			m.checkTensors(problem)
		}
	}
	if in.Adapter != nil {
		if err := in.Adapter.Config.Unsupported(); err != nil {
			a.note("%v", err)
		}
	}
	var total int64
	for info := range src.All() {
		total += info.Size()
	}
	bar := a.progress("verify", total, bytesUnit)
	defer bar.stop()
	for info := range src.All() {
		if err := checkValues(ctx, src, info); err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			problem(err)
		}
		bar.add(info.Size())
		r.Tensors++
		r.Bytes += info.Size()
	}
	bar.stop()
	r.Sound = len(r.Problems) == 0
	if err := a.print(r); err != nil || r.Sound {
		return err
	}
	return fmt.Errorf("%s: %w: %d problems", path, tensor.ErrMalformed, len(r.Problems))
}

// checkTensors reports tensors that are missing, of the wrong shape or unknown,
// and a tokenizer that does not fit.
func (m *model) checkTensors(problem func(error)) {
	known := make(map[string]bool)
	for _, t := range m.arch.Tensors() {
		known[t.Name] = true
		info, err := m.view.Info(t.Name)
		switch {
		case err != nil:
			problem(fmt.Errorf("%w: the %s family needs it", err, m.arch.Name))
		case !info.Shape.Equal(t.Dims):
			problem(fmt.Errorf("tensor %q: shape %v, the configuration makes it %v", t.Name, info.Shape, tensor.Shape(t.Dims)))
		}
	}
	for info := range m.view.All() {
		if !known[info.Name] {
			problem(fmt.Errorf("tensor %q: the %s family has none of that name", info.Name, m.arch.Name))
		}
	}
	v, err := m.vocab()
	switch {
	case err != nil:
		problem(err)
	case int64(len(v.Pieces)) != m.arch.VocabSize:
		problem(fmt.Errorf("the tokenizer has %d tokens, vocab_size is %d", len(v.Pieces), m.arch.VocabSize))
	default:
		if err := v.Validate(); err != nil {
			problem(fmt.Errorf("the tokenizer: %w", err))
		}
	}
}

// checkValues reads a whole tensor and reports NaN and Inf if it is of
// floating-point numbers.
func checkValues(ctx context.Context, src tensor.Source, info tensor.Info) error {
	if _, ok := codecs[info.DType]; !ok {
		r, err := src.Raw(info.Name)
		if err != nil {
			return err
		}
		if n, err := io.Copy(io.Discard, r); err != nil || n != info.Size() {
			return fmt.Errorf("tensor %q: %d of %d bytes can be read: %w", info.Name, n, info.Size(), err)
		}
		return nil
	}
	var bad, first int64
	err := pipeline.EachPanel(ctx, codecs, src, info.Name, func(w []float32, row int64) error {
		for i, v := range w {
			if v-v != 0 {
				if bad == 0 {
					first = row*info.Shape.Cols() + int64(i)
				}
				bad++
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("tensor %q: %w", info.Name, err)
	}
	if bad > 0 {
		return fmt.Errorf("tensor %q: %d of %d values are NaN or Inf, the first is element %d", info.Name, bad, info.Shape.Elems(), first)
	}
	return nil
}
