package receipt

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"sync"

	"github.com/seed18967229/nibble/internal/fsx"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/internal/safeio"
	"github.com/seed18967229/nibble/tensor"
)

// RestoreOptions say where to.
type RestoreOptions struct {
	// Out is the directory, or of a base of one file the file.
	Out string

	// Force lets an existing output be replaced, if it is a directory one whose
	// files MayReplace accepts.
	Force      bool
	MayReplace func(names []string) bool

	// Dir is the directory of the merged model.
	Dir string

	// Progress is told of bytes as they are written; from any goroutine.
	Progress func(int64)
}

// A Restored says what was made.
type Restored struct {
	// Tensors were proved by their SHA-256, of them Same are as the merged model
	// has them.
	Tensors, Same int

	// Files have every byte that the base's had; Kept of them were copied from the
	// merged model.
	Files []string
	Kept  int

	Bytes int64
}

// Restore makes the base again. merged has the tensors of the merged model; Check is
// to have accepted it. Whatever is not what the base was, by its SHA-256, is an error
// that names the tensor, and nothing is left.
func (r *Receipt) Restore(ctx context.Context, merged tensor.Source, codecs tensor.Codecs, o RestoreOptions) (*Restored, error) {
	out, err := r.create(o)
	if err != nil {
		return nil, err
	}
	if err := r.restore(ctx, merged, codecs, o, out); err != nil {
		return nil, errors.Join(err, out.abort())
	}
	if err := out.commit(); err != nil {
		return nil, errors.Join(err, out.abort())
	}
	res := &Restored{Tensors: len(r.m.Tensors), Files: r.Files()}
	for _, t := range r.m.Tensors {
		if t.Same {
			res.Same++
		}
	}
	for _, f := range r.m.Files {
		res.Bytes += f.Size
		if f.Kept != "" {
			res.Kept++
		}
	}
	return res, nil
}

// output is the files of the base in the making.
type output struct {
	dir   *fsx.Dir
	files []*fsx.File
}

func (r *Receipt) create(o RestoreOptions) (*output, error) {
	out := new(output)
	path := func(string) string { return o.Out }
	force := o.Force
	if !r.m.Single {
		var err error
		if out.dir, err = fsx.CreateDir(o.Out, o.Force, o.MayReplace); err != nil {
			return nil, err
		}
		path, force = func(name string) string { return filepath.Join(out.dir.Temp(), name) }, false
	}
	for _, f := range r.m.Files {
		file, err := fsx.Create(path(f.Name), force)
		if err == nil {
			out.files = append(out.files, file)
			err = file.Reserve(f.Size)
		}
		if err != nil {
			return nil, errors.Join(err, out.abort())
		}
	}
	return out, nil
}

func (o *output) commit() error {
	for _, f := range o.files {
		if err := f.Commit(); err != nil {
			return err
		}
	}
	if o.dir != nil {
		return o.dir.Commit()
	}
	return nil
}

func (o *output) abort() error {
	var errs []error
	for _, f := range o.files {
		errs = append(errs, f.Abort())
	}
	if o.dir != nil {
		errs = append(errs, o.dir.Abort())
	}
	return errors.Join(errs...)
}

