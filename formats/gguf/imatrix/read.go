package imatrix

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"strings"

	"github.com/seed18967229/nibble/formats/gguf"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/safeio"
	"github.com/seed18967229/nibble/tensor"
)

// Kind is the gguf.KeyType of a file.
const Kind = "imatrix"

const (
	keyDatasets  = "imatrix.datasets"
	keyChunks    = "imatrix.chunk_count"
	keyChunkSize = "imatrix.chunk_size"

	sumsSuffix   = ".in_sum2"
	countsSuffix = ".counts"
)

// Read reads a file of either form. Memory is needed for its numbers. Errors
// begin with the path and wrap tensor.ErrMalformed if the file breaks the rules
// of its form, tensor.ErrUnsupported if it is a GGUF file of something else.
func Read(path string) (*File, error) {
	r, size, err := safeio.OpenFile(path)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	f, err := Parse(r, size)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return f, nil
}

// Parse reads what Read does from r, which has size bytes.
func Parse(r io.ReaderAt, size int64) (*File, error) {
	magic := make([]byte, len(gguf.Magic))
	if n, err := r.ReadAt(magic, 0); n < len(magic) {
		if err == io.EOF {
			err = fmt.Errorf("%w: %d bytes, which is too few for an importance matrix", tensor.ErrMalformed, size)
		}
		return nil, err
	}
	if string(magic) != gguf.Magic {
		return parseLegacy(r, size)
	}
	src, err := gguf.Parse(r, size)
	if err != nil {
		return nil, err
	}
	return fromGGUF(src)
}

func fromGGUF(src tensor.Source) (*File, error) {
	meta := src.Meta()
	if kind, ok := tensor.Lookup[string](meta, gguf.KeyType); ok && kind != Kind {
		return nil, hint.Add(fmt.Errorf("%w: %s is %q, not %q", tensor.ErrUnsupported, gguf.KeyType, kind, Kind),
			"nibble imatrix makes an importance matrix of a model and a text")
	}
	datasets, ok1 := tensor.Lookup[[]string](meta, keyDatasets)
	chunks, ok2 := tensor.Lookup[uint32](meta, keyChunks)
	chunkSize, ok3 := tensor.Lookup[uint32](meta, keyChunkSize)
	if !ok1 || !ok2 || !ok3 {
		return nil, hint.Add(fmt.Errorf("%w: not an importance matrix: it does not have %s, %s and %s",
			tensor.ErrMalformed, keyDatasets, keyChunks, keyChunkSize), "nibble imatrix makes an importance matrix of a model and a text")
	}
	f := &File{Datasets: datasets, Chunks: int(chunks), ChunkSize: int(chunkSize)}
	for info := range src.All() {
		if name, ok := strings.CutSuffix(info.Name, countsSuffix); ok {
			if !tensor.Has(src, name+sumsSuffix) {
				return nil, fmt.Errorf("%w: tensor %q has no %q beside it", tensor.ErrMalformed, info.Name, name+sumsSuffix)
			}
		}
		name, ok := strings.CutSuffix(info.Name, sumsSuffix)
		if !ok {
			continue
		}
		m := Matrix{Name: name}
		var err error
		if m.Sums, err = readF32(src, info.Name); err != nil {
			return nil, err
		}
		if m.Counts, err = readF32(src, name+countsSuffix); err != nil {
			return nil, err
		}
		m.Mats = len(m.Counts)
		if err := m.check(); err != nil {
			return nil, fmt.Errorf("%w: %w", tensor.ErrMalformed, err)
		}
		f.Entries = append(f.Entries, m)
	}
	if len(f.Entries) == 0 {
		return nil, fmt.Errorf("%w: an importance matrix without entries", tensor.ErrMalformed)
	}
	return f, nil
}

