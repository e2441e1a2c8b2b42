package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/seed18967229/nibble/formats"
	"github.com/seed18967229/nibble/tensor"
)

// verifyOptions are the flags of verify.
type verifyOptions struct{ manifest, write string }

func (a *app) verifyCommand() *cobra.Command {
	var o verifyOptions
	cmd := &cobra.Command{
		Use:   "verify IN",
		Short: "Check structure, sizes, values and checksums; exit 0 only if sound",
		Long: `Check that headers, sizes and names are in order, that a model has all its
tensors in the right shapes and a tokenizer that fits, and read every byte to
find NaN and Inf. Exit code 3 if anything is wrong.

A manifest holds the SHA-256 of every file of the model, by its name in the
model's directory, as sha256sum writes it: sha256sum -c checks it there too.
Hidden files are left out.`,
		Example: "  nibble verify stories260K --write-manifest SHA256SUMS\n  nibble verify stories260K --manifest SHA256SUMS",
		Args:    exactArgs(1),
		RunE:    func(cmd *cobra.Command, args []string) error { return a.verify(cmd.Context(), args[0], o) },
	}
	cmd.Flags().StringVar(&o.manifest, "manifest", "", "compare the files with the checksums in this file")
	cmd.Flags().StringVar(&o.write, "write-manifest", "", "write the checksums of the files into this file, if all is sound")
	return cmd
}

type verifyResult struct {
	Path     string   `json:"path"`
	Format   string   `json:"format"`
	Sound    bool     `json:"sound"`
	Problems []string `json:"problems"`
	Tensors  int      `json:"tensors"`
	Bytes    int64    `json:"bytes"`

	// Files counts those with a checksum; Manifest is what was written.
	Files    int    `json:"files"`
	Manifest string `json:"manifest,omitempty"`
}

func (r *verifyResult) text(w io.Writer) {
	for _, p := range r.Problems {
		fmt.Fprintln(w, p)
	}
	if !r.Sound {
		return
	}
	files := ""
	if r.Files > 0 && r.Manifest == "" {
		files = ", " + plural(r.Files, "file") + " as in the manifest"
	}
	fmt.Fprintf(w, "%s: %s, sound: %d tensors%s\n", r.Path, r.Format, r.Tensors, files)
	if r.Manifest != "" {
		fmt.Fprintf(w, "%s: checksums of %s\n", r.Manifest, plural(r.Files, "file"))
	}
}

func (a *app) verify(ctx context.Context, path string, o verifyOptions) error {
	in, err := formats.Open(path)
	if err != nil {
		return err
	}
	defer in.Close()
	h, err := a.prepareHashing(path, o)
	if err != nil {
		return err
	}
	defer h.close()
	r := &verifyResult{Path: path, Format: string(in.Kind), Problems: []string{}}
	problem := func(err error) { r.Problems = append(r.Problems, strings.Split(errorText(err), "\n")...) }
	var src tensor.Source = in
	if isModel(in) {
		m := &model{Input: in}
		if err := m.understand(); err != nil {
			if m.arch == nil && errors.Is(err, tensor.ErrUnsupported) {
				a.note("%v; its tensors are checked as they are", err)
			} else {
				problem(err)
			}
		} else {
			src = m.whole()
			m.checkTensors(problem)
		}
	}
	if in.Adapter != nil {
		if err := in.Adapter.Config.Unmergeable(); err != nil {
			a.note("%v", err)
		}
	}
	for info := range src.All() {
		r.Tensors++
		r.Bytes += info.Size()
	}
	bar := a.progress("verify", r.Bytes+h.bytes, bytesUnit)
	defer bar.stop()
	hashed := make(chan error)
	go func() { hashed <- h.run(ctx, bar.add) }()
	if err := errors.Join(a.checkValues(ctx, src, bar, problem), <-hashed); err != nil {
		return err
	}
	bar.stop()
	r.Files = len(h.names)
	if o.manifest != "" {
		if n := compareManifest(h.manifest, h.found, h.single, problem); n > 0 {
			a.note("not in the manifest: %s", plural(n, "file"))
			r.Files -= n
		}
	}
	r.Sound = len(r.Problems) == 0
	if r.Sound && o.write != "" {
		if err := h.write(); err != nil {
			return err
		}
		r.Manifest = o.write
	}
	if err := a.print(r); err != nil || r.Sound {
		return err
	}
	return fmt.Errorf("%s: %w: %s", path, tensor.ErrMalformed, plural(len(r.Problems), "problem"))
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

// checkValues reads every tensor and reports what cannot be read, and NaN and Inf
// where there are floating-point numbers.
func (a *app) checkValues(ctx context.Context, src tensor.Source, bar *bar, problem func(error)) error {
	infos := slices.Collect(src.All())
	type checked struct {
		*flat
		err error
	}
	type bad struct {
		n, first int64
		err      error
	}
	parts, err := scan(ctx, a.scanWorkers(1), len(infos),
		func(i int) []span { return spansOf(infos[i]) },
		func(i int) (checked, error) {
			f, err := openFlat(src, infos[i])
			return checked{f, err}, nil
		},
		func(f checked, s span, sc *scratch) (b bad, _ error) {
			if f.err != nil {
				return bad{err: f.err}, nil
			}
			defer bar.add(s.size(f.info))
			if f.codec == nil {
				_, b.err = f.bytes(&sc.bytes[0], s)
				return b, nil
			}
			var w []float32
			if w, b.err = f.values(sc, s); b.err != nil {
				return b, nil
			}
			for i, v := range w {
				if v-v != 0 {
					if b.n == 0 {
						b.first = s.start + int64(i)
					}
					b.n++
				}
			}
			return b, nil
		})
	if err != nil {
		return err
	}
	for i, info := range infos {
		var all bad
		for _, b := range parts[i] {
			if all.n == 0 {
				all.first = b.first
			}
			all.n += b.n
			if all.err == nil {
				all.err = b.err
			}
		}
		switch {
		case all.err != nil:
			problem(all.err)
		case all.n > 0:
			problem(fmt.Errorf("tensor %q: %d of %d values are NaN or Inf, the first is element %d", info.Name, all.n, info.Shape.Elems(), all.first))
		}
	}
	return nil
}
