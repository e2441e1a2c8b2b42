package records_test

import (
	"bytes"
	"compress/gzip"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/train/data/records"
	"github.com/stretchr/testify/require"
)

// table has what is hard to quote in every format.
var table = [][]string{
	{"text", "label"},
	{"Once upon a time", "1"},
	{"", "empty"},
	{"two\nlines, \"quoted\"\tand more", "a,b\tc"},
	{"日本 😀 \\n naïve", " spaces "},
	{"\"", "\n"},
}

// files are the rows of table in every format, as functions of the file's content.
func files(t testing.TB) map[string]string {
	t.Helper()
	var objects []string
	for _, fields := range table[1:] {
		b, err := json.Marshal(map[string]string{table[0][0]: fields[0], table[0][1]: fields[1]})
		require.NoError(t, err)
		objects = append(objects, string(b))
	}
	sheet := func(comma rune, crlf bool) string {
		var b strings.Builder
		w := csv.NewWriter(&b)
		w.Comma = comma
		w.UseCRLF = crlf
		require.NoError(t, w.WriteAll(table))
		return b.String()
	}
	lines := strings.Join(objects, "\n")
	list := "[\n  " + strings.Join(objects, ",\n  ") + "\n]\n"
	return map[string]string{
		"a.jsonl":       lines,
		"a.ndjson":      lines + "\n",
		"crlf.jsonl":    strings.Join(objects, "\r\n") + "\r\n",
		"bom.jsonl":     "\ufeff" + lines,
		"lines.json":    lines,
		"lines":         lines,
		"a.json":        list,
		"list":          list,
		"bom.json":      "\ufeff" + list,
		"tight.json":    "[" + strings.Join(objects, ",") + "]",
		"under.json":    `{"version": "1.0", "meta": {"data": [1, {"x": []}]}, "data": ` + list + `, "names": ["a", "b"], "more": []}`,
		"indented.json": "{\n \"messages\": [{\"no\": 1}],\n \"data\": " + list + "\n}",
		"under":         `{"data":` + list + `}`,
		"a.csv":         sheet(',', false),
		"bom.csv":       "\ufeff" + sheet(',', false),
		"a.tsv":         sheet('\t', false),
	}
}

func gzipped(t testing.TB, text string) string {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, err := io.WriteString(w, text)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return b.String()
}

func zstandard(t testing.TB, text string) string {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	require.NoError(t, err)
	return string(w.EncodeAll([]byte(text), nil))
}

// Every format, packed or not, carries the same rows.
func TestFormats(t *testing.T) {
	for name, text := range files(t) {
		for packed, content := range map[string]string{
			name:                 text,
			name + ".gz":         gzipped(t, text),
			name + ".zst":        zstandard(t, text),
			"gz." + name:         gzipped(t, text), // told by the content
			"2.gz." + name:       gzipped(t, text[:len(text)/2]) + gzipped(t, text[len(text)/2:]),
			"2." + name + ".ZST": zstandard(t, text[:len(text)/2]) + "\x50\x2a\x4d\x18\x02\x00\x00\x00xx" + zstandard(t, text[len(text)/2:]),
		} {
			rows, err := read(t, write(t, packed, content))
			require.NoError(t, err, packed)
			require.Len(t, rows, len(table)-1, packed)
			for i, r := range rows {
				var got map[string]string
				require.NoError(t, json.Unmarshal([]byte(r.value), &got))
				require.Equal(t, map[string]string{"text": table[i+1][0], "label": table[i+1][1]}, got, "%s row %d", packed, i)
			}
		}
	}
}

// A row is where its first character is.
func TestLineNumbers(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want []int64
	}{
		"a.jsonl": {"{}\n\n\r\n {}\n{}", []int64{1, 4, 5}},
		"a.json":  {"\n[\n{},{\n\n},\n\n\n{}\n,{}]", []int64{3, 3, 8, 9}},
		"b.json":  {"{\"a\":\n[1,\n2],\n\"b\":[\n{},\n{\"x\":\n1}, {}],\n\"c\":\n[3]\n}\n\n", []int64{5, 6, 7}},
		"a.csv":   {"a,b\n1,\"2\n3\"\n\n4,5\n", []int64{2, 5}},
		"a.tsv":   {"a\tb\n1\t2\n", []int64{2}},
	} {
		rows, err := read(t, write(t, name, c.text))
		require.NoError(t, err, name)
		var got []int64
		for _, r := range rows {
			got = append(got, r.line)
		}
		require.Equal(t, c.want, got, name)
	}
}

// goldens are Parquet files and what pyarrow reads of them.
func goldens(t testing.TB) []string {
	t.Helper()
	files, err := filepath.Glob("testdata/*.parquet")
	require.NoError(t, err)
	require.Len(t, files, 12)
	return files
}

