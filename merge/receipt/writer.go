package receipt

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"

	"github.com/seed18967229/nibble/internal/fsx"
	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/internal/safeio"
	"github.com/seed18967229/nibble/merge"
	"github.com/seed18967229/nibble/nf4"
	"github.com/seed18967229/nibble/pipeline"
	"github.com/seed18967229/nibble/tensor"
)

// magic begins and ends a receipt.
const magic = "NIBRCPT1"

// maxPlaces bounds how many places the manifest names: those of rows that a GGUF file
// has in another order. What is beyond is stored.
const maxPlaces = 1 << 20

// footerSize is what stands after the manifest.
const footerSize = int64(3*8 + sha256.Size + len(magic))

// A File is one of the base's.
type File struct {
	Name, Path string

	// Kept says that the merged model has the file as it is, under that name.
	Kept bool
}

// Options say what a receipt is of.
type Options struct {
	// Base has the tensors of the base that a merged model is told from. Files are
	// all files that are to be made again; what of them is in no tensor of Base is
	// stored. Single says that the base is the one file, not a directory.
	Base   tensor.Source
	Files  []File
	Single bool

	Codecs tensor.Codecs

	// Changes are what was done to the base, of which the deltas of low rank are
	// stored.
	Changes []merge.Change

	// Merge is what to say of the merge, JSON.
	Merge []byte

	Force bool
}

// A Writer writes a receipt while the model is merged.
type Writer struct {
	o       Options
	file    *fsx.File
	spill   *os.File
	merged  tensor.Source
	tracked []*tracked
	index   map[string]*tracked
	files   []fileEntry
	size    int64 // of the receipt, when it is finished

	mu  sync.Mutex
	end int64 // of what is spilled
}

// tracked is a tensor of the base, and what has been written of it.
type tracked struct {
	info    tensor.Info
	changes []merge.Change
	entry   tensorEntry
	start   int64 // of the stored bytes, in those of the tensor
	once    sync.Once
	err     error

	factors [][2][]stored
	blocks  []stored
}

// stored is where a block was spilled.
type stored struct{ at, size int64 }

// Create starts a receipt in the file path and finds out where in the base's files
// its tensors lie.
func Create(path string, o Options) (*Writer, error) {
	w := &Writer{o: o, index: make(map[string]*tracked)}
	if err := w.plan(); err != nil {
		return nil, err
	}
	var err error
	if w.file, err = fsx.Create(path, o.Force); err != nil {
		return nil, err
	}
	// Blocks are finished in any order. They wait in a file without a name for
	// theirs.
	if w.spill, err = os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".nibble-*"); err != nil {
		return nil, errors.Join(safeio.WithPath(path, err), w.file.Abort())
	}
	os.Remove(w.spill.Name())
	return w, nil
}

// plan finds the files and places of the base's tensors.
func (w *Writer) plan() error {
	byPath := make(map[string]int)
	for i, f := range w.o.Files {
		st, err := os.Stat(f.Path)
		if err != nil {
			return safeio.WithPath(f.Path, err)
		}
		w.files = append(w.files, fileEntry{Name: f.Name, Size: st.Size()})
		byPath[f.Path] = i
	}
	changes := make(map[string][]merge.Change)
	for _, c := range w.o.Changes {
		changes[c.Target()] = append(changes[c.Target()], c)
	}
	taken := make(map[place]bool)
	places := 0
	for info := range w.o.Base.All() {
		t := &tracked{info: info, changes: changes[info.Name], entry: tensorEntry{Name: info.Name, DType: info.DType.String(), Shape: info.Shape}}
		size := info.Size()
		if info.DType.Opaque() {
			if info.DType == tensor.NF4 || info.DType == tensor.FP4 {
				h, err := nf4.Describe(w.o.Base, info.Name)
				if err != nil {
					return fmt.Errorf("tensor %q: %w", info.Name, err)
				}
				t.entry.Block = h.BlockSize
			}
			// What comes before the codes, scales and the like, is stored.
			c := newCoder(info.DType, t.entry.Block, info.DType)
			if c == nil {
				continue
			}
			size = c.size(info.Shape.Elems())
			t.start = info.Size() - size
		}
		raw, err := w.o.Base.Raw(info.Name)
		if err != nil {
			return err
		}
		list, ok := tensor.Places(raw, t.start, size)
		if !ok || size == 0 || len(list) > maxPlaces-places {
			continue
		}
		places += len(list)
		for _, e := range list {
			i, known := byPath[e.File.Name()]
			if !known {
				return fmt.Errorf("tensor %q: it lies in %s, which is not among the files of the base", info.Name, e.File.Name())
			}
			p := place{i, e.Off, e.Size}
			if n := len(t.entry.Places); n > 0 && t.entry.Places[n-1].File == i && t.entry.Places[n-1].Off+t.entry.Places[n-1].Size == e.Off {
				t.entry.Places[n-1].Size += e.Size
				continue
			}
			t.entry.Places = append(t.entry.Places, p)
		}
		// Two tensors may be views of the same bytes; one of them is enough.
		if slices.ContainsFunc(t.entry.Places, func(p place) bool { return taken[p] }) {
			continue
		}
		for _, p := range t.entry.Places {
			taken[p] = true
		}
		w.tracked = append(w.tracked, t)
		w.index[info.Name] = t
	}
	return nil
}

