package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/seed18967229/nibble/formats/hf"
	"github.com/seed18967229/nibble/internal/fsx"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/memory"
	"github.com/seed18967229/nibble/internal/safeio"
	"github.com/seed18967229/nibble/merge"
	"github.com/seed18967229/nibble/merge/receipt"
	"github.com/seed18967229/nibble/pipeline"
	"github.com/seed18967229/nibble/tensor"
)

// startReceipt begins the receipt of what changes do to m, the base as they take it;
// nil if path is "".
func (a *app) startReceipt(m *model, changes []merge.Change, path, out string, about *provenance) (*receipt.Writer, error) {
	if path == "" {
		return nil, nil
	}
	if rel, err := filepath.Rel(out, path); err == nil && filepath.IsLocal(rel) {
		return nil, badUsage(hint.Add(fmt.Errorf("--receipt %s: it would be inside of the output", path), "put it beside the directory"))
	}
	if err := fsx.CheckOutput(path, m.Input.Paths()...); err != nil {
		return nil, badUsage(err)
	}
	files, err := m.baseFiles()
	if err != nil {
		return nil, err
	}
	w, err := receipt.Create(path, receipt.Options{
		Base: m.view, Files: files, Single: m.HF == nil && len(files) == 1,
		Codecs: codecs, Changes: changes, Merge: []byte(about.encode()), Force: a.force,
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", m.Path, err)
	}
	return w, nil
}

// baseFiles lists the files of a model: of a directory all that are in it but hidden
// ones, weights that are not read, and folders.
func (m *model) baseFiles() ([]receipt.File, error) {
	var list []receipt.File
	if m.HF == nil {
		for _, path := range m.Input.Paths() {
			list = append(list, receipt.File{Name: filepath.Base(path), Path: path})
		}
		return list, nil
	}
	entries, err := os.ReadDir(m.HF.Path())
	if err != nil {
		return nil, safeio.WithPath(m.HF.Path(), err)
	}
	ignored := m.HF.Ignored()
	for _, e := range entries {
		name := e.Name()
		if strings.HasPrefix(name, ".") || slices.Contains(ignored, name) {
			continue
		}
		path := filepath.Join(m.HF.Path(), name)
		st, err := os.Stat(path) // the Hugging Face cache links its files
		if err != nil {
			return nil, safeio.WithPath(path, err)
		}
		if st.Mode().IsRegular() {
			list = append(list, receipt.File{Name: name, Path: path})
		}
	}
	return list, nil
}

// finishReceipt writes the receipt of a model that has been written to out and has to
// be read to know what became of each number.
func finishReceipt(ctx context.Context, w *receipt.Writer, out string) error {
	m, err := openModel(out)
	if err != nil {
		return errors.Join(err, w.Abort())
	}
	defer m.Close()
	if err := w.Merged(m.view); err != nil {
		return errors.Join(err, w.Abort())
	}
	return w.Finish(ctx)
}

// followed makes a plan, and the sink that it is run into, write a receipt too. files
// are those beside the weights: what of them is the base's need not be in it.
func followed(ctx context.Context, w *receipt.Writer, p *pipeline.Plan, files []hf.SideFile, dst tensor.Sink) tensor.Sink {
	for _, f := range files {
		if f.From != "" {
			w.Keep(f.Name, f.From)
		}
	}
	w.Follow(p)
	return w.Sink(ctx, dst)
}

// noteReceipt adds to the account of a merge how large its receipt is.
func noteReceipt(r *writeResult, err error, w *receipt.Writer, o *mergeOptions) (*writeResult, error) {
	if err == nil && w != nil {
		r.Notes = append(r.Notes, fmt.Sprintf("receipt %s: %s, %.2f %% of the base; nibble unmerge %s --receipt %s --out BASE makes the base again",
			o.receipt, memory.FormatSize(w.Size()), 100*float64(w.Size())/float64(max(1, w.BaseSize())), o.out, o.receipt))
	}
	return r, err
}
