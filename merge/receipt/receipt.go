package receipt

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/safeio"
	"github.com/seed18967229/nibble/tensor"
)

// A Receipt is one that was opened.
type Receipt struct {
	path string
	file *os.File
	end  int64 // of the blocks
	m    *manifest
}

// Open opens a receipt and checks what it says about itself.
func Open(path string) (*Receipt, error) {
	f, size, err := safeio.OpenFile(path)
	if err != nil {
		return nil, err
	}
	m, end, err := read(f, size)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return &Receipt{path: path, file: f, end: end, m: m}, nil
}

// Close closes its file.
func (r *Receipt) Close() error { return r.file.Close() }

// Merge returns what the receipt says of the merge.
func (r *Receipt) Merge() []byte { return r.m.Merge }

// Size returns the bytes of the files of the base.
func (r *Receipt) Size() int64 {
	var n int64
	for _, f := range r.m.Files {
		n += f.Size
	}
	return n
}

// Files returns the names of the files that the base consists of.
func (r *Receipt) Files() []string {
	names := make([]string, len(r.m.Files))
	for i, f := range r.m.Files {
		names[i] = f.Name
	}
	return names
}

// read reads a receipt's manifest, and returns where the blocks end too.
func read(f io.ReaderAt, size int64) (*manifest, int64, error) {
	notOne := hint.Add(malformed("not a receipt of nibble merge"), "nibble merge --receipt FILE writes one")
	if size < int64(len(magic))+footerSize {
		return nil, 0, notOne
	}
	head, foot := make([]byte, len(magic)), make([]byte, footerSize)
	if _, err := f.ReadAt(head, 0); err != nil {
		return nil, 0, err
	}
	if string(head) != magic {
		return nil, 0, notOne
	}
	if n, err := f.ReadAt(foot, size-footerSize); n < len(foot) {
		return nil, 0, err
	}
	if string(foot[footerSize-int64(len(magic)):]) != magic {
		return nil, 0, malformed("truncated: its end is missing")
	}
	at, stored, text := binary.LittleEndian.Uint64(foot), binary.LittleEndian.Uint64(foot[8:]), binary.LittleEndian.Uint64(foot[16:])
	room := uint64(size - footerSize)
	if at > room || stored != room-at || stored > maxManifest || text > maxManifest {
		return nil, 0, malformed("its end is damaged")
	}
	coded, err := safeio.ReadN(io.NewSectionReader(f, int64(at), int64(stored)), stored)
	if err != nil {
		return nil, 0, err
	}
	if sum := sha256.Sum256(coded); string(sum[:]) != string(foot[24:24+sha256.Size]) {
		return nil, 0, malformed("damaged: its manifest has another SHA-256")
	}
	b, err := unzstd(coded, int(text))
	if err != nil {
		return nil, 0, err
	}
	m, err := parseManifest(b, int64(at))
	return m, int64(at), err
}

// Check reports what is wrong without writing anything: a receipt that is damaged, one
// of another model, a merged model that has been changed where that shows at once. merged has the tensors of the merged model,
// dir is its directory, for the files that it kept.
func (r *Receipt) Check(ctx context.Context, merged tensor.Source, dir string) error {
	for _, t := range r.m.Tensors {
		info, err := merged.Info(t.Name)
		if err != nil {
			return r.other(fmt.Errorf("%w: it is of a model with a tensor %q, which is not there", tensor.ErrMalformed, t.Name))
		}
		if info.DType.String() != t.Merged || len(info.Shape) != len(t.Shape) || info.Shape.Cols() != t.Shape.Cols() || info.Shape.Rows() < t.Shape.Rows() {
			return r.other(fmt.Errorf("%w: it is of a model whose tensor %q is %s of %v, this is %v of %v",
				tensor.ErrMalformed, t.Name, t.Merged, t.Shape, info.DType, info.Shape))
		}
		head, err := headOf(merged, t.Name)
		if err != nil {
			return err
		}
		if t.Head != head {
			return r.other(fmt.Errorf("%w: tensor %q is not what was merged: its first bytes differ", tensor.ErrMalformed, t.Name))
		}
	}
	for _, f := range r.m.Files {
		if f.Kept == "" {
			continue
		}
		path := filepath.Join(dir, f.Name)
		sum, err := safeio.SHA256(ctx, path, func(int64) {})
		if err != nil {
			return fmt.Errorf("the base's %s is to come from the merged model: %w", f.Name, err)
		}
		if sum != f.Kept {
			return hint.Add(fmt.Errorf("%s: %w: not the file that the base had: its SHA-256 is %s, the receipt says %s", path, tensor.ErrMalformed, sum, f.Kept),
				"restore the file, or unmerge a copy of the model as it was merged")
		}
	}
	return r.checkBlocks(ctx)
}

func (r *Receipt) other(err error) error {
	return hint.Add(fmt.Errorf("%s: %w", r.path, err), "is this the receipt of that merge, and has the merged model not been changed since?")
}

// checkBlocks reads all blocks and checks their checksums.
func (r *Receipt) checkBlocks(ctx context.Context) error {
	at := int64(len(magic))
	var buf []byte
	each := func(what string, blocks []int64) error {
		for _, n := range blocks {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if int64(cap(buf)) < n {
				buf = make([]byte, n)
			}
			buf = buf[:n]
			if k, err := r.file.ReadAt(buf, at); int64(k) < n {
				return safeio.WithPath(r.path, err)
			}
			if _, _, err := unframe(buf); err != nil {
				return hint.Add(fmt.Errorf("%s: %s: at byte %d: %w", r.path, what, at, err), "copy the receipt again from where it is whole")
			}
			at += n
		}
		return nil
	}
	for _, t := range r.m.Tensors {
		what := fmt.Sprintf("tensor %q", t.Name)
		for _, f := range t.Factors {
			if err := each(what, f.B); err != nil {
				return err
			}
			if err := each(what, f.A); err != nil {
				return err
			}
		}
		if err := each(what, t.Blocks); err != nil {
			return err
		}
	}
	for _, x := range r.m.Literals {
		if err := each(fmt.Sprintf("of file %q", r.m.Files[x.Place.File].Name), x.Blocks); err != nil {
			return err
		}
	}
	return nil
}