// readF32 returns the numbers of a tensor of F32. Its bytes are in the file, so
// there is no more of them than of it.
func readF32(src tensor.Source, name string) ([]float32, error) {
	info, err := src.Info(name)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", tensor.ErrMalformed, err)
	}
	if info.DType != tensor.F32 {
		return nil, fmt.Errorf("tensor %q: %w: it is %v, not F32", name, tensor.ErrMalformed, info.DType)
	}
	r, err := src.Raw(name)
	if err != nil {
		return nil, err
	}
	b, err := safeio.ReadN(r, uint64(info.Size()))
	if err != nil {
		return nil, fmt.Errorf("tensor %q: %w", name, err)
	}
	return floats(b), nil
}

func floats(b []byte) []float32 {
	out := make([]float32, len(b)/4)
	for i := range out {
		out[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
	}
	return out
}

// legacy reads a .dat file from front to back.
type legacy struct {
	r    *io.SectionReader
	left int64
}

// next reads n bytes that are still there.
func (d *legacy) next(n int64, what string) ([]byte, error) {
	if n < 0 || n > d.left {
		return nil, fmt.Errorf("at byte %d: %w: %s of %d bytes, and %d are left", d.r.Size()-d.left, tensor.ErrMalformed, what, n, d.left)
	}
	b, err := safeio.ReadN(d.r, uint64(n))
	if err == nil {
		d.left -= n
	}
	return b, err
}

func (d *legacy) int32(what string) (int64, error) {
	b, err := d.next(4, what)
	if err != nil {
		return 0, err
	}
	return int64(int32(binary.LittleEndian.Uint32(b))), nil
}

// text reads the length of a string, and it.
func (d *legacy) text(what string) (string, error) {
	n, err := d.int32("the length of " + what)
	if err != nil {
		return "", err
	}
	b, err := d.next(n, what)
	return string(b), err
}

func parseLegacy(r io.ReaderAt, size int64) (*File, error) {
	d := &legacy{io.NewSectionReader(r, 0, size), size}
	n, err := d.int32("the count of entries")
	if err != nil {
		return nil, err
	}
	// An entry has three numbers, a name and a value, 4 bytes or more each but for the name.
	if n < 1 || n > d.left/17 {
		return nil, hint.Add(fmt.Errorf("%w: not an importance matrix: as one it would have %d entries in %d bytes", tensor.ErrMalformed, n, size),
			"nibble imatrix makes an importance matrix of a model and a text")
	}
	f := new(File)
	seen := make(map[string]bool)
	for i := range n {
		m, err := d.entry()
		if err != nil {
			return nil, fmt.Errorf("entry %d: %w", i, err)
		}
		if seen[m.Name] {
			return nil, fmt.Errorf("%w: entry %q occurs twice", tensor.ErrMalformed, m.Name)
		}
		seen[m.Name] = true
		f.Entries = append(f.Entries, m)
	}
	// What follows was added to the form later.
	if d.left == 0 {
		return f, nil
	}
	chunks, err := d.int32("the count of chunks")
	if err != nil {
		return nil, err
	}
	f.Chunks = int(max(0, chunks))
	if d.left == 0 {
		return f, nil
	}
	dataset, err := d.text("the name of a data set")
	if err != nil {
		return nil, err
	}
	if dataset != "" {
		f.Datasets = []string{dataset}
	}
	return f, nil
}

func (d *legacy) entry() (Matrix, error) {
	name, err := d.text("a name")
	if err != nil {
		return Matrix{}, err
	}
	calls, err := d.int32("the count of calls")
	if err != nil {
		return Matrix{}, err
	}
	n, err := d.int32("the count of values")
	if err != nil {
		return Matrix{}, err
	}
	b, err := d.next(4*n, "values")
	if err != nil {
		return Matrix{}, err
	}
	// The values are means times calls; without calls they are taken as they are.
	m := Matrix{Name: name, Mats: 1, Sums: floats(b), Counts: []float32{float32(max(1, calls))}}
	if err := m.check(); err != nil {
		return Matrix{}, fmt.Errorf("%w: %w", tensor.ErrMalformed, err)
	}
	return m, nil
}
