package safetensors

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/safeio"
	"github.com/seed18967229/nibble/internal/tensortest"
	"github.com/seed18967229/nibble/tensor"
)

// file returns a file of that header and data.
func file(header string, data ...byte) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return append(append(b, header...), data...)
}

func parse(b []byte) (*tensor.Table, error) { return Parse(bytes.NewReader(b), int64(len(b))) }

// goldens returns the contents of the files in testdata.
func goldens(t testing.TB) map[string][]byte {
	t.Helper()
	paths, err := filepath.Glob("testdata/*.safetensors")
	require.NoError(t, err)
	require.Len(t, paths, 6)
	files := make(map[string][]byte)
	for _, p := range paths {
		b, err := os.ReadFile(p)
		require.NoError(t, err)
		files[filepath.Base(p)] = b
	}
	return files
}

func TestGoldens(t *testing.T) {
	var expect struct {
		Files map[string]map[string]struct {
			DType, SHA256 string
			Shape         tensor.Shape
		}
	}
	b, err := os.ReadFile("testdata/expect.json")
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(b, &expect))
	require.Len(t, expect.Files, 2)
	for name, want := range expect.Files {
		f, err := Open(filepath.Join("testdata", name))
		require.NoError(t, err)
		defer f.Close()
		require.Len(t, slices.Collect(f.All()), len(want))
		for n, w := range want {
			info, err := f.Info(n)
			require.NoError(t, err)
			require.Equal(t, w.DType, info.DType.String())
			require.Equal(t, w.Shape, info.Shape)
			sum := sha256.Sum256(tensortest.Bytes(t, f, n))
			require.Equal(t, w.SHA256, hex.EncodeToString(sum[:]), "%s", n)
		}
	}
	for name, b := range goldens(t) {
		t.Run(name, func(t *testing.T) {
			src, err := parse(b)
			require.NoError(t, err)
			tensortest.TestSource(t, src)
		})
	}
}

func TestMetadataKeepsItsOrder(t *testing.T) {
	src, err := parse(file(`{"__metadata__":{"z":"1","a":"\u00e9\n","m":""}}`))
	require.NoError(t, err)
	require.Equal(t, tensor.Meta{{Key: "z", Value: "1"}, {Key: "a", Value: "é\n"}, {Key: "m", Value: ""}}, src.Meta())
}

func TestOrderIsThatOfTheData(t *testing.T) {
	src, err := parse(file(`{"c":{"data_offsets":[2,3],"shape":[1],"dtype":"U8"},
		"e2":{"dtype":"F32","shape":[0],"data_offsets":[2,2]},
		"e1":{"dtype":"F32","shape":[4,0],"data_offsets":[2,2]},
		"a":{"dtype":"U8","shape":[],"data_offsets":[0,1]},
		"b":{"dtype":"I8","shape":[1,1],"data_offsets":[1,2]}}`, 10, 20, 30))
	require.NoError(t, err)
	var names []string
	for info := range src.All() {
		names = append(names, info.Name)
	}
	require.Equal(t, []string{"a", "b", "e2", "e1", "c"}, names)
	require.Equal(t, []byte{20}, tensortest.Bytes(t, src, "b"))
	require.Equal(t, []byte{30}, tensortest.Bytes(t, src, "c"))
}

// TestAccepted holds what the reference implementation accepts and a stricter
// reader might not.
func TestAccepted(t *testing.T) {
	for name, b := range map[string][]byte{
		"no tensors":                    file(`{}`),
		"no metadata":                   file(`{"__metadata__":null}`),
		"empty metadata":                file(`{"__metadata__":{}}`),
		"padding":                       file(`{}      `),
		"white space":                   file("{ \"a\" :\n\t{\"dtype\":\"U8\",\"shape\":[ 1 ],\"data_offsets\":[0,1]}}\r\n", 1),
		"empty name":                    file(`{"":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, 1),
		"offset not a multiple of size": file(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"F64","shape":[1],"data_offsets":[1,9]}}`, make([]byte, 9)...),
		"a zero before large extents":   file(`{"a":{"dtype":"F32","shape":[0,4294967296,4294967296],"data_offsets":[0,0]}}`),
	} {
		t.Run(name, func(t *testing.T) {
			src, err := parse(b)
			require.NoError(t, err)
			tensortest.TestSource(t, src)
		})
	}
}

