package hf

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"

	"github.com/seed18967229/nibble/formats/safetensors"
	"github.com/seed18967229/nibble/internal/fsx"
	"github.com/seed18967229/nibble/internal/safeio"
	"github.com/seed18967229/nibble/tensor"
)

// DefaultMaxShardSize is how large transformers lets a shard become when
// nothing else is asked for, in bytes.
const DefaultMaxShardSize = 5_000_000_000

// A SideFile is a file beside the weights: Data, or if From is set, a copy of
// the file at that path.
type SideFile struct {
	Name string
	Data []byte
	From string
}

// Options is what Create can be told.
type Options struct {
	// MaxShardSize is the most bytes of tensors in a shard, as transformers
	// counts them; 0 is DefaultMaxShardSize. Tensors that stay together may
	// exceed it.
	MaxShardSize int64

	// Shards, if it is not nil and MaxShardSize is 0, is the file that each
	// tensor goes to: how the model that the output is made of lies in its own
	// directory (Dir.Shards). A tensor that is not in it goes with the one it
	// stays together with; there must be one.
	Shards map[string]string

	// Force lets an existing directory be replaced, if it is one of a model or
	// an adapter.
	Force bool

	// Files are the other files of the directory; config.json must be one.
	Files []SideFile
}

// A Writer is a tensor.Sink that writes a model directory. The directory has
// its name, with everything in it, only once Finish has succeeded.
//
// Every shard file is open until then, so their number is bound by how many
// files a process may have open.
type Writer struct {
	dir      *fsx.Dir
	max      int64
	files    map[string]string // of tensors, nil if the sizes decide
	shards   []*safetensors.Writer
	names    []string // of the shards
	bodies   []bodyAt
	tensors  []string // names, as in the layout
	finished bool
}

var _ tensor.Sink = (*Writer)(nil)

// bodyAt is where a tensor of the layout is: which shard, and which body of it.
type bodyAt struct{ shard, body int }

// Create starts writing a model directory and stores the side files. Unless
// o.Force is set, dir must not exist or be empty.
func Create(dir string, o Options) (*Writer, error) {
	if err := checkFiles(o.Files); err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	d, err := fsx.CreateDir(dir, o.Force, HoldsModel)
	if err != nil {
		return nil, err
	}
	for _, f := range o.Files {
		if err := f.Write(d.Temp()); err != nil {
			return nil, errors.Join(err, d.Abort())
		}
	}
	w := &Writer{dir: d, max: o.MaxShardSize}
	if w.max <= 0 {
		w.max, w.files = DefaultMaxShardSize, o.Shards
	}
	return w, nil
}

// checkFiles returns an error unless the names are those of different plain
// files that are not weights, config.json among them.
func checkFiles(files []SideFile) error {
	seen := make(map[string]bool)
	for _, f := range files {
		switch {
		case !plainName(f.Name):
			return fmt.Errorf("side file %q: not a plain file name", f.Name)
		case isWeights(f.Name):
			return fmt.Errorf("side file %q: weights are written as tensors", f.Name)
		case seen[f.Name]:
			return fmt.Errorf("side file %q: given twice", f.Name)
		}
		seen[f.Name] = true
	}
	if !seen[ConfigName] {
		return fmt.Errorf("no %s among the side files of a model directory", ConfigName)
	}
	return nil
}

// HoldsModel reports whether a directory of files of these names is one that may be
// replaced: that of a model or an adapter.
func HoldsModel(names []string) bool {
	return slices.ContainsFunc(names, func(name string) bool {
		return name == ConfigName || name == adapterConfigName || filepath.Ext(name) == ".safetensors"
	})
}

// Write stores the file in a directory, where it must not be already.
func (f SideFile) Write(dir string) error {
	path := filepath.Join(dir, f.Name)
	if f.From == "" {
		return fsx.WriteFile(path, f.Data, false)
	}
	in, _, err := safeio.OpenFile(f.From)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := fsx.Create(path, false)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		return errors.Join(fmt.Errorf("%s: %w", f.From, err), out.Abort())
	}
	return out.Commit()
}

