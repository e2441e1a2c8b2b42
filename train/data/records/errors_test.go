package records_test

import (
	"compress/gzip"
	"encoding/binary"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"unicode"

	"github.com/klauspost/compress/zstd"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/train/data/records"
	"github.com/stretchr/testify/require"
)

// readAny reads rows or text up to the first error.
func readAny(t testing.TB, path string) error {
	t.Helper()
	r, err := records.Open(path, records.Options{ScratchDir: t.TempDir()})
	if err != nil {
		return err
	}
	defer func() { require.NoError(t, r.Close()) }()
	if r.Text() {
		_, err := io.Copy(io.Discard, struct{ io.Reader }{r})
		return err
	}
	for {
		row, err := r.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if !row.Value.IsValid() || row.Value.Kind() != '{' {
			t.Fatalf("%s: row %d is %q", path, row.Line, row.Value)
		}
	}
}

func TestErrors(t *testing.T) {
	deep := strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000)
	good := `{"text": "Once"}` + "\n"
	for name, c := range map[string]struct {
		file, text string
		is         error
		says       string
	}{
		"empty":            {"x.jsonl", "", tensor.ErrMalformed, "the file is empty"},
		"empty csv":        {"x.csv", "", tensor.ErrMalformed, "the file is empty"},
		"only a BOM":       {"x.txt", "\ufeff", tensor.ErrMalformed, "the file is empty"},
		"blank":            {"x.txt", " \n\t ", tensor.ErrMalformed, "the file is empty"},
		"blank rows":       {"x.jsonl", strings.Repeat("\n", 100_000), tensor.ErrMalformed, "the file has no rows"},
		"no rows":          {"x.csv", "a,b\n", tensor.ErrMalformed, "the file has no rows"},
		"empty list":       {"x.json", "[]", tensor.ErrMalformed, "the file has no rows"},
		"UTF-16":           {"x.jsonl", "\xff\xfe{\x00", tensor.ErrMalformed, "UTF-16"},
		"UTF-16, reversed": {"x.csv", "\xfe\xff\x00a", tensor.ErrMalformed, "UTF-16"},
		"text, not UTF-8":  {"x.txt", "a\nb\nc\xff\nd", tensor.ErrMalformed, "x.txt:3: malformed input: text that is not UTF-8"},
		"text, cut off":    {"x.txt", "a\nb\xe6\x97", tensor.ErrMalformed, "x.txt:2: malformed input: text that is not UTF-8"},
		"text, NUL":        {"x.txt", "a\n\nb\x00", tensor.ErrMalformed, "x.txt:3: malformed input: a NUL byte"},
		"text, far away":   {"x.txt", strings.Repeat("日本\n", 100_000) + "\x80", tensor.ErrMalformed, "x.txt:100001: "},

		"gzip by name":    {"x.jsonl.gz", "{}", tensor.ErrMalformed, "x.jsonl.gz: malformed input: the content is not gzip"},
		"zstd by name":    {"x.zst", "{}", tensor.ErrMalformed, "the content is not zstd"},
		"gzip, cut off":   {"x.jsonl.gz", gzipped(t, strings.Repeat(good, 100_000))[:900], tensor.ErrMalformed, "the gzip data ends in the middle, 900 of 900 bytes read"},
		"gzip, only":      {"x.jsonl.gz", "\x1f\x8b\x08", tensor.ErrMalformed, "ends in the middle"},
		"gzip, damaged":   {"x.jsonl", "\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff\x07damaged", tensor.ErrMalformed, "cannot be decompressed"},
		"gzip, more":      {"x.jsonl.gz", gzipped(t, good) + "more", tensor.ErrMalformed, "the gzip data"},
		"zstd, cut off":   {"x.jsonl.zst", zstandard(t, strings.Repeat(good, 100_000))[:40], tensor.ErrMalformed, "the zstd data ends in the middle"},
		"zstd, damaged":   {"x.jsonl.zst", "\x28\xb5\x2f\xfd\x04\x58\xff\xff\xff\xff\xff", tensor.ErrMalformed, "the zstd data cannot be decompressed"},
		"zstd, window":    {"x.jsonl.zst", "\x28\xb5\x2f\xfd\x00\xb0\x01\x00\x00", tensor.ErrMalformed, "a window of more than 128 MiB"},
		"packed twice":    {"x.jsonl.gz", gzipped(t, gzipped(t, good)), tensor.ErrUnsupported, "a format that is not read"},
		"tar":             {"x.tar.gz", gzipped(t, good), tensor.ErrUnsupported, "a format that is not read"},
		"zip by content":  {"x.jsonl", "PK\x03\x04", tensor.ErrUnsupported, "a format that is not read"},
		"arrow":           {"x.arrow", "x", tensor.ErrUnsupported, "a format that is not read"},
		"parquet by name": {"x.parquet", "version https://git-lfs", tensor.ErrMalformed, "the content is not Parquet"},

		"line, not JSON":   {"x.jsonl", good + "hello\n", tensor.ErrMalformed, "x.jsonl:2: malformed input: not JSON: hello"},
		"line, half":       {"x.jsonl", `{"text": "Once`, tensor.ErrMalformed, "x.jsonl:1: malformed input: not JSON"},
		"line, two":        {"x.jsonl", `{"text": "Once"} {"text": "Once"}`, tensor.ErrMalformed, "more after the object"},
		"line, list":       {"x.jsonl", `["Once"]`, tensor.ErrMalformed, `not an object: ["Once"]`},
		"line, null":       {"x.jsonl", "null", tensor.ErrMalformed, "not an object"},
		"line, key twice":  {"x.jsonl", `{"text": "a", "text": "b"}`, tensor.ErrMalformed, "duplicate"},
		"line, not UTF-8":  {"x.jsonl", "{\"text\": \"a\xff\"}", tensor.ErrMalformed, "UTF-8"},
		"line, surrogate":  {"x.jsonl", `{"text": "\ud800"}`, tensor.ErrMalformed, "surrogate"},
		"line, NUL":        {"x.jsonl", "{\"text\": \"a\x00b\"}", tensor.ErrMalformed, "not JSON"},
		"line, deep":       {"x.jsonl", `{"x": ` + deep + `}`, tensor.ErrMalformed, "depth"},
		"line, indented":   {"x.jsonl", "{\n\"text\": 1\n}", tensor.ErrMalformed, "x.jsonl:1: "},
		"json, element":    {"x.json", "[\n{},\n[1]]", tensor.ErrMalformed, "x.json:3: malformed input: not an object: [1]"},
		"json, half":       {"x.json", "[\n{},\n{\"a\":", tensor.ErrMalformed, "x.json:3: malformed input: "},
		"json, no comma":   {"x.json", "[\n{}\n{}]", tensor.ErrMalformed, "x.json:3: malformed input: not JSON"},
		"json, more":       {"x.json", "[{}]\n[{}]", tensor.ErrMalformed, "more after the end"},
		"json, key twice":  {"x.json", "[{\"a\": 1,\n\"a\": 2}]", tensor.ErrMalformed, "duplicate"},
		"json, deep":       {"x.json", `[{"x": ` + deep + `}]`, tensor.ErrMalformed, "depth"},
		"json, deep aside": {"x.json", `{"x": ` + deep + `, "data": [{}]}`, tensor.ErrMalformed, "depth"},
		"json, not UTF-8":  {"x.json", "[{\"a\": \"\xff\"}]", tensor.ErrMalformed, "UTF-8"},
		"json, no list":    {"x.json", "{\n\"text\": \"a\"\n}", tensor.ErrMalformed, "one object over several lines, without a list of rows"},
		"json, two lists":  {"x.json", "{\"a\": [{}],\n\"b\": [{}]}", tensor.ErrMalformed, `x.json:2: malformed input: two lists of objects, "a" and "b"`},
		"json, numbers":    {"x.json", "[1,\n2]", tensor.ErrMalformed, "x.json:1: malformed input: not an object: 1"},
		"json, words":      {"x.json", "hello", tensor.ErrMalformed, "x.json:1: malformed input: not JSON"},

		"csv, ragged":     {"x.csv", "a,b\n1,2\n\"1\n\",2\n1,2,3\n", tensor.ErrMalformed, "x.csv:5: malformed input: 3 fields; want 2, as the first line has: 1,2,3"},
		"csv, short":      {"x.csv", "a,b\n1\n", tensor.ErrMalformed, "x.csv:2: malformed input: 1 fields; want 2"},
		"csv, quote":      {"x.csv", "a,b\n1,2\n1,a\"b\n", tensor.ErrMalformed, "x.csv:3: malformed input: bare"},
		"csv, not closed": {"x.csv", "a,b\n1,\"2\n3,4\n", tensor.ErrMalformed, "x.csv:2: malformed input: extraneous or missing"},
		"csv, names":      {"x.csv", "a,b,a\n1,2,3\n", tensor.ErrMalformed, `x.csv:1: malformed input: two columns of the name "a"`},
		"csv, semicolons": {"x.csv", "a;b\n1;2\n", tensor.ErrMalformed, "x.csv:1: malformed input: the names of the columns have no comma"},
		"csv, not UTF-8":  {"x.csv", "a,b\n1,2\n\xff,3\n", tensor.ErrMalformed, "x.csv:3: malformed input: text that is not UTF-8"},
		"csv, NUL":        {"x.csv", "a,b\n1,\x00\n", tensor.ErrMalformed, "x.csv:2: malformed input: a NUL byte"},
		"tsv, ragged":     {"x.tsv", "a\tb\n1\n", tensor.ErrMalformed, "x.tsv:2: malformed input: 1 fields; want 2"},
	} {
		t.Run(name, func(t *testing.T) {
			err := readAny(t, write(t, c.file, c.text))
			require.ErrorIs(t, err, c.is)
			require.ErrorContains(t, err, c.says)
			require.ErrorContains(t, err, c.file)
			require.NotEmpty(t, hint.Of(err))
			require.False(t, strings.ContainsFunc(err.Error(), unicode.IsControl), "%q", err)
			require.Less(t, len(err.Error()), 500)
		})
	}
	_, err := records.Open(filepath.Join(t.TempDir(), "none"), records.Options{})
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = records.Open(os.DevNull, records.Options{})
	require.ErrorContains(t, err, "not a file")
}

