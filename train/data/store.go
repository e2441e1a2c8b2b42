package data

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"slices"

	"github.com/seed18967229/nibble/internal/scratch"
)

// store keeps the tokens of one file in a scratch file, so that every format gives
// random access, no text is split twice and memory does not grow with the text. In
// memory is where each row ends.
type store struct {
	f      *scratch.Stream
	ends   index // of each row, in tokens
	tokens int64
	sum    hash.Hash
	buf    []byte // what is not yet written
}

// untrained marks a token that loss is not taken on. Token ids need 31 bits.
const untrained = 1 << 31

// flushAt is how much is written at a time.
const flushAt = 1 << 20

func newStore(dir string) (*store, error) {
	f, err := scratch.NewStream(dir)
	if err != nil {
		return nil, err
	}
	return &store{f: f, sum: sha256.New()}, nil
}

// append adds tokens to the row that is being written. loss is as in Example.
func (s *store) append(tokens []int32, loss []bool) error {
	for i, t := range tokens {
		v := uint32(t)
		if loss != nil && !loss[i] {
			v |= untrained
		}
		s.buf = binary.LittleEndian.AppendUint32(s.buf, v)
	}
	s.tokens += int64(len(tokens))
	if len(s.buf) < flushAt {
		return nil
	}
	return s.flush()
}

// endRow ends the row that is being written.
func (s *store) endRow() { s.ends.add(s.tokens) }

func (s *store) flush() error {
	s.sum.Write(s.buf)
	_, err := s.f.Write(s.buf)
	s.buf = s.buf[:0]
	return err
}

// finish writes what is left, and returns a digest of all tokens, what is trained of
// them and where rows end.
func (s *store) finish() (digest string, err error) {
	if err := s.flush(); err != nil {
		return "", err
	}
	var b [8]byte
	for i := range s.ends.len() {
		s.sum.Write(binary.LittleEndian.AppendUint64(b[:0], uint64(s.ends.at(i))))
	}
	digest = hex.EncodeToString(s.sum.Sum(nil))
	s.buf, s.sum = nil, nil
	return digest, nil
}

// read returns tokens from one on up to another. loss is nil if all are trained.
func (s *store) read(from, to int64) (tokens []int32, loss []bool, err error) {
	b := make([]byte, 4*(to-from))
	if _, err := s.f.ReadAt(b, 4*from); err != nil {
		return nil, nil, fmt.Errorf("reading back tokens: %w", err)
	}
	tokens = make([]int32, to-from)
	for i := range tokens {
		v := binary.LittleEndian.Uint32(b[4*i:])
		tokens[i] = int32(v &^ untrained)
		if v&untrained != 0 {
			if loss == nil {
				loss = slices.Repeat([]bool{true}, len(tokens))
			}
			loss[i] = false
		}
	}
	return tokens, loss, nil
}

// row returns the bounds of a row.
func (s *store) row(i int) (from, to int64) {
	if i > 0 {
		from = s.ends.at(i - 1)
	}
	return from, s.ends.at(i)
}

func (s *store) Close() error { return s.f.Close() }

// rows are the rows of a store, each an example.
type rows struct{ *store }

func (r rows) len() int { return r.ends.len() }

func (r rows) length(i int) int {
	from, to := r.row(i)
	return int(to - from)
}

func (r rows) example(i int) (Example, error) {
	tokens, loss, err := r.read(r.row(i))
	return Example{Tokens: tokens, Loss: loss}, err
}

func (r rows) memory() int64 { return r.ends.memory() }

// index is a list of numbers that grows without being copied.
type index struct{ blocks [][]int64 }

const indexBlock = 1 << 16

func (x *index) add(v int64) {
	last := len(x.blocks) - 1
	if last < 0 || len(x.blocks[last]) == indexBlock {
		size := indexBlock
		if last < 0 {
			size = 0 // most files have few rows
		}
		x.blocks = append(x.blocks, make([]int64, 0, size))
		last++
	}
	x.blocks[last] = append(x.blocks[last], v)
}

func (x *index) len() int {
	if len(x.blocks) == 0 {
		return 0
	}
	last := len(x.blocks) - 1
	return last*indexBlock + len(x.blocks[last])
}

func (x *index) at(i int) int64 { return x.blocks[i/indexBlock][i%indexBlock] }

func (x *index) memory() (n int64) {
	for _, b := range x.blocks {
		n += 8 * int64(cap(b))
	}
	return n
}
