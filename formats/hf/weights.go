package hf

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/seed18967229/nibble/formats/safetensors"
	"github.com/seed18967229/nibble/formats/torch"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/safeio"
	"github.com/seed18967229/nibble/tensor"
)

// layout is a way in which weights lie in a model directory: in one file, or in
// shards that an index names.
type layout struct {
	single, index string

	// Shards are named PREFIX-00001-of-00002EXT. The index may have other names.
	prefix, ext string

	open func(path string) (shard, error)
}

// shard is an open file of weights.
type shard interface {
	tensor.Source
	io.Closer
}

// layouts are in the order in which transformers looks for them.
var layouts = []layout{
	{WeightsName, IndexName, "model", ".safetensors", func(path string) (shard, error) { return asShard(safetensors.Open(path)) }},
	{"pytorch_model.bin", "pytorch_model.bin.index.json", "pytorch_model", ".bin", func(path string) (shard, error) { return asShard(torch.Open(path)) }},
}

// asShard makes no shard of a nil pointer.
func asShard[S shard](s S, err error) (shard, error) {
	if err != nil {
		return nil, err
	}
	return s, nil
}

// find returns the layout of the directory, its index if it has one, and the
// names of the files.
func (d *Dir) find() (*layout, *index, []string, error) {
	for i := range layouts {
		l := &layouts[i]
		switch {
		case d.has(l.single):
			return l, nil, []string{l.single}, nil
		case d.has(l.index):
			ix, err := readIndex(filepath.Join(d.path, l.index), l.ext)
			if err != nil {
				return nil, nil, nil, err
			}
			return l, ix, ix.shards(), nil
		}
	}
	return nil, nil, nil, noWeights(d.path)
}

// has reports whether the directory has an entry of that name, be it a link
// that leads nowhere.
func (d *Dir) has(name string) bool {
	_, err := os.Lstat(filepath.Join(d.path, name))
	return err == nil
}

func (d *Dir) openShard(l *layout, name string, ix *index) (shard, error) {
	f, err := l.open(filepath.Join(d.path, name))
	switch {
	case errors.Is(err, fs.ErrNotExist) && ix != nil:
		return nil, hint.Add(fmt.Errorf("%s: %w: shard %s is missing, tensor %q is in it", ix.path, tensor.ErrMalformed, name, ix.first(name)),
			"download or copy the missing file into the directory")
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, safeio.ErrRefused):
		return nil, fmt.Errorf("%w: %w", tensor.ErrMalformed, err)
	}
	return f, err
}

// asSafetensors returns the name that a shard of the layout has as a
// safetensors file.
func (l *layout) asSafetensors(name string) string {
	if name == l.single {
		return WeightsName
	}
	name = strings.TrimSuffix(name, l.ext)
	if rest, ok := strings.CutPrefix(name, l.prefix+"-"); ok {
		name = layouts[0].prefix + "-" + rest
	}
	if name == layouts[0].prefix {
		name = l.prefix // model.safetensors would be taken for the whole model
	}
	return name + layouts[0].ext
}

// weightsExt are the endings of files of weights, of any format.
var weightsExt = []string{".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".gguf", ".onnx", ".npz"}

// holdsWeights reports whether a file of that name holds weights.
func holdsWeights(name string) bool {
	return slices.Contains(weightsExt, strings.ToLower(filepath.Ext(name)))
}

// isWeights reports whether a file of that name holds weights or is the index
// of such files.
func isWeights(name string) bool {
	return holdsWeights(name) || strings.HasSuffix(strings.ToLower(name), ".index.json")
}

// unread lists the files of weights in the directory that are not among those
// that were read.
func unread(dir string, read []string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, safeio.WithPath(dir, err)
	}
	var list []string
	for _, e := range entries {
		if name := e.Name(); holdsWeights(name) && !e.IsDir() && !slices.Contains(read, name) {
			list = append(list, name)
		}
	}
	return list, nil
}

// noWeights says what is there instead of weights that can be read.
func noWeights(dir string) error {
	files, err := unread(dir, nil)
	if err != nil {
		return err
	}
	for _, l := range layouts {
		i := slices.IndexFunc(files, func(name string) bool {
			return strings.HasPrefix(name, l.prefix+"-") && strings.HasSuffix(name, l.ext)
		})
		if i >= 0 {
			return hint.Add(fmt.Errorf("%s: %w: shards such as %s, but no %s that says what is in them", dir, tensor.ErrMalformed, files[i], l.index),
				"download or copy the index into the directory")
		}
	}
	var known []string
	for _, l := range layouts {
		known = append(known, l.single, l.index)
	}
	if len(files) > 0 {
		return hint.Add(fmt.Errorf("%s: %w: weights in %s, but in none of %s", dir, tensor.ErrUnsupported, files[0], strings.Join(known, ", ")), "%s", otherFormat(files[0]))
	}
	return hint.Add(fmt.Errorf("%s: %w: no weights; looked for %s", dir, tensor.ErrMalformed, strings.Join(known, ", ")),
		"download or copy the weights into the directory")
}

// otherFormat says what to do about a file of weights that no layout has.
func otherFormat(name string) string {
	switch {
	case filepath.Ext(name) == ".gguf":
		return "give the .gguf file itself"
	case strings.HasPrefix(name, "consolidated"):
		return "these are the original weights, under names of their own; transformers has a script for each family that makes a Hugging Face directory of them"
	}
	return "load the model with transformers, which reads other formats, and save it with save_pretrained"
}
