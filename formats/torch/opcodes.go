package torch

import (
	"encoding/binary"
	"math"
)

const (
	opProto = 0x80
	opStop  = '.'
)

// opcode is a row of the table: its name in pickletools, and what it does. One
// that has a name and does nothing is refused: torch.save does not write it, or
// only for objects that are not tensors.
type opcode struct {
	name string
	do   func(*machine) error
}

var opcodes = [256]opcode{
	opProto: {"PROTO", (*machine).proto},
	opStop:  {"STOP", nil}, // run looks at it first
	0x95:    {"FRAME", (*machine).frame},

	'N':  {"NONE", constant(nil)},
	0x88: {"NEWTRUE", constant(true)},
	0x89: {"NEWFALSE", constant(false)},
	'K':  {"BININT1", integer(1)},
	'M':  {"BININT2", integer(2)},
	'J':  {"BININT", integer(4)},
	0x8a: {"LONG1", counted(1, (*machine).long)},
	0x8b: {"LONG4", counted(4, (*machine).long)},
	'G':  {"BINFLOAT", (*machine).float},

	// Python 2's strings are bytes, but torch reads them as text.
	'U':  {"SHORT_BINSTRING", counted(1, (*machine).text)},
	'T':  {"BINSTRING", counted(4, (*machine).text)},
	0x8c: {"SHORT_BINUNICODE", counted(1, (*machine).text)},
	'X':  {"BINUNICODE", counted(4, (*machine).text)},
	0x8d: {"BINUNICODE8", counted(8, (*machine).text)},
	'C':  {"SHORT_BINBYTES", counted(1, (*machine).bytes)},
	'B':  {"BINBYTES", counted(4, (*machine).bytes)},
	0x8e: {"BINBYTES8", counted(8, (*machine).bytes)},
	0x96: {"BYTEARRAY8", counted(8, (*machine).bytes)},

	'(':  {"MARK", (*machine).mark},
	')':  {"EMPTY_TUPLE", tupleOf(0)},
	0x85: {"TUPLE1", tupleOf(1)},
	0x86: {"TUPLE2", tupleOf(2)},
	0x87: {"TUPLE3", tupleOf(3)},
	't':  {"TUPLE", (*machine).tuple},
	']':  {"EMPTY_LIST", (*machine).emptyList},
	'a':  {"APPEND", (*machine).append},
	'e':  {"APPENDS", (*machine).appends},
	'}':  {"EMPTY_DICT", (*machine).emptyDict},
	's':  {"SETITEM", (*machine).setItem},
	'u':  {"SETITEMS", (*machine).setItems},
	0x8f: {"EMPTY_SET", (*machine).emptyList},
	0x90: {"ADDITEMS", (*machine).appends},
	0x91: {"FROZENSET", (*machine).frozenSet},

	'q':  {"BINPUT", (*machine).put1},
	'r':  {"LONG_BINPUT", (*machine).put4},
	0x94: {"MEMOIZE", (*machine).memoize},
	'h':  {"BINGET", (*machine).get1},
	'j':  {"LONG_BINGET", (*machine).get4},

	'c':  {"GLOBAL", (*machine).global},
	0x93: {"STACK_GLOBAL", (*machine).stackGlobal},
	'R':  {"REDUCE", (*machine).reduce},
	'b':  {"BUILD", (*machine).build},
	'Q':  {"BINPERSID", (*machine).persistent},

	// Making objects of classes: torch.save writes none of them for tensors.
	0x81: {"NEWOBJ", nil},
	0x92: {"NEWOBJ_EX", nil},
	'i':  {"INST", nil},
	'o':  {"OBJ", nil},
	0x82: {"EXT1", nil},
	0x83: {"EXT2", nil},
	0x84: {"EXT4", nil},

	// Of protocols 0 and 1.
	'I': {"INT", nil},
	'L': {"LONG", nil},
	'F': {"FLOAT", nil},
	'S': {"STRING", nil},
	'V': {"UNICODE", nil},
	'P': {"PERSID", nil},
	'p': {"PUT", nil},
	'g': {"GET", nil},
	'd': {"DICT", nil},
	'l': {"LIST", nil},

	// Written for tuples that hold themselves, or not at all.
	'0': {"POP", nil},
	'1': {"POP_MARK", nil},
	'2': {"DUP", nil},

	// Buffers outside of the pickle.
	0x97: {"NEXT_BUFFER", nil},
	0x98: {"READONLY_BUFFER", nil},
}