// Merged says what the merged model is: a Source with its tensors as they will be
// read, under the names of the base's.
func (w *Writer) Merged(src tensor.Source) error {
	w.merged = src
	kept := w.tracked[:0]
	for _, t := range w.tracked {
		info, err := src.Info(t.info.Name)
		rows := t.info.Shape
		if err != nil || len(info.Shape) != len(rows) || info.Shape.Cols() != rows.Cols() || info.Shape.Rows() < rows.Rows() {
			delete(w.index, t.info.Name) // it is stored
			continue
		}
		t.entry.Merged = info.DType.String()
		t.entry.Same = len(t.changes) == 0 && info.DType == t.info.DType && !info.DType.Opaque()
		if !t.entry.Same && newCoder(t.info.DType, t.entry.Block, info.DType) == nil {
			delete(w.index, t.info.Name)
			continue
		}
		kept = append(kept, t)
	}
	w.tracked = kept
	return nil
}

// Follow makes each step of a plan write its tensor's part of the receipt when it has
// run, while what it read is still at hand.
func (w *Writer) Follow(p *pipeline.Plan) {
	for i := range p.Steps {
		s := &p.Steps[i]
		var names []string
		for _, name := range s.In {
			if w.index[name] != nil {
				names = append(names, name)
			}
		}
		if len(names) == 0 {
			continue
		}
		run := s.Run
		s.Scratch += scratchBytes
		s.Run = func(ctx context.Context, src tensor.Source, out []io.WriterAt) error {
			if err := run(ctx, src, out); err != nil {
				return err
			}
			for _, name := range names {
				if err := w.index[name].record(ctx, w); err != nil {
					return err
				}
			}
			return nil
		}
	}
}

// scratchBytes is what recording a tensor takes beside its factors: three panels of
// values, and bytes.
const scratchBytes = 6 * 4 * panelElems

// record writes what is to be written of a tensor, once.
func (t *tracked) record(ctx context.Context, w *Writer) error {
	t.once.Do(func() {
		if t.err = t.write(ctx, w); t.err != nil {
			t.err = fmt.Errorf("tensor %q: receipt: %w", t.info.Name, t.err)
		}
	})
	return t.err
}

func (t *tracked) write(ctx context.Context, w *Writer) error {
	raw, err := w.o.Base.Raw(t.info.Name)
	if err != nil {
		return err
	}
	if t.entry.Head, err = headOf(w.merged, t.info.Name); err != nil {
		return err
	}
	sum := sha256.New()
	if t.entry.Same {
		err = copyPanels(ctx, sum, io.NewSectionReader(raw, 0, t.info.Size()))
	} else {
		err = t.writeBlocks(ctx, w, raw, sum)
	}
	t.entry.SHA256 = hex.EncodeToString(sum.Sum(nil))
	return err
}

// copyPanels copies r, and stops when ctx is done.
func copyPanels(ctx context.Context, dst io.Writer, r io.Reader) error {
	buf := make([]byte, chunk)
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n, err := io.ReadFull(r, buf)
		if _, werr := dst.Write(buf[:n]); werr != nil {
			return werr
		}
		switch err {
		case nil:
		case io.EOF, io.ErrUnexpectedEOF:
			return nil
		default:
			return err
		}
	}
}

