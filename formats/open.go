package formats

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/seed18967229/nibble/formats/gguf"
	"github.com/seed18967229/nibble/formats/hf"
	"github.com/seed18967229/nibble/formats/peft"
	"github.com/seed18967229/nibble/formats/safetensors"
	"github.com/seed18967229/nibble/formats/torch"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/tensor"
)

// Kind is a container format.
type Kind string

// The formats Open knows.
const (
	HF          Kind = "Hugging Face directory"
	Adapter     Kind = "PEFT adapter"
	Safetensors Kind = "safetensors file"
	Torch       Kind = "PyTorch checkpoint"
	GGUF        Kind = "GGUF file"
)

// Input is an opened input: a Source, and the reader of its own format, of
// which one is not nil unless the format says no more than a Source.
type Input struct {
	tensor.Source
	Path string
	Kind Kind

	HF      *hf.Dir
	Adapter *peft.Adapter
	Torch   *torch.File
	GGUF    *gguf.File

	close func() error
}

// Close closes the input's files.
func (i *Input) Close() error { return i.close() }

// Paths returns the paths of the files that the tensors are in, in order.
func (i *Input) Paths() []string {
	switch {
	case i.HF != nil:
		return i.HF.Paths()
	case i.GGUF != nil:
		return i.GGUF.Paths()
	case i.Adapter != nil:
		return []string{i.Adapter.Path()}
	}
	return []string{i.Path}
}

// Open opens a path. Errors wrap tensor.ErrMalformed or tensor.ErrUnsupported
// unless the file system is at fault.
func Open(path string) (*Input, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, missing(path, err)
	}
	if st.IsDir() {
		return openDir(path)
	}
	return openFile(path, st)
}

func missing(path string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return hint.Add(fmt.Errorf("%s: %w", path, fs.ErrNotExist), "check the path; a model of the hub is fetched as hf://org/name")
	}
	return err
}

func openDir(path string) (*Input, error) {
	has := func(name string) bool {
		_, err := os.Stat(filepath.Join(path, name))
		return err == nil
	}
	// A directory that has both is a full model with what an adapter was
	// merged from beside it.
	if has(peft.ConfigName) && !has(hf.ConfigName) {
		a, err := peft.Open(path)
		if err != nil {
			return nil, err
		}
		return &Input{Source: a, Path: path, Kind: Adapter, Adapter: a, close: a.Close}, nil
	}
	d, err := hf.Open(path)
	if err != nil {
		return nil, err
	}
	return &Input{Source: d, Path: path, Kind: HF, HF: d, close: d.Close}, nil
}

func openFile(path string, st fs.FileInfo) (*Input, error) {
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: %w: neither a regular file nor a directory", path, tensor.ErrUnsupported)
	}
	head, err := readHead(path)
	if err != nil {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(head, []byte(gguf.Magic)):
		f, err := gguf.Open(path)
		if err != nil {
			return nil, err
		}
		return &Input{Source: f, Path: path, Kind: GGUF, GGUF: f, close: f.Close}, nil
	case torch.Detect(head):
		f, err := torch.Open(path)
		if err != nil {
			return nil, err
		}
		return &Input{Source: f, Path: path, Kind: Torch, Torch: f, close: f.Close}, nil
	case len(head) > braceAt && head[braceAt] == '{':
		f, err := safetensors.Open(path)
		if err != nil {
			return nil, err
		}
		return &Input{Source: f, Path: path, Kind: Safetensors, close: f.Close}, nil
	}
	return nil, hint.Add(fmt.Errorf("%s: %w: it begins with %q, which is neither GGUF nor safetensors nor a PyTorch checkpoint",
		path, tensor.ErrMalformed, head[:min(len(head), braceAt+1)]),
		"give a model directory, a .safetensors, .gguf, .bin, .pt or .pth file; a file that was fetched with git may be a Git LFS pointer")
}

const (
	// headSize is what it takes to tell the formats apart.
	headSize = torch.DetectSize

	// braceAt is where a safetensors file has a brace: it begins with the length
	// of its header in 8 bytes and then has the header, a JSON object.
	braceAt = 8
)

func readHead(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	head := make([]byte, headSize)
	n, err := io.ReadFull(f, head)
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return nil, err
	}
	return head[:n], nil
}