func (r *Receipt) restore(ctx context.Context, merged tensor.Source, codecs tensor.Codecs, o RestoreOptions, out *output) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var mu sync.Mutex
	var first error
	fail := func(err error) error {
		mu.Lock()
		defer mu.Unlock()
		if first == nil {
			first = err
		}
		cancel() // the others need not go on
		return err
	}
	var jobs []func() error
	job := func(f func(ctx context.Context) error) {
		jobs = append(jobs, func() error {
			if err := f(ctx); err != nil {
				return fail(err)
			}
			return nil
		})
	}
	at := int64(len(magic))
	for i := range r.m.Tensors {
		t := &r.m.Tensors[i]
		start := at
		for _, f := range t.Factors {
			at += sum(f.B) + sum(f.A)
		}
		at += sum(t.Blocks)
		job(func(ctx context.Context) error {
			p := &placing{out: out, places: t.Places, progress: o.Progress}
			if err := r.tensor(ctx, merged, codecs, t, start, p); err != nil {
				return fmt.Errorf("tensor %q: %w", t.Name, err)
			}
			return nil
		})
	}
	for i := range r.m.Literals {
		x := &r.m.Literals[i]
		start := at
		at += sum(x.Blocks)
		job(func(ctx context.Context) error {
			p := &placing{out: out, places: []place{x.Place}, progress: o.Progress}
			if err := r.literal(ctx, x, start, p); err != nil {
				return fmt.Errorf("%s: file %q: %w", r.path, r.m.Files[x.Place.File].Name, err)
			}
			return nil
		})
	}
	for i, f := range r.m.Files {
		if f.Kept != "" {
			job(func(ctx context.Context) error {
				p := &placing{out: out, places: []place{{i, 0, f.Size}}, progress: o.Progress}
				return r.kept(ctx, filepath.Join(o.Dir, f.Name), f, p)
			})
		}
	}
	err := parallel(jobs)
	if first != nil {
		return first
	}
	return err
}

func sum(list []int64) int64 {
	var n int64
	for _, x := range list {
		n += x
	}
	return n
}

// placing writes bytes to their places in files, one after another.
type placing struct {
	out      *output
	places   []place
	done     int64 // of the first place
	progress func(int64)
}

// Write implements io.Writer.
func (p *placing) Write(b []byte) (int, error) {
	n := len(b)
	for len(b) > 0 {
		if len(p.places) == 0 {
			return 0, errBlock("has more bytes than there is room for")
		}
		at := p.places[0]
		part := b[:min(int64(len(b)), at.Size-p.done)]
		if _, err := p.out.files[at.File].WriteAt(part, at.Off+p.done); err != nil {
			return 0, err
		}
		b = b[len(part):]
		if p.done += int64(len(part)); p.done == at.Size {
			p.places, p.done = p.places[1:], 0
		}
	}
	p.progress(int64(n))
	return n, nil
}

// complete returns an error unless every place is filled.
func (p *placing) complete() error {
	for _, at := range p.places {
		if at.Size > p.done {
			return errBlock("is missing")
		}
	}
	return nil
}

// prove checks a hash.
func prove(got []byte, want string) error {
	if h := hex.EncodeToString(got); h != want {
		return hint.Add(malformed("what was made is not what the base had: its SHA-256 is %s, the receipt says %s", h, want),
			"the merged model has been changed since it was merged")
	}
	return nil
}

func (r *Receipt) tensor(ctx context.Context, merged tensor.Source, codecs tensor.Codecs, t *tensorEntry, at int64, p *placing) error {
	hash := sha256.New()
	var err error
	if t.Same {
		var raw *io.SectionReader
		if raw, err = merged.Raw(t.Name); err == nil {
			info := tensor.Info{Name: t.Name, Shape: t.Shape}
			if info.DType, err = tensor.ParseDType(t.DType); err == nil {
				err = copyPanels(ctx, io.MultiWriter(hash, p), io.NewSectionReader(raw, 0, info.Size()))
			}
		}
	} else {
		err = r.blocks(ctx, merged, codecs, t, at, io.MultiWriter(hash, p))
	}
	if err == nil {
		err = p.complete()
	}
	if err != nil {
		return err
	}
	return prove(hash.Sum(nil), t.SHA256)
}

