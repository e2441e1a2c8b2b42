package hf

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/seed18967229/nibble/formats/safetensors"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/safeio"
	"github.com/seed18967229/nibble/tensor"
)

// The names of files in a model directory, as transformers has them
// (utils/__init__.py).
const (
	ConfigName  = "config.json"
	WeightsName = "model.safetensors"
	IndexName   = "model.safetensors.index.json"
)

const (
	adapterConfigName = "adapter_config.json"

	// maxConfig and maxIndex are the largest config.json and index in bytes that
	// are read.
	maxConfig = 16 << 20
	maxIndex  = 100_000_000
)

// A Dir is an open model directory. Its tensors are those of all shards: the
// shards sorted by name, the tensors of each in the order of the file. Its Meta
// is that of the first shard. The tensors can be read until it is closed.
type Dir struct {
	*tensor.Table
	path    string
	config  []byte
	shards  []shard
	paths   []string          // of the shards
	files   map[string]string // of each tensor, named as safetensors files
	ignored []string
}

var _ tensor.Source = (*Dir)(nil)

// Open opens a model directory. Like transformers it takes model.safetensors if
// there is one, otherwise the shards that model.safetensors.index.json names,
// and otherwise the same of pytorch_model.bin. Other weight files beside them,
// such as Mistral's consolidated ones, hold the same model again and are left
// alone; Ignored lists them.
//
// An index must be true: every tensor it names is in the shard it names, and
// every tensor of a shard is named. Files may be links, wherever they lead.
// Errors begin with the path and wrap tensor.ErrMalformed, or
// tensor.ErrUnsupported if the weights are there in another format only.
func Open(dir string) (*Dir, error) {
	if st, err := os.Stat(dir); err != nil {
		return nil, safeio.WithPath(dir, err)
	} else if !st.IsDir() {
		return nil, fmt.Errorf("%s: %w: not a directory", dir, tensor.ErrMalformed)
	}
	d := &Dir{path: dir}
	err := d.open()
	if err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

func (d *Dir) open() (err error) {
	if d.config, err = readConfig(d.path); err != nil {
		return err
	}
	l, ix, names, err := d.find()
	if err != nil {
		return err
	}
	if d.ignored, err = unread(d.path, names); err != nil {
		return err
	}
	d.files = make(map[string]string)
	var entries []tensor.Entry
	for _, name := range names {
		f, err := d.openShard(l, name, ix)
		if err != nil {
			return err
		}
		d.shards = append(d.shards, f)
		d.paths = append(d.paths, filepath.Join(d.path, name))
		for info := range f.All() {
			if err := ix.checkTensor(info.Name, name); err != nil {
				return err
			}
			entries = append(entries, tensor.Forward(f, info, info.Name))
			d.files[info.Name] = l.asSafetensors(name)
		}
	}
	if len(entries) == 0 {
		return fmt.Errorf("%s: %w: the weights hold no tensors", d.path, tensor.ErrMalformed)
	}
	if d.Table, err = tensor.NewTable(d.shards[0].Meta(), entries); err != nil {
		return fmt.Errorf("%s: %w", d.path, err)
	}
	return ix.checkComplete(d.Table)
}

// Path returns the directory's path, as it was opened.
func (d *Dir) Path() string { return d.path }

// Paths returns the paths of the files that the tensors are in, in order.
func (d *Dir) Paths() []string { return slices.Clone(d.paths) }

// Config returns the text of config.json: one JSON object.
func (d *Dir) Config() []byte { return d.config }

// Shards returns the file of each tensor for a directory of safetensors files
// that is laid out like this one; see Options. Shards keep their names, but
// pytorch_model-00001-of-00002.bin becomes model-00001-of-00002.safetensors.
func (d *Dir) Shards() map[string]string { return maps.Clone(d.files) }

// Listed returns the names of the tensors in the order in which the readers that
// the file format comes from list them, and converters write them: shard by shard,
// those of a safetensors file by name, those of a PyTorch file as they lie there.
func (d *Dir) Listed() []string {
	var names []string
	for _, f := range d.shards {
		start := len(names)
		for info := range f.All() {
			names = append(names, info.Name)
		}
		if _, ok := f.(*safetensors.File); ok {
			slices.Sort(names[start:])
		}
	}
	return names
}

// Ignored returns the names of weight files in the directory that were not
// read, sorted: other formats, the same weights again, shards that the index
// does not name.
func (d *Dir) Ignored() []string { return d.ignored }

// Close closes the directory's files.
func (d *Dir) Close() error {
	var errs []error
	for _, f := range d.shards {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

// SideFiles returns the files that belong to the model whatever becomes of its
// weights, sorted by name: tokenizer files, generation_config.json, chat
// templates, licence, model card. Left out are config.json, which every change
// edits, weights of any format and their indexes, an adapter's configuration,
// hidden files and subdirectories.
func (d *Dir) SideFiles() ([]SideFile, error) {
	entries, err := os.ReadDir(d.path)
	if err != nil {
		return nil, safeio.WithPath(d.path, err)
	}
	var list []SideFile
	for _, e := range entries {
		name := e.Name()
		if strings.HasPrefix(name, ".") || name == ConfigName || name == adapterConfigName || isWeights(name) {
			continue
		}
		path := filepath.Join(d.path, name)
		st, err := os.Stat(path) // the Hugging Face cache links its files
		if err != nil {
			return nil, safeio.WithPath(path, err)
		}
		if st.Mode().IsRegular() {
			list = append(list, SideFile{Name: name, From: path})
		}
	}
	return list, nil
}

func readConfig(dir string) ([]byte, error) {
	path := filepath.Join(dir, ConfigName)
	text, err := readFile(path, maxConfig)
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%s: %w: no %s; a model directory has %s and %s", dir, tensor.ErrMalformed, ConfigName, ConfigName, WeightsName)
		if _, aerr := os.Stat(filepath.Join(dir, adapterConfigName)); aerr == nil {
			return nil, hint.Add(err, "this is an adapter's directory; give the model that it was trained on, and the adapter as one")
		}
		return nil, hint.Add(err, "give the directory that transformers' save_pretrained or a download made")
	}
	if err != nil {
		return nil, err
	}
	if _, err := members(text); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return text, nil
}

// readFile reads a file of the directory whole.
func readFile(path string, limit int64) ([]byte, error) {
	text, err := safeio.ReadFile(path, limit)
	if errors.Is(err, safeio.ErrRefused) {
		err = fmt.Errorf("%w: %w", tensor.ErrMalformed, err)
	}
	return text, err
}
