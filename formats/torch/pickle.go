package torch

import (
	"bufio"
	"errors"
	"fmt"
	"io"

	"github.com/seed18967229/nibble/internal/safeio"
	"github.com/seed18967229/nibble/tensor"
)

const (
	// maxObjects is how many bytes all that one pickle builds may take
	// together, counted roughly and upwards: some 600,000 tensors.
	maxObjects = 1 << 30

	// maxStack is how many values may lie on the stack, marks included. A
	// pickler puts at most a thousand there at a time, but for tuples.
	maxStack = 1 << 20

	// maxLong is the longest integer in bytes, maxLine the longest line.
	maxLong = 256
	maxLine = 256
)

// What values count for, in bytes. A slot is on the stack or in a container.
const (
	slotCost   = 16
	stringCost = 16
	memoCost   = 64
	boxCost    = 32
	viewCost   = 128
)

// A machine runs one pickle (https://docs.python.org/3/library/pickletools.html
// lists the opcodes). It has no recursion, and no way to a name but the table.
type machine struct {
	in    *input
	stack []any
	marks []int // where on the stack
	memo  map[uint32]any
	free  int64 // bytes that objects may still take

	// load returns the storage of a persistent id. If it is nil, the pickle
	// has none.
	load func(id []any) (any, error)
}

// unpickle runs the pickle that begins at the input's place and returns what it
// leaves, with the input just behind it. Errors say where in the pickle, and
// wrap tensor.ErrMalformed or tensor.ErrUnsupported unless reading failed.
func unpickle(in *input, load func(id []any) (any, error)) (any, error) {
	m := &machine{in: in, memo: make(map[uint32]any), free: maxObjects, load: load}
	start := in.left
	v, err := m.run()
	if err != nil {
		return nil, fmt.Errorf("pickle, before byte %d: %w", start-in.left, err)
	}
	return v, nil
}

func (m *machine) run() (any, error) {
	first, err := m.in.fixed(1)
	if err != nil {
		return nil, err
	}
	if first[0] != opProto {
		return nil, malformed("it begins with byte 0x%02x, a pickle of protocol 2 to 5 with 0x80", first[0])
	}
	if err := m.proto(); err != nil {
		return nil, err
	}
	for {
		code, err := m.in.fixed(1)
		if err != nil {
			return nil, err
		}
		op := opcodes[code[0]]
		switch {
		case code[0] == opStop:
			if len(m.stack) != 1 || len(m.marks) > 0 {
				return nil, malformed("it ends with %d values and %d marks on the stack", len(m.stack), len(m.marks))
			}
			return m.stack[0], nil
		case op.name == "":
			return nil, malformed("0x%02x is no opcode", code[0])
		case op.do == nil:
			return nil, unsupported("opcode %s, which torch.save does not write for tensors; nothing of it is executed", op.name)
		}
		if err := op.do(m); err != nil {
			return nil, fmt.Errorf("%s: %w", op.name, err)
		}
	}
}

// spend counts memory that is about to be taken.
func (m *machine) spend(n int64) error {
	if n > m.free {
		return unsupported("its objects take more than %d bytes of memory", int64(maxObjects))
	}
	m.free -= n
	return nil
}

// push puts a value on the stack that counts for cost bytes beside its slot.
func (m *machine) push(v any, cost int64) error {
	if len(m.stack)+len(m.marks) >= maxStack {
		return unsupported("more than %d values on the stack", maxStack)
	}
	if err := m.spend(slotCost + cost); err != nil {
		return err
	}
	m.stack = append(m.stack, v)
	return nil
}

// floor is how far down the stack values may be taken: to the last mark.
func (m *machine) floor() int {
	if n := len(m.marks); n > 0 {
		return m.marks[n-1]
	}
	return 0
}

// pop takes the last n values off the stack. The result is valid until the next
// push.
func (m *machine) pop(n int) ([]any, error) {
	at := len(m.stack) - n
	if at < m.floor() {
		return nil, malformed("it takes more values off the stack than there are")
	}
	items := m.stack[at:]
	m.stack = m.stack[:at]
	return items, nil
}

// popMark takes the values behind the last mark off the stack, and the mark.
func (m *machine) popMark() ([]any, error) {
	if len(m.marks) == 0 {
		return nil, malformed("no mark on the stack")
	}
	items := m.stack[m.floor():]
	m.stack = m.stack[:m.floor()]
	m.marks = m.marks[:len(m.marks)-1]
	return items, nil
}

// top returns the last value, which stays on the stack.
func (m *machine) top() (any, error) {
	if len(m.stack) <= m.floor() {
		return nil, malformed("nothing on the stack")
	}
	return m.stack[len(m.stack)-1], nil
}

// input is a pickle's bytes, or those of several in a row.
type input struct {
	r    *bufio.Reader
	left int64
}

func newInput(r io.ReaderAt, off, n int64) *input {
	return &input{bufio.NewReaderSize(io.NewSectionReader(r, off, n), 1<<16), n}
}

// fixed returns the next n bytes, at most 8. They are valid until the next
// call.
func (in *input) fixed(n int) ([]byte, error) {
	if err := in.check(int64(n)); err != nil {
		return nil, err
	}
	b, err := in.r.Peek(n)
	if err != nil {
		return nil, unexpected(err)
	}
	in.r.Discard(n)
	in.left -= int64(n)
	return b, nil
}

// read returns the next n bytes.
func (in *input) read(n int64) ([]byte, error) {
	if err := in.check(n); err != nil {
		return nil, err
	}
	b, err := safeio.ReadN(in.r, uint64(n))
	in.left -= int64(len(b))
	return b, err
}

// skip passes over the next n bytes.
func (in *input) skip(n int64) error {
	if err := in.check(n); err != nil {
		return err
	}
	k, err := io.CopyN(io.Discard, in.r, n)
	in.left -= k
	return unexpected(err)
}

// line returns the next bytes up to the end of the line, which is passed over.
func (in *input) line() (string, error) {
	var line []byte
	for range maxLine + 1 {
		b, err := in.fixed(1)
		if err != nil {
			return "", err
		}
		if b[0] == '\n' {
			return string(line), nil
		}
		line = append(line, b[0])
	}
	return "", malformed("a line of more than %d bytes", maxLine)
}

func (in *input) check(n int64) error {
	if n < 0 || n > in.left {
		return fmt.Errorf("%w: truncated: %d bytes needed, there are %d", tensor.ErrMalformed, uint64(n), in.left)
	}
	return nil
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