func (r *Receipt) blocks(ctx context.Context, merged tensor.Source, codecs tensor.Codecs, t *tensorEntry, at int64, dst io.Writer) error {
	c, err := coderOf(t.DType, t.Block, t.Merged)
	if err != nil {
		return err
	}
	info, values, err := codecs.OpenFrom(merged, t.Name)
	if err != nil {
		return err
	}
	rows, cols := t.Shape.Rows(), t.Shape.Cols()
	if info.Shape.Cols() != cols || info.Shape.Rows() < rows {
		return malformed("it has the shape %v, of the base's %v", info.Shape, t.Shape)
	}
	in := &blockReader{file: r.file, at: at}
	factors := make([]factor, len(t.Factors))
	for i, f := range t.Factors {
		factors[i] = factor{rank: int(f.Rank), scale: f.Scale}
		if factors[i].b, err = in.floats(ctx, f.B, f.Rank*rows); err != nil {
			return err
		}
		if factors[i].a, err = in.floats(ctx, f.A, f.Rank*cols); err != nil {
			return err
		}
	}
	per := panelRows(c, rows, cols)
	n := int(per * cols)
	m, d, product, base := make([]float32, n), make([]float32, n), make([]float32, n), make([]byte, c.size(int64(n)))
	for i, size := range t.Blocks {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		row := int64(i) * per
		elems := min(per, rows-row) * cols
		how, coded, err := in.next(size)
		if err != nil {
			return err
		}
		m, d, base := m[:elems], d[:elems], base[:c.size(elems)]
		if err := values.ReadRows(m, row); err != nil {
			return err
		}
		deltaRows(d, product, factors, row, int(cols))
		if err := c.decode(base, how, coded, m, d, int(cols)); err != nil {
			return err
		}
		if _, err := dst.Write(base); err != nil {
			return err
		}
	}
	return nil
}

func (r *Receipt) literal(ctx context.Context, x *literalEntry, at int64, p *placing) error {
	hash := sha256.New()
	in := &blockReader{file: r.file, at: at}
	if err := in.literal(ctx, x.Blocks, x.Place.Size, io.MultiWriter(hash, p)); err != nil {
		return err
	}
	return prove(hash.Sum(nil), x.SHA256)
}

// kept copies a file that the merged model has.
func (r *Receipt) kept(ctx context.Context, path string, f fileEntry, p *placing) error {
	in, size, err := safeio.OpenFile(path)
	if err != nil {
		return err
	}
	defer in.Close()
	if size != f.Size {
		return malformed("%s has %d bytes, the base's had %d", path, size, f.Size)
	}
	hash := sha256.New()
	if err := copyPanels(ctx, io.MultiWriter(hash, p), in); err != nil {
		return safeio.WithPath(path, err)
	}
	if err := prove(hash.Sum(nil), f.Kept); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// blockReader reads one block after another.
type blockReader struct {
	file io.ReaderAt
	at   int64
	buf  []byte
}

func (b *blockReader) next(size int64) (how byte, coded []byte, err error) {
	if int64(cap(b.buf)) < size {
		b.buf = make([]byte, size)
	}
	buf := b.buf[:size]
	if n, err := b.file.ReadAt(buf, b.at); int64(n) < size {
		return 0, nil, err
	}
	b.at += size
	return unframe(buf)
}

// literal decodes a literal of size bytes to dst.
func (b *blockReader) literal(ctx context.Context, blocks []int64, size int64, dst io.Writer) error {
	buf := make([]byte, min(chunk, size))
	for _, n := range blocks {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		how, coded, err := b.next(n)
		if err != nil {
			return err
		}
		part := buf[:min(chunk, size)]
		if err := decodeLiteral(part, how, coded); err != nil {
			return err
		}
		if _, err := dst.Write(part); err != nil {
			return err
		}
		size -= int64(len(part))
	}
	return nil
}

// floats decodes a literal of n numbers.
func (b *blockReader) floats(ctx context.Context, blocks []int64, n int64) ([]float32, error) {
	w := &floatWriter{out: make([]float32, n)}
	return w.out, b.literal(ctx, blocks, 4*n, w)
}

// floatWriter takes the bytes of numbers, whole ones at a time.
type floatWriter struct {
	out  []float32
	done int
}

// Write implements io.Writer.
func (w *floatWriter) Write(b []byte) (int, error) {
	kernel.DecodeF32(w.out[w.done:w.done+len(b)/4], b)
	w.done += len(b) / 4
	return len(b), nil
}