// headBytes is how much of a merged tensor is looked at before anything is restored.
const headBytes = 4096

// headOf returns the hash of the first bytes of a tensor.
func headOf(src tensor.Source, name string) (string, error) {
	info, err := src.Info(name)
	if err != nil || info.DType.Opaque() {
		return "", err
	}
	raw, err := src.Raw(name)
	if err != nil {
		return "", err
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, io.NewSectionReader(raw, 0, min(headBytes, info.Size()))); err != nil {
		return "", err
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

func (t *tracked) writeBlocks(ctx context.Context, w *Writer, raw io.ReaderAt, sum hash.Hash) error {
	shape := t.info.Shape
	rows, cols := shape.Rows(), shape.Cols()
	c, err := coderOf(t.entry.DType, t.entry.Block, t.entry.Merged)
	if err != nil {
		return err
	}
	factors, exact, err := factorsOf(t.changes, shape)
	if err != nil {
		return err
	}
	for _, f := range factors {
		var at [2][]stored
		for i, x := range [][]float32{f.b, f.a} {
			b := make([]byte, 4*len(x))
			kernel.EncodeF32(b, x)
			if at[i], err = w.spillLiteral(ctx, bytes.NewReader(b), int64(len(b)), nil); err != nil {
				return err
			}
		}
		t.factors = append(t.factors, at)
		t.entry.Factors = append(t.entry.Factors, factorEntry{Rank: int64(f.rank), Scale: f.scale})
	}
	_, values, err := w.o.Codecs.OpenFrom(w.merged, t.info.Name)
	if err != nil {
		return err
	}
	per := panelRows(c, rows, cols)
	n := int(per * cols)
	m, d, product, base := make([]float32, n), make([]float32, n), make([]float32, n), make([]byte, c.size(int64(n)))
	for row := int64(0); row < rows && cols > 0; row += per {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		elems := min(per, rows-row) * cols
		m, d := m[:elems], d[:elems]
		at, size := c.size(row*cols), c.size(elems)
		if k, err := raw.ReadAt(base[:size], t.start+at); int64(k) < size {
			if err == nil || err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
		sum.Write(base[:size])
		if err := values.ReadRows(m, row); err != nil {
			return err
		}
		deltaRows(d, product, factors, row, int(cols))
		how, coded, err := c.encode(base[:size], m, d, int(cols), exact)
		if err != nil {
			return err
		}
		s, err := w.spillBlock(frame(how, coded))
		if err != nil {
			return err
		}
		t.blocks = append(t.blocks, s)
	}
	return nil
}

// spillBlock keeps a block until its turn.
func (w *Writer) spillBlock(b []byte) (stored, error) {
	w.mu.Lock()
	s := stored{w.end, int64(len(b))}
	w.end += s.size
	w.mu.Unlock()
	_, err := w.spill.WriteAt(b, s.at)
	return s, err
}

// spillLiteral keeps size bytes of r, chunk by chunk, and adds them to sum, which may
// be nil.
func (w *Writer) spillLiteral(ctx context.Context, r io.Reader, size int64, sum hash.Hash) ([]stored, error) {
	var list []stored
	buf := make([]byte, min(chunk, size))
	for size > 0 {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		b := buf[:min(chunk, size)]
		if _, err := io.ReadFull(r, b); err != nil {
			return nil, err
		}
		if sum != nil {
			sum.Write(b)
		}
		how, coded := encodeLiteral(b)
		s, err := w.spillBlock(frame(how, coded))
		if err != nil {
			return nil, err
		}
		list, size = append(list, s), size-int64(len(b))
	}
	return list, nil
}

// maxLiteral is where a literal is cut, so that several can be restored at a time.
const maxLiteral = 64 << 20

// rest returns the places of the files that no tensor covers.
func (w *Writer) rest() []literalEntry {
	covered := make([][]place, len(w.files))
	for _, t := range w.tracked {
		for _, p := range t.entry.Places {
			covered[p.File] = append(covered[p.File], p)
		}
	}
	var out []literalEntry
	for i, f := range w.files {
		if w.o.Files[i].Kept {
			continue
		}
		slices.SortFunc(covered[i], func(a, b place) int { return int(min(1, max(-1, a.Off-b.Off))) })
		at := int64(0)
		for _, p := range append(covered[i], place{i, f.Size, 0}) {
			for at < p.Off {
				n := min(maxLiteral, p.Off-at)
				out = append(out, literalEntry{Place: place{i, at, n}})
				at += n
			}
			at = max(at, p.Off+p.Size)
		}
	}
	return out
}

// finish writes everything that is not written yet and puts the receipt together.
func (w *Writer) finish(ctx context.Context) error {
	jobs := make([]func() error, 0, len(w.tracked))
	for _, t := range w.tracked {
		jobs = append(jobs, func() error { return t.record(ctx, w) })
	}
	literals := w.rest()
	where := make([][]stored, len(literals))
	for i := range literals {
		jobs = append(jobs, func() (err error) {
			x := &literals[i]
			f, _, err := safeio.OpenFile(w.o.Files[x.Place.File].Path)
			if err != nil {
				return err
			}
			defer f.Close()
			sum := sha256.New()
			where[i], err = w.spillLiteral(ctx, io.NewSectionReader(f, x.Place.Off, x.Place.Size), x.Place.Size, sum)
			x.SHA256 = hex.EncodeToString(sum.Sum(nil))
			return err
		})
	}
	for i, f := range w.o.Files {
		if f.Kept {
			jobs = append(jobs, func() (err error) {
				w.files[i].Kept, err = safeio.SHA256(ctx, f.Path, func(int64) {})
				return err
			})
		}
	}
	if err := parallel(jobs); err != nil {
		return err
	}
	return w.assemble(literals, where)
}

// parallel does jobs, as many at a time as there are processors to use, until one
// fails.
func parallel(jobs []func() error) error {
	var mu sync.Mutex
	var first error
	next := 0
	take := func() func() error {
		mu.Lock()
		defer mu.Unlock()
		if first != nil || next == len(jobs) {
			return nil
		}
		next++
		return jobs[next-1]
	}
	var wg sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), len(jobs)) {
		wg.Go(func() {
			for job := take(); job != nil; job = take() {
				if err := job(); err != nil {
					mu.Lock()
					if first == nil {
						first = err
					}
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	return first
}

// Size returns the bytes of the receipt once it is finished.
func (w *Writer) Size() int64 { return w.size }

// BaseSize returns the bytes of the base's files.
func (w *Writer) BaseSize() int64 {
	var n int64
	for _, f := range w.files {
		n += f.Size
	}
	return n
}

// Keep says that the merged model will have a file of the base, path, as it is.
func (w *Writer) Keep(name, path string) {
	for i, f := range w.o.Files {
		if f.Name == name && f.Path == path {
			w.o.Files[i].Kept = true
		}
	}
}

// Sink returns what stores the merged model in dst and with it the receipt: the
// receipt is complete and synced before the model gets its name, and gets its own
// right after. If either fails before, neither is left.
func (w *Writer) Sink(ctx context.Context, dst tensor.Sink) tensor.Sink { return &sink{dst, w, ctx} }

type sink struct {
	tensor.Sink
	w   *Writer
	ctx context.Context
}

// Finish implements tensor.Sink.
func (s *sink) Finish() error {
	if err := s.w.finish(s.ctx); err != nil {
		return errors.Join(err, s.Abort())
	}
	if err := s.Sink.Finish(); err != nil {
		return errors.Join(err, s.w.Abort())
	}
	return s.w.commit()
}

// Abort implements tensor.Sink.
func (s *sink) Abort() error { return errors.Join(s.Sink.Abort(), s.w.Abort()) }

// Finish writes the receipt of a model that is there already.
func (w *Writer) Finish(ctx context.Context) error {
	if err := w.finish(ctx); err != nil {
		return errors.Join(err, w.Abort())
	}
	return w.commit()
}

func (w *Writer) commit() error {
	w.spill.Close()
	return w.file.Commit()
}

// Abort removes what was written. After the receipt is there it does nothing.
func (w *Writer) Abort() error {
	w.spill.Close()
	return w.file.Abort()
}
