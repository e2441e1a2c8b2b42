package records

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/safeio"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/train/data/records/parquet"
)

const wantParquet = "want a Parquet file with rows"

// pages are the rows of Parquet.
type pages struct {
	src  *source
	file *parquet.File
	temp *os.File // what was unpacked, nil if nothing was
	row  int64
}

// openParquet opens a file that is read in many places at once, and so must be
// unpacked before if it is packed.
func openParquet(src *source, o Options) (rows, error) {
	p := &pages{src: src}
	from, size := io.ReaderAt(src.f), src.size
	if src.packed != nil {
		var err error
		if p.temp, size, err = unpackToScratch(src, o.ScratchDir); err != nil {
			return nil, err
		}
		from = p.temp
	}
	var err error
	if p.file, err = parquet.Open(from, size); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", src.path, err), p.Close())
	}
	return p, nil
}

// maxUnpacked is how many times its size a packed Parquet file may become. Parquet
// is packed in itself, so that packing it again gains little.
const maxUnpacked = 32

func unpackToScratch(src *source, dir string) (*os.File, int64, error) {
	f, err := os.CreateTemp(dir, "nibble-*")
	if err != nil {
		return nil, 0, err
	}
	_ = os.Remove(f.Name()) // it lives on without a name, but not on Windows: see Close
	most, ok := safeio.Mul(src.size, maxUnpacked)
	if most += bufferSize; !ok {
		most = src.size
	}
	n, err := io.Copy(f, io.LimitReader(src.in, most+1))
	if err == nil && n > most {
		err = hint.Add(fmt.Errorf("%s: %w: %d bytes of %s become more than %d", src.path, tensor.ErrMalformed, src.size, src.packed.name, most), "decompress the file first")
	}
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, n, nil
}

func (p *pages) next() (Row, error) {
	value, err := p.file.Next()
	if err == io.EOF {
		return Row{}, err
	}
	p.row++
	if err != nil {
		return Row{}, fmt.Errorf("%s: row %d: %w", p.src.path, p.row, err)
	}
	return Row{Value: value, Line: p.row}, nil
}

func (p *pages) done() (part, of int64) { return p.row, p.file.Rows() }

// Close removes what was unpacked.
func (p *pages) Close() error {
	if p.temp == nil {
		return nil
	}
	err := p.temp.Close()
	_ = os.Remove(p.temp.Name())
	return err
}
