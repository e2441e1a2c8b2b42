package parquet_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/train/data/records/parquet"
	"github.com/stretchr/testify/require"
)

// compact writes Thrift's compact protocol.
type compact struct{ bytes.Buffer }

func (c *compact) uvarint(v uint64) { c.Write(binary.AppendUvarint(nil, v)) }

func (c *compact) field(delta, kind byte) { c.WriteByte(delta<<4 | kind) }

func (c *compact) int(delta byte, v int64) {
	c.field(delta, 6)
	c.Write(binary.AppendVarint(nil, v))
}

func (c *compact) text(delta byte, s string) {
	c.field(delta, 8)
	c.uvarint(uint64(len(s)))
	c.WriteString(s)
}

func (c *compact) list(delta byte, n uint64) {
	c.field(delta, 9)
	c.WriteByte(0xfc)
	c.uvarint(n)
}

func (c *compact) end() { c.WriteByte(0) }

// element writes an element of the schema; physical and children are left out if
// negative.
func (c *compact) element(name string, physical, repetition, children int64) {
	last := byte(0)
	at := func(id byte, v int64) {
		if v >= 0 {
			c.int(id-last, v)
			last = id
		}
	}
	at(1, physical)
	at(3, repetition)
	c.text(4-last, name)
	last = 4
	at(5, children)
	c.end()
}

// file puts a footer behind pages.
func file(pages string, footer []byte) string {
	return "PAR1" + pages + string(footer) + string(binary.LittleEndian.AppendUint32(nil, uint32(len(footer)))) + "PAR1"
}

// oneColumn is a file with one column "text" of which one page is there.
func oneColumn(page string, rows, values, codec int64) string {
	var c compact
	c.int(1, 2)
	c.list(1, 2)
	c.element("root", -1, -1, 1)
	c.element("text", 6, 0, -1)
	c.int(1, rows)
	c.list(1, 1)
	c.list(1, 1) // columns
	c.field(3, 12)
	c.int(1, 6)
	c.int(3, codec)
	c.int(1, values)
	c.int(2, int64(len(page)))
	c.int(2, 4)
	c.end()
	c.end()
	c.int(2, rows)
	c.end()
	c.end()
	return file(page, c.Bytes())
}

// page is a page of data of version 1.
func page(content string, plain, values, encoding int64) string {
	var c compact
	c.int(1, 0)
	c.int(1, plain)
	c.int(1, int64(len(content)))
	c.field(2, 12)
	c.int(1, values)
	c.int(1, encoding)
	c.int(1, 3)
	c.int(1, 3)
	c.end()
	c.end()
	return c.String() + content
}

func read(content string) (rows []string, err error) {
	f, err := parquet.Open(strings.NewReader(content), int64(len(content)))
	if err != nil {
		return nil, err
	}
	for {
		row, err := f.Next()
		if err == io.EOF {
			return rows, nil
		}
		if err != nil {
			return rows, err
		}
		rows = append(rows, string(row))
	}
}

const twoTexts = "\x01\x00\x00\x00a\x02\x00\x00\x00bc"

func TestHandMade(t *testing.T) {
	rows, err := read(oneColumn(page(twoTexts, 11, 2, 0), 2, 2, 0))
	require.NoError(t, err)
	require.Equal(t, []string{`{"text":"a"}`, `{"text":"bc"}`}, rows)
}