func (m *machine) proto() error {
	b, err := m.in.fixed(1)
	if err != nil {
		return err
	}
	if b[0] < 2 || b[0] > 5 {
		return unsupported("pickle protocol %d, it must be 2 to 5", b[0])
	}
	return nil
}

// frame says how many bytes belong together. Nothing depends on it here.
func (m *machine) frame() error {
	n, err := m.length(8)
	if err != nil {
		return err
	}
	return m.in.check(n)
}

func constant(v any) func(*machine) error {
	return func(m *machine) error { return m.push(v, 0) }
}

func integer(size int) func(*machine) error {
	return func(m *machine) error {
		b, err := m.in.fixed(size)
		if err != nil {
			return err
		}
		switch size {
		case 1:
			return m.push(int64(b[0]), 0)
		case 2:
			return m.push(int64(binary.LittleEndian.Uint16(b)), 8)
		}
		return m.push(int64(int32(binary.LittleEndian.Uint32(b))), 8)
	}
}

func (m *machine) float() error {
	b, err := m.in.fixed(8)
	if err != nil {
		return err
	}
	return m.push(math.Float64frombits(binary.BigEndian.Uint64(b)), 8)
}

// length reads a length of size bytes. One beyond an int64 becomes negative,
// which no reader takes.
func (m *machine) length(size int) (int64, error) {
	b, err := m.in.fixed(size)
	if err != nil {
		return 0, err
	}
	var n uint64
	for i, x := range b {
		n |= uint64(x) << (8 * i)
	}
	return int64(n), nil
}

// counted is the operation on as many bytes as the size bytes before them say.
func counted(size int, do func(m *machine, n int64) error) func(*machine) error {
	return func(m *machine) error {
		n, err := m.length(size)
		if err != nil {
			return err
		}
		if err := m.in.check(n); err != nil {
			return err
		}
		return do(m, n)
	}
}

func (m *machine) long(n int64) error {
	if n > maxLong {
		return unsupported("an integer of %d bytes", n)
	}
	b, err := m.in.read(n)
	if err != nil {
		return err
	}
	if n > 8 {
		return m.push(long(b), stringCost+n)
	}
	var v int64
	for i, x := range b {
		v |= int64(x) << (8 * i)
	}
	if n > 0 && n < 8 {
		v = v << (64 - 8*n) >> (64 - 8*n) // the sign
	}
	return m.push(v, 8)
}

func (m *machine) text(n int64) error {
	if err := m.spend(stringCost + n); err != nil {
		return err
	}
	b, err := m.in.read(n)
	if err != nil {
		return err
	}
	return m.push(string(b), 0)
}

func (m *machine) bytes(n int64) error {
	if err := m.in.skip(n); err != nil {
		return err
	}
	return m.push(inertBytes, 0)
}

func (m *machine) mark() error {
	if len(m.stack)+len(m.marks) >= maxStack {
		return unsupported("more than %d values on the stack", maxStack)
	}
	if err := m.spend(slotCost); err != nil {
		return err
	}
	m.marks = append(m.marks, len(m.stack))
	return nil
}

func tupleOf(n int) func(*machine) error {
	return func(m *machine) error {
		items, err := m.pop(n)
		if err != nil {
			return err
		}
		return m.pushTuple(items)
	}
}

func (m *machine) tuple() error {
	items, err := m.popMark()
	if err != nil {
		return err
	}
	return m.pushTuple(items)
}

func (m *machine) pushTuple(items []any) error {
	cost := boxCost + slotCost*int64(len(items))
	if cost > m.free {
		return m.spend(cost)
	}
	return m.push(&tuple{append([]any(nil), items...)}, cost)
}

func (m *machine) frozenSet() error {
	if _, err := m.popMark(); err != nil {
		return err
	}
	return m.push(inertSet, 0)
}

func (m *machine) emptyList() error { return m.push(&list{}, boxCost) }

func (m *machine) emptyDict() error { return m.push(&dict{}, boxCost) }

func (m *machine) append() error {
	items, err := m.pop(1)
	if err != nil {
		return err
	}
	return m.extend(items)
}

func (m *machine) appends() error {
	items, err := m.popMark()
	if err != nil {
		return err
	}
	return m.extend(items)
}