// peak returns the most memory that was in use at once while f ran, beyond what was
// before, as the garbage collector sees it.
func peak(f func()) uint64 {
	runtime.GC()
	var before, now runtime.MemStats
	runtime.ReadMemStats(&before)
	done, most := make(chan bool), make(chan uint64)
	go func() {
		var m uint64
		for {
			select {
			case <-done:
				most <- m
				return
			default:
				runtime.ReadMemStats(&now)
				m = max(m, now.HeapAlloc)
			}
		}
	}()
	f()
	close(done)
	if m := <-most; m > before.HeapAlloc {
		return m - before.HeapAlloc
	}
	return 0
}

// bomb packs n bytes of one value between a beginning and an end.
func bomb(t testing.TB, name, begin string, fill byte, n int) string {
	t.Helper()
	path := write(t, name, "")
	f, err := os.Create(path)
	require.NoError(t, err)
	defer f.Close()
	var w io.WriteCloser
	if strings.HasSuffix(name, ".gz") {
		w, err = gzip.NewWriterLevel(f, gzip.BestSpeed)
	} else {
		w, err = zstd.NewWriter(f, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
	}
	require.NoError(t, err)
	_, err = io.WriteString(w, begin)
	require.NoError(t, err)
	block := []byte(strings.Repeat(string(fill), 1<<20))
	for range n >> 20 {
		_, err = w.Write(block)
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	return path
}

// A row of hundreds of megabytes, from a file of a few kilobytes, is refused within
// the memory of the greatest row there may be.
func TestBombs(t *testing.T) {
	for name, c := range map[string]struct{ file, begin, says string }{
		"line":   {"x.jsonl.zst", "{}\n{\"text\": \"", "x.jsonl.zst:2: malformed input: a line of more than 64 MiB"},
		"list":   {"x.json.zst", "[{},\n{\"text\": \"", "x.json.zst:2: malformed input: a row of more than 64 MiB"},
		"aside":  {"x.json.zst", "{\"meta\":\n\"", "x.json.zst:1: malformed input: a row of more than 64 MiB"},
		"quotes": {"x.csv.gz", "a,b\n1,2\n1,\"", "x.csv.gz:3: malformed input: a row of more than 64 MiB"},
	} {
		t.Run(name, func(t *testing.T) {
			path := bomb(t, c.file, c.begin, 'a', 100<<20)
			var err error
			used := peak(func() { err = readAny(t, path) })
			require.ErrorContains(t, err, c.says)
			require.NotEmpty(t, hint.Of(err))
			require.Less(t, used, uint64(8*records.MaxRow))
		})
	}
	_, err := read(t, bomb(t, "x.parquet.zst", "PAR1", 0, 100<<20))
	require.ErrorContains(t, err, "x.parquet.zst: malformed input: ")
}

// Memory does not grow with a file of small rows.
func TestMemory(t *testing.T) {
	line := `{"text": "` + strings.Repeat("Once upon a time. ", 20) + `"}`
	for name, c := range map[string]struct{ begin, row, end string }{
		"x.jsonl": {"", line + "\n", ""},
		"x.json":  {"[", line + ",\n", "{}]"},
		"x.csv":   {"a,b\n", "\"Once\nupon\",a time\n", ""},
	} {
		f, err := os.Create(filepath.Join(t.TempDir(), name+".zst"))
		require.NoError(t, err)
		w, err := zstd.NewWriter(f, zstd.WithEncoderLevel(zstd.SpeedFastest))
		require.NoError(t, err)
		_, err = io.WriteString(w, c.begin)
		require.NoError(t, err)
		block := []byte(strings.Repeat(c.row, 1+(1<<20)/len(c.row)))
		for range 32 {
			_, err = w.Write(block)
			require.NoError(t, err)
		}
		_, err = io.WriteString(w, c.end)
		require.NoError(t, err)
		require.NoError(t, w.Close())
		require.NoError(t, f.Close())
		used := peak(func() { require.NoError(t, readAny(t, f.Name())) })
		require.Less(t, used, uint64(32<<20), name)
	}
}

// Parquet files with any byte changed are read or refused, and never by a panic or
// with memory that a size in them asks for.
func TestDamagedParquet(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	refused := 0
	for _, file := range goldens(t) {
		good, err := os.ReadFile(file)
		require.NoError(t, err)
		footer := len(good) - 8 - int(binary.LittleEndian.Uint32(good[len(good)-8:]))
		path := write(t, "x.parquet", "")
		for i := range 40 {
			bad := append([]byte(nil), good...)
			for range 1 + r.IntN(4) {
				at := r.IntN(len(bad))
				if i%2 == 0 {
					at = footer + r.IntN(len(bad)-8-footer)
				}
				bad[at] = byte(r.Uint32())
			}
			require.NoError(t, os.WriteFile(path, bad, 0o644))
			if err := readAny(t, path); err != nil {
				refused++
				require.True(t, isRefusal(err), "%v", err)
			}
		}
		for _, n := range []int{4, 11, 12, len(good) / 2, len(good) - 1} {
			require.NoError(t, os.WriteFile(path, good[:n], 0o644))
			require.ErrorIs(t, readAny(t, path), tensor.ErrMalformed)
		}
	}
	require.Greater(t, refused, 100)
}