func TestParquet(t *testing.T) {
	for _, file := range goldens(t) {
		want, err := os.ReadFile(strings.TrimSuffix(file, ".parquet") + ".jsonl")
		require.NoError(t, err)
		lines := strings.Split(strings.TrimSuffix(string(want), "\n"), "\n")
		content, err := os.ReadFile(file)
		require.NoError(t, err)
		for _, path := range []string{
			file,
			write(t, "other", string(content)), // told by the content
			write(t, "x.parquet.gz", gzipped(t, string(content))),
			write(t, "x.parquet.zst", zstandard(t, string(content))),
		} {
			rows, err := read(t, path)
			require.NoError(t, err, path)
			require.Len(t, rows, len(lines), path)
			for i, r := range rows {
				require.Equal(t, int64(i+1), r.line)
				require.Empty(t, differ(t, lines[i], r.value), "%s row %d:\n%s\n%s", path, i+1, lines[i], r.value)
			}
		}
	}
}

// differ says where two rows differ. Floats are equal if they are as 32 bits;
// anything else must be the same to the digit, and keys in the same order.
func differ(t testing.TB, want, got string) string {
	t.Helper()
	tokens := func(s string) []json.Token {
		d := json.NewDecoder(strings.NewReader(s))
		d.UseNumber()
		var out []json.Token
		for {
			tok, err := d.Token()
			if err == io.EOF {
				return out
			}
			require.NoError(t, err, s)
			out = append(out, tok)
		}
	}
	a, b := tokens(want), tokens(got)
	if len(a) != len(b) {
		return fmt.Sprintf("%d tokens, %d", len(a), len(b))
	}
	for i := range a {
		x, ok := a[i].(json.Number)
		y, also := b[i].(json.Number)
		if ok && also && x != y && strings.ContainsAny(string(x), ".e") {
			f, err := x.Float64()
			require.NoError(t, err)
			g, err := y.Float64()
			require.NoError(t, err)
			if math.Abs(f-g) > 1e-7*math.Abs(f) {
				return fmt.Sprintf("%v, %v", x, y)
			}
		} else if a[i] != b[i] {
			return fmt.Sprintf("%v, %v", a[i], b[i])
		}
	}
	return ""
}

func TestText(t *testing.T) {
	text := "Once\r\nupon 日本\n" + strings.Repeat("a time 😀 ", 100_000)
	for name, content := range map[string]string{
		"a.txt": text, "a.md": "\ufeff" + text, "a": text, "a.txt.gz": gzipped(t, text), "a.zst": zstandard(t, text),
		"[a": text,
	} {
		r, err := records.Open(write(t, name, content), records.Options{})
		require.NoError(t, err)
		require.True(t, r.Text())
		got, err := io.ReadAll(r)
		require.NoError(t, err)
		require.Equal(t, text, string(got), name)
		require.Equal(t, r.Size(), r.Position())
		_, err = r.Next()
		require.ErrorIs(t, err, tensor.ErrUnsupported)
		require.NoError(t, r.Close())
	}
	r, err := records.Open(write(t, "a.jsonl", "{}"), records.Options{})
	require.NoError(t, err)
	defer r.Close()
	require.False(t, r.Text())
	require.Equal(t, "JSON Lines", r.Format())
	_, err = r.Read(make([]byte, 10))
	require.ErrorIs(t, err, tensor.ErrUnsupported)
	require.NotEmpty(t, hint.Of(err))
}

// A text that looks a little like something else stays a text.
func TestTold(t *testing.T) {
	for name, c := range map[string]struct{ text, format string }{
		"x":          {"[1] The beginning", "text"},
		"y":          {"[{not JSON}]", "text"},
		"z":          {"{a} and {b}", "text"},
		"q":          {`{"a": 1}`, "JSON Lines"},
		"one.json":   {`{"text": "a"}`, "JSON Lines"},
		"chat.json":  {`{"messages": [{"role": "user", "content": "a"}]}`, "JSON Lines"},
		"under.json": {`{"data": [{"a": 1}]}`, "JSON"},
		"two.json":   {`{"data": [{"a": 1}]}` + "\n" + `{"data": [{"a": 1}]}`, "JSON Lines"},
		"long.json":  {`{"text": "` + strings.Repeat("a", 100_000) + `"}`, "JSON Lines"},
		"long2.json": {`{"data": [{"text": "` + strings.Repeat("a", 100_000) + `"}]}`, "JSON"},
		"gz.csv":     {"a,b\n1,2", "CSV"},
		"x.TSV":      {"a\tb\n1\t2", "TSV"},
	} {
		r, err := records.Open(write(t, name, c.text), records.Options{})
		require.NoError(t, err, name)
		require.Equal(t, c.format, r.Format(), name)
		if !r.Text() {
			_, err = r.Next()
			require.NoError(t, err, name)
		}
		require.NoError(t, r.Close())
	}
}