// Begin implements tensor.Sink. Metadata values must be strings; every shard
// gets the same, with {"format": "pt"} added if it has no format, without which
// transformers refuses a file.
func (w *Writer) Begin(meta tensor.Meta, layout []tensor.Info) error {
	err := w.begin(meta, layout)
	if err != nil {
		w.Abort()
	}
	return err
}

func (w *Writer) begin(meta tensor.Meta, layout []tensor.Info) error {
	if _, ok := meta.Get("format"); !ok {
		meta = append(tensor.Meta{{Key: "format", Value: "pt"}}, meta...)
	}
	// Sizes count from here on, so every tensor must be sound.
	entries := make([]tensor.Entry, len(layout))
	for i, info := range layout {
		entries[i].Info = info
		w.tensors = append(w.tensors, info.Name)
	}
	if _, err := tensor.NewTable(meta, entries); err != nil {
		return fmt.Errorf("%s: %w", w.dir.Path(), err)
	}
	if len(layout) == 0 {
		return fmt.Errorf("%s: no tensors to write", w.dir.Path())
	}
	parts, err := w.split(layout)
	if err != nil {
		return fmt.Errorf("%s: %w", w.dir.Path(), err)
	}
	w.bodies = make([]bodyAt, len(layout))
	for s, part := range parts {
		shard, err := safetensors.Create(filepath.Join(w.dir.Temp(), part.name), false)
		if err != nil {
			return err
		}
		w.shards, w.names = append(w.shards, shard), append(w.names, part.name)
		infos := make([]tensor.Info, len(part.members))
		for b, i := range part.members {
			infos[b] = layout[i]
			w.bodies[i] = bodyAt{s, b}
		}
		if err := shard.Begin(meta, infos); err != nil {
			return err
		}
	}
	return nil
}

// split says which tensors of the layout go to which file.
func (w *Writer) split(layout []tensor.Info) ([]part, error) {
	if w.files != nil {
		return assign(layout, w.files)
	}
	var parts []part
	shards := split(layout, w.max)
	for i, members := range shards {
		name := WeightsName
		if len(shards) > 1 {
			name = fmt.Sprintf("model-%05d-of-%05d.safetensors", i+1, len(shards))
		}
		parts = append(parts, part{name, members})
	}
	return parts, nil
}

// Body implements tensor.Sink.
func (w *Writer) Body(i int) (io.WriterAt, error) {
	if i < 0 || i >= len(w.bodies) {
		return nil, fmt.Errorf("%s: body %d of %d asked for", w.dir.Path(), i, len(w.bodies))
	}
	at := w.bodies[i]
	return w.shards[at.shard].Body(at.body)
}

// Finish implements tensor.Sink.
func (w *Writer) Finish() error {
	if err := w.finish(); err != nil {
		w.Abort()
		return err
	}
	w.finished = true
	return w.dir.Commit()
}

func (w *Writer) finish() error {
	ix := index{WeightMap: make(map[string]string, len(w.bodies))}
	for _, s := range w.shards {
		if err := s.Finish(); err != nil {
			return err
		}
		ix.Metadata.TotalSize += s.Size()
	}
	if len(w.names) == 1 && w.names[0] == WeightsName {
		return nil
	}
	for i, at := range w.bodies {
		ix.WeightMap[w.tensors[i]] = w.names[at.shard]
	}
	text, err := ix.encode()
	if err != nil {
		return err
	}
	return w.dir.WriteFile(IndexName, text)
}

// Abort implements tensor.Sink.
func (w *Writer) Abort() error {
	if w.finished {
		return nil
	}
	var errs []error
	for _, s := range w.shards {
		errs = append(errs, s.Abort())
	}
	return errors.Join(append(errs, w.dir.Abort())...)
}