// What a file claims is neither believed nor given memory.
func TestHostile(t *testing.T) {
	var lists, names, groups, deep, nested compact
	lists.int(1, 2)
	lists.list(1, 1<<31-1)
	names.int(1, 2)
	names.list(1, 2)
	names.element("root", -1, -1, 1<<31-1)
	names.element("text", 6, 0, -1)
	names.int(1, 0)
	names.end()
	groups.int(1, 2)
	groups.list(1, 1)
	groups.element("root", -1, -1, 1)
	groups.int(1, 0)
	groups.list(1, 1<<40)
	deep.int(1, 2)
	deep.list(1, 1000)
	for range 1000 {
		deep.element("a", -1, 0, 1)
	}
	deep.end()
	for range 1000 {
		nested.field(9, 12)
	}
	for name, c := range map[string]struct {
		content string
		is      error
		says    string
	}{
		"schema":          {file("", lists.Bytes()), tensor.ErrMalformed, "footer: malformed input: the metadata ends early"},
		"children":        {file("", names.Bytes()), tensor.ErrMalformed, "the schema ends early"},
		"row groups":      {file("", groups.Bytes()), tensor.ErrMalformed, "the metadata ends early"},
		"deep schema":     {file("", deep.Bytes()), tensor.ErrMalformed, "nested more than 64 deep"},
		"deep metadata":   {file("", nested.Bytes()), tensor.ErrMalformed, "nested more than 32 deep"},
		"footer":          {"PAR1\xff\xff\xff\x7fPAR1", tensor.ErrMalformed, "a footer of 2147483647 bytes in a file of 12"},
		"encrypted":       {"PARE\x00\x00\x00\x00PARE", tensor.ErrUnsupported, "encrypted"},
		"empty":           {"", tensor.ErrMalformed, "no Parquet file"},
		"rows":            {oneColumn(page(twoTexts, 11, 2, 0), 1<<40, 1<<40, 0), tensor.ErrMalformed, "1099511627776 rows in a file of"},
		"more rows":       {oneColumn(page(twoTexts, 11, 2, 0), 3, 3, 0), tensor.ErrMalformed, "column \"text\": "},
		"fewer rows":      {oneColumn(page(twoTexts, 11, 2, 0), 1, 2, 0), tensor.ErrMalformed, "the column has more rows than the others"},
		"fewer values":    {oneColumn(page(twoTexts, 11, 3, 0), 3, 3, 0), tensor.ErrMalformed, "the page ends before its values do"},
		"too many values": {oneColumn(page(twoTexts, 11, 3, 0), 2, 2, 0), tensor.ErrMalformed, "a page of 3 values where 2 are left"},
		"long text":       {oneColumn(page("\xff\xff\xff\xffa", 5, 1, 0), 1, 1, 0), tensor.ErrMalformed, "the page ends before its values do"},
		"page size":       {oneColumn(page(twoTexts, 1<<30, 2, 0), 2, 2, 2), tensor.ErrUnsupported, "a page of 11 bytes, 1073741824 when unpacked"},
		"snappy":          {oneColumn(page("\x80\x80\x80\x40aaaa", 128<<20, 2, 0), 2, 2, 1), tensor.ErrMalformed, "a page cannot be unpacked (snappy)"},
		"gzip":            {oneColumn(page(twoTexts, 200<<20, 2, 0), 2, 2, 2), tensor.ErrMalformed, "a page cannot be unpacked (gzip)"},
		"zstd":            {oneColumn(page("\x28\xb5\x2f\xfd\x00\xb0\x01\x00\x00", 200<<20, 2, 0), 2, 2, 6), tensor.ErrMalformed, "a page cannot be unpacked (zstd)"},
		"codec":           {oneColumn(page(twoTexts, 11, 2, 0), 2, 2, 4), tensor.ErrUnsupported, "the codec 4"},
		"dictionary":      {oneColumn(page("\x01\x04\x00", 3, 2, 8), 2, 2, 0), tensor.ErrMalformed, "without the dictionary it needs"},
		"encoding":        {oneColumn(page(twoTexts, 11, 2, 5), 2, 2, 0), tensor.ErrUnsupported, "the encoding 5"},
		"delta":           {oneColumn(page("\x80\x01\x04\xff\xff\xff\xff\x0f\x02", 9, 2, 6), 2, 2, 0), tensor.ErrMalformed, "4294967295 values in a page of 2"},
		"delta blocks":    {oneColumn(page("\x80\x80\x80\x80\x80\x01\x01\x02\x02", 9, 2, 6), 2, 2, 0), tensor.ErrMalformed, "blocks of "},
	} {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := read(c.content)
			runtime.ReadMemStats(&after)
			require.ErrorIs(t, err, c.is)
			require.ErrorContains(t, err, c.says)
			require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(16<<20))
		})
	}
}

// A row whose list repeats one value without end is refused.
func TestLongRow(t *testing.T) {
	const n = 20 << 20
	var c compact
	c.int(1, 2)
	c.list(1, 2)
	c.element("root", -1, -1, 1)
	c.element("x", 0, 2, -1) // booleans
	c.int(1, 1)
	// Levels: the first value begins the row, the others repeat; all are there.
	run := func(n uint64, v byte) string { return string(append(binary.AppendUvarint(nil, n<<1), v)) }
	level := func(s string) string { return string(binary.LittleEndian.AppendUint32(nil, uint32(len(s)))) + s }
	values := run(n, 1)
	content := level(run(1, 0)+run(n-1, 1)) + level(run(n, 1)) + level(values)
	p := page(content, int64(len(content)), n, 3)
	c.list(1, 1)
	c.list(1, 1)
	c.field(3, 12)
	c.int(1, 0)
	c.int(3, 0)
	c.int(1, n)
	c.int(2, int64(len(p)))
	c.int(2, 4)
	c.end()
	c.end()
	c.int(2, 1)
	c.end()
	c.end()
	_, err := read(file(p, c.Bytes()))
	require.ErrorContains(t, err, "a row of more than 64 MiB")
}

func BenchmarkNext(b *testing.B) {
	content, err := os.ReadFile("../testdata/encodings-2.parquet")
	require.NoError(b, err)
	var bytes int64
	rows, err := read(string(content))
	require.NoError(b, err)
	for _, r := range rows {
		bytes += int64(len(r))
	}
	b.SetBytes(bytes) // of JSON
	for b.Loop() {
		_, err := read(string(content))
		require.NoError(b, err)
	}
}
