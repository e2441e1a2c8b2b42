package receipt

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"

	"github.com/seed18967229/nibble/internal/fsx"
	"github.com/seed18967229/nibble/tensor"
)

// assemble puts the blocks in their order.
func (w *Writer) assemble(literals []literalEntry, where [][]stored) error {
	out := &appender{file: w.file, buf: make([]byte, chunk)}
	out.write([]byte(magic))
	lengths := func(list []stored) []int64 {
		ns := make([]int64, len(list))
		for i, s := range list {
			ns[i] = s.size
			out.copy(w.spill, s)
		}
		return ns
	}
	m := manifest{Version: formatVersion, Merge: w.o.Merge, Single: w.o.Single, Files: w.files, Literals: literals}
	for _, t := range w.tracked {
		e := t.entry
		for i, at := range t.factors {
			e.Factors[i].B, e.Factors[i].A = lengths(at[0]), lengths(at[1])
		}
		e.Blocks = lengths(t.blocks)
		m.Tensors = append(m.Tensors, e)
	}
	for i := range literals {
		m.Literals[i].Blocks = lengths(where[i])
	}
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if len(text) > maxManifest {
		return fmt.Errorf("%w: a receipt whose manifest has %d bytes", tensor.ErrUnsupported, len(text))
	}
	coded := encoder().EncodeAll(text, nil)
	sum := sha256.Sum256(coded)
	footer := make([]byte, 0, footerSize)
	for _, n := range []int64{out.at, int64(len(coded)), int64(len(text))} {
		footer = binary.LittleEndian.AppendUint64(footer, uint64(n))
	}
	footer = append(append(footer, sum[:]...), magic...)
	out.write(coded)
	out.write(footer)
	w.size = out.at
	if out.err != nil {
		return out.err
	}
	return w.file.Sync()
}

// appender writes one thing after another and remembers the first error.
type appender struct {
	file *fsx.File
	at   int64
	buf  []byte
	err  error
}

func (a *appender) write(b []byte) {
	if a.err == nil {
		_, a.err = a.file.WriteAt(b, a.at)
	}
	a.at += int64(len(b))
}

func (a *appender) copy(from io.ReaderAt, s stored) {
	for done := int64(0); done < s.size && a.err == nil; {
		b := a.buf[:min(int64(len(a.buf)), s.size-done)]
		if _, a.err = from.ReadAt(b, s.at+done); a.err == nil {
			a.write(b)
		}
		done += int64(len(b))
	}
}