func (m *machine) extend(items []any) error {
	top, err := m.top()
	if err != nil {
		return err
	}
	l, ok := top.(*list)
	if !ok {
		return malformed("the target is %s, not a list or a set", describe(top))
	}
	// A slice that grows is up to twice as long as what is in it.
	if err := m.spend(2 * slotCost * int64(len(items))); err != nil {
		return err
	}
	l.items = append(l.items, items...)
	return nil
}

func (m *machine) setItem() error {
	items, err := m.pop(2)
	if err != nil {
		return err
	}
	return m.set(items)
}

func (m *machine) setItems() error {
	items, err := m.popMark()
	if err != nil {
		return err
	}
	if len(items)%2 != 0 {
		return malformed("a key without a value")
	}
	return m.set(items)
}

// set adds keys and values in turn to the dict on the stack.
func (m *machine) set(items []any) error {
	top, err := m.top()
	if err != nil {
		return err
	}
	d, ok := top.(*dict)
	if !ok {
		return malformed("the target is %s, not a dict", describe(top))
	}
	if err := m.spend(2 * slotCost * int64(len(items))); err != nil {
		return err
	}
	for i := 0; i < len(items); i += 2 {
		d.items = append(d.items, item{items[i], items[i+1]})
	}
	return nil
}

func (m *machine) put1() error {
	b, err := m.in.fixed(1)
	if err != nil {
		return err
	}
	return m.put(uint32(b[0]))
}

func (m *machine) put4() error {
	b, err := m.in.fixed(4)
	if err != nil {
		return err
	}
	return m.put(binary.LittleEndian.Uint32(b))
}

func (m *machine) memoize() error { return m.put(uint32(len(m.memo))) }

func (m *machine) put(i uint32) error {
	top, err := m.top()
	if err != nil {
		return err
	}
	if err := m.spend(memoCost); err != nil {
		return err
	}
	m.memo[i] = top
	return nil
}

func (m *machine) get1() error {
	b, err := m.in.fixed(1)
	if err != nil {
		return err
	}
	return m.get(uint32(b[0]))
}

func (m *machine) get4() error {
	b, err := m.in.fixed(4)
	if err != nil {
		return err
	}
	return m.get(binary.LittleEndian.Uint32(b))
}

func (m *machine) get(i uint32) error {
	v, ok := m.memo[i]
	if !ok {
		return malformed("nothing was kept under %d", i)
	}
	return m.push(v, 0)
}

func (m *machine) global() error {
	module, err := m.in.line()
	if err != nil {
		return err
	}
	name, err := m.in.line()
	if err != nil {
		return err
	}
	return m.find(module, name)
}

func (m *machine) stackGlobal() error {
	items, err := m.pop(2)
	if err != nil {
		return err
	}
	module, ok := items[0].(string)
	name, also := items[1].(string)
	if !ok || !also {
		return malformed("%s and %s, where there must be two strings", describe(items[0]), describe(items[1]))
	}
	return m.find(module, name)
}

func (m *machine) find(module, name string) error {
	g, err := lookUp(module, name)
	if err != nil {
		return err
	}
	return m.push(g, 0)
}

// reduce applies a function of the table.
func (m *machine) reduce() error {
	items, err := m.pop(2)
	if err != nil {
		return err
	}
	g, ok := items[0].(*global)
	args, also := items[1].(*tuple)
	switch {
	case !ok:
		return malformed("%s is not a function", describe(items[0]))
	case !also:
		return malformed("%s: its arguments are %s, not a tuple", g.name, describe(items[1]))
	case g.call == nil:
		return unsupported("%s is only known by name; nothing of it is executed", g.name)
	}
	v, err := g.call(m, args.items)
	if err != nil {
		return err
	}
	return m.push(v, 0)
}

// build gives an object its attributes. Those of the few objects that have some
// are of no use: an OrderedDict's _metadata, numpy's.
func (m *machine) build() error {
	if _, err := m.pop(1); err != nil {
		return err
	}
	top, err := m.top()
	if err != nil {
		return err
	}
	switch top.(type) {
	case *dict, *inert:
		return nil
	}
	return unsupported("attributes for %s; nothing of it is executed", describe(top))
}

func (m *machine) persistent() error {
	items, err := m.pop(1)
	if err != nil {
		return err
	}
	id, ok := items[0].(*tuple)
	if !ok || m.load == nil {
		return malformed("%s as the name of a storage", describe(items[0]))
	}
	v, err := m.load(id.items)
	if err != nil {
		return err
	}
	return m.push(v, viewCost)
}