// a is a sound tensor of one byte.
const a = `"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}`

var broken = []struct {
	name string
	file []byte
	want string // in the message
}{
	{"empty file", nil, "truncated: 0 bytes"},
	{"shorter than a header length", []byte{1, 2, 3}, "truncated: 3 bytes"},
	{"no header", file(``), "truncated: 8 bytes"},
	{"header length 0", file(``, 0, 0), "does not begin with {"},
	{"header too long", append(binary.LittleEndian.AppendUint64(nil, maxHeader+1), `{}`...), "over the limit"},
	{"header length overflows", append(bytes.Repeat([]byte{0xff}, 8), `{}`...), "over the limit"},
	{"header beyond the file", append(binary.LittleEndian.AppendUint64(nil, 100), `{}`...), "truncated: the header ends at byte 108, the file at 10"},
	{"git lfs pointer", []byte("version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 4\n"), "Git LFS pointer"},
	{"white space first", file(` {}`), "does not begin with {"},
	{"not an object", file(`[{}]`), "does not begin with {"},
	{"not json", file(`{"a"`), "header"},
	{"cut off inside a value", file(`{"a":{"dtype":"U8","shape":[1`), "header"},
	{"zero bytes as padding", file("{}\x00\x00"), "header"},
	{"a second value", file(`{}{}`), "more after its end"},
	{"invalid utf-8", file("{\"\xff\":{}}"), "header"},
	{"lone surrogate", file(`{"\ud800":{}}`), "header"},
	{"control character", file("{\"\x01\":{}}"), "header"},
	{"deep nesting", file(`{"a":` + strings.Repeat(`[`, 20000) + strings.Repeat(`]`, 20000) + `}`), `tensor "a"`},
	{"deep nesting in the shape", file(`{"a":{"shape":` + strings.Repeat(`[`, 20000) + strings.Repeat(`]`, 20000) + `}}`), `tensor "a"`},

	{"metadata twice", file(`{"__metadata__":{},"__metadata__":{}}`), "duplicate"},
	{"metadata key twice", file(`{"__metadata__":{"k":"1","k":"1"}}`), "duplicate"},
	{"metadata not an object", file(`{"__metadata__":[]}`), "__metadata__"},
	{"metadata number", file(`{"__metadata__":{"k":1}}`), `metadata "k"`},
	{"metadata null", file(`{"__metadata__":{"k":null}}`), `metadata "k"`},
	{"metadata object", file(`{"__metadata__":{"k":{}}}`), `metadata "k"`},

	{"tensor twice", file(`{`+a+`,`+a+`}`, 1), `"a"`},
	{"entry not an object", file(`{"a":["U8",[1],[0,1]]}`, 1), `tensor "a"`},
	{"entry null", file(`{"a":null}`), `tensor "a"`},
	{"field twice", file(`{"a":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, 1), "duplicate"},
	{"unknown field", file(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"stride":[1]}}`, 1), `tensor "a": malformed input: unknown field "stride"`},
	{"no dtype", file(`{"a":{"shape":[1],"data_offsets":[0,1]}}`, 1), `tensor "a"`},
	{"no shape", file(`{"a":{"dtype":"U8","data_offsets":[0,1]}}`, 1), `tensor "a"`},
	{"no offsets", file(`{"a":{"dtype":"U8","shape":[1]}}`, 1), `tensor "a"`},
	{"dtype not a string", file(`{"a":{"dtype":1,"shape":[1],"data_offsets":[0,1]}}`, 1), `tensor "a"`},
	{"shape not an array", file(`{"a":{"dtype":"U8","shape":1,"data_offsets":[0,1]}}`, 1), `tensor "a"`},
	{"shape null", file(`{"a":{"dtype":"U8","shape":null,"data_offsets":[0,1]}}`, 1), `tensor "a"`},
	{"extent not a number", file(`{"a":{"dtype":"U8","shape":["1"],"data_offsets":[0,1]}}`, 1), `tensor "a"`},
	{"negative extent", file(`{"a":{"dtype":"U8","shape":[-1],"data_offsets":[0,1]}}`, 1), "-1 is not an integer"},
	{"fractional extent", file(`{"a":{"dtype":"U8","shape":[1.0],"data_offsets":[0,1]}}`, 1), "1.0 is not an integer"},
	{"extent with exponent", file(`{"a":{"dtype":"U8","shape":[1e0],"data_offsets":[0,1]}}`, 1), "1e0 is not an integer"},
	{"minus zero", file(`{"a":{"dtype":"U8","shape":[-0],"data_offsets":[0,0]}}`), "-0 is not an integer"},
	{"extent beyond int64", file(`{"a":{"dtype":"U8","shape":[9223372036854775808],"data_offsets":[0,1]}}`, 1), "is not an integer"},
	{"extent beyond uint64", file(`{"a":{"dtype":"U8","shape":[99999999999999999999999],"data_offsets":[0,1]}}`, 1), "is not an integer"},
	{"one offset", file(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0]}}`, 1), "1 data_offsets"},
	{"three offsets", file(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1,1]}}`, 1), "3 data_offsets"},
	{"negative offset", file(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[-1,0]}}`, 1), "-1 is not an integer"},

	{"elements overflow", file(`{"a":{"dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,0]}}`), `tensor "a"`},
	{"elements overflow before a zero", file(`{"a":{"dtype":"U8","shape":[4294967296,4294967296,0],"data_offsets":[0,0]}}`), `tensor "a"`},
	{"bytes overflow", file(`{"a":{"dtype":"F64","shape":[2305843009213693952],"data_offsets":[0,0]}}`), `tensor "a"`},
	{"half a byte", file(`{"a":{"dtype":"F4","shape":[3],"data_offsets":[0,2]}}`, 1, 2), `tensor "a"`},
	{"part of a byte", file(`{"a":{"dtype":"F6_E2M3","shape":[2],"data_offsets":[0,2]}}`, 1, 2), `tensor "a"`},
	{"offsets too short for the shape", file(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,1]}}`, 1), `tensor "a": malformed input: F32 of shape [1] takes 4 bytes, the offsets span 1`},
	{"offsets too long for the shape", file(`{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,1]}}`, 1), "the offsets span 1"},
	{"end before begin", file(`{`+a+`,"b":{"dtype":"U8","shape":[1],"data_offsets":[1,0]}}`, 1), `tensor "b"`},
	{"gap at the start", file(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}`, 1, 2), "bytes 0 to 1 belong to no tensor"},
	{"gap in the middle", file(`{`+a+`,"b":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}}`, 1, 2, 3), `tensor "b": malformed input: it begins at byte 2, bytes 1 to 2 belong to no tensor`},
	{"overlap", file(`{`+a+`,"b":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, 1), "inside the tensor before it"},
	{"empty tensor inside another", file(`{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[0],"data_offsets":[1,1]}}`, 1, 2), `tensor "b"`},
	{"data cut off", file(`{"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}}`, 1), "truncated: the tensors take 3 bytes, the file has 1"},
	{"data too long", file(`{`+a+`}`, 1, 2, 3), "the last 2 bytes belong to no tensor"},
	{"huge tensor in a small file", file(`{"a":{"dtype":"U8","shape":[9223372036854775807],"data_offsets":[0,9223372036854775807]}}`, 1), "truncated"},
}

func TestBroken(t *testing.T) {
	for _, c := range broken {
		t.Run(c.name, func(t *testing.T) {
			_, err := parse(c.file)
			require.ErrorIs(t, err, tensor.ErrMalformed)
			require.ErrorContains(t, err, c.want)
			require.NotContains(t, err.Error(), "\n")
			if strings.Contains(c.want, "truncated") {
				require.Contains(t, hint.Of(err), "again")
			}
		})
	}
}

func TestUnknownDType(t *testing.T) {
	for _, dtype := range []string{"f32", "F128", "Q4_0", "NF4", "invalid"} {
		_, err := parse(file(`{"a":{"dtype":"`+dtype+`","shape":[1],"data_offsets":[0,1]}}`, 1))
		require.ErrorIs(t, err, tensor.ErrUnsupported, "%s", dtype)
		require.ErrorContains(t, err, `tensor "a"`)
	}
}

type failing struct{}

func (failing) ReadAt(p []byte, off int64) (int, error) {
	if off == 0 {
		return copy(p, "\x40\x00\x00\x00\x00\x00\x00\x00{"), nil
	}
	return 0, syscall.EIO
}

// TestReadError keeps a failing disk apart from a broken file.
func TestReadError(t *testing.T) {
	_, err := Parse(failing{}, 1000)
	require.ErrorIs(t, err, syscall.EIO)
	require.False(t, errors.Is(err, tensor.ErrMalformed))
}

func TestOpenErrors(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "model.safetensors")
	_, err := Open(path)
	require.ErrorIs(t, err, os.ErrNotExist)
	require.ErrorContains(t, err, path+": ")

	_, err = Open(dir)
	require.ErrorIs(t, err, safeio.ErrRefused)

	require.NoError(t, os.WriteFile(path, file(`{"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}}`, 1), 0o666))
	_, err = Open(path)
	require.ErrorIs(t, err, tensor.ErrMalformed)
	require.ErrorContains(t, err, path+": ")
}

// zeros is an endless file of zero bytes after its first ones.
type zeros []byte

func (z zeros) ReadAt(p []byte, off int64) (int, error) {
	clear(p)
	if off < int64(len(z)) {
		copy(p, z[off:])
	}
	return len(p), nil
}

// TestMemory reads the header of a file of a tebibyte, and one whose header
// claims 100 MB that turn out not to be JSON.
func TestMemory(t *testing.T) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	h := file(`{"a":{"dtype":"F32","shape":[262144,1048576],"data_offsets":[0,1099511627776]}}`)
	src, err := Parse(zeros(h), int64(len(h))+1<<40)
	require.NoError(t, err)
	r, err := src.Raw("a")
	require.NoError(t, err)
	_, err = r.Seek(-8, io.SeekEnd)
	require.NoError(t, err)
	b, err := io.ReadAll(r)
	require.NoError(t, err)
	require.Len(t, b, 8)

	_, err = Parse(zeros(append(binary.LittleEndian.AppendUint64(nil, maxHeader), '{')), 1<<40)
	require.ErrorIs(t, err, tensor.ErrMalformed)
	runtime.ReadMemStats(&after)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(1<<20))
}

// FuzzParse parses anything; what is sound can be written again and then parses
// to the same tensors.
func FuzzParse(f *testing.F) {
	for _, b := range goldens(f) {
		f.Add(b)
	}
	for _, c := range broken {
		f.Add(c.file)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		src, err := parse(b)
		if err != nil {
			return
		}
		layout := slices.Collect(src.All())
		require.NoError(t, check(src.Meta(), layout))
		list := make([]placed, len(layout))
		for i, at := range fileOrder(layout) {
			list[i].info = layout[at]
		}
		_, err = place(list)
		require.NoError(t, err)
		again, err := encodeHeader(src.Meta(), list, 0)
		require.NoError(t, err)
		require.Zero(t, len(again)%8)
		for _, p := range list {
			again = append(again, tensortest.Bytes(t, src, p.info.Name)...)
		}
		dst, err := parse(again)
		require.NoError(t, err)
		require.Equal(t, len(src.Meta()), len(dst.Meta()))
		for i, kv := range src.Meta() {
			require.Equal(t, kv, dst.Meta()[i])
		}
		require.Len(t, slices.Collect(dst.All()), len(layout))
		for _, info := range layout {
			got, err := dst.Info(info.Name)
			require.NoError(t, err)
			require.Equal(t, info, got)
			require.Equal(t, tensortest.Bytes(t, src, info.Name), tensortest.Bytes(t, dst, info.Name))
		}
	})
}
