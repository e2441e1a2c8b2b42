package modelcard

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/tensor"
)

// goldens is what the reference makes of directories; see testdata/README.md.
type goldens struct {
	Titles map[string]string
	Counts []struct {
		Tensors [][2]json.RawMessage
		Params  [4]int64
	}
	Cases []golden
}

type golden struct {
	Name, Dir string
	Files     map[string]string
	Override  *string
	ModelName string `json:"model_name"`
	Params    [4]int64

	// What the reference writes, and what it calls the file.
	Want [][3]any
	File string

	// Fails is how the reference ends if it does not write anything.
	Fails string
}

func readGoldens(t testing.TB) goldens {
	t.Helper()
	b, err := os.ReadFile("testdata/cases.json")
	require.NoError(t, err)
	var g goldens
	require.NoError(t, json.Unmarshal(b, &g))
	return g
}

func params(p [4]int64) Params { return Params{p[0], p[1], p[2], p[3]} }

// write makes the directory of a case and returns its path.
func (g *golden) write(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "d") // not named after the case, which may not be a name here
	require.NoError(t, os.Mkdir(dir, 0o777))
	for name, text := range g.Files {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o666))
	}
	return dir
}

// read returns the card of a case with its override.
func (g *golden) read(t testing.TB) *Card {
	t.Helper()
	dir := g.write(t)
	c, err := Read(dir)
	require.NoError(t, err)
	c.Override = &Override{}
	if g.Override != nil {
		path := filepath.Join(t.TempDir(), "override.json")
		require.NoError(t, os.WriteFile(path, []byte(*g.Override), 0o666))
		c.Override, err = ReadOverride(path)
		require.NoError(t, err)
	}
	c.Override.Name = g.ModelName
	return c
}

// spelled writes metadata as the goldens do.
func spelled(t testing.TB, m tensor.Meta) [][3]any {
	t.Helper()
	out := [][3]any{}
	for _, kv := range m {
		var kind string
		var v any
		float := func(x float32) string { return strconv.FormatFloat(float64(x), 'g', -1, 32) }
		switch x := kv.Value.(type) {
		case string:
			kind, v = "STRING", x
		case uint32:
			kind, v = "UINT32", float64(x)
		case int32:
			kind, v = "INT32", float64(x)
		case float32:
			kind, v = "FLOAT32", float(x)
		case []string:
			kind, v = "[STRING]", each(x, func(s string) any { return s })
		case []int32:
			kind, v = "[INT32]", each(x, func(n int32) any { return float64(n) })
		case []float32:
			kind, v = "[FLOAT32]", each(x, func(n float32) any { return float(n) })
		case []bool:
			kind, v = "[BOOL]", each(x, func(b bool) any { return b })
		default:
			t.Fatalf("%s is a %T", kv.Key, kv.Value)
		}
		out = append(out, [3]any{kv.Key, kind, v})
	}
	return out
}

func each[T any](in []T, f func(T) any) any {
	out := make([]any, len(in))
	for i, x := range in {
		out[i] = f(x)
	}
	return out
}

// TestGoldens compares every key, type and value, in order, with the
// reference's. Where the reference fails, the directory must be read all the
// same, and something be noted.
func TestGoldens(t *testing.T) {
	g := readGoldens(t)
	require.Greater(t, len(g.Cases), 180)
	for _, c := range g.Cases {
		t.Run(c.Name, func(t *testing.T) {
			card := c.read(t)
			meta, notes := card.GGUF(c.Dir, params(c.Params))
			notes = append(card.Notes, notes...)
			if c.Fails != "" {
				require.NotEmpty(t, notes, "the reference: %s", c.Fails)
				return
			}
			want := c.Want
			for i, kv := range want {
				if kv[1] == "FLOAT32" || kv[1] == "[FLOAT32]" {
					want[i][2] = shortestFloats(t, kv[2])
				}
			}
			require.Equal(t, want, spelled(t, meta), "%q", notes)
			if c.File != "" {
				m := meta
				if c.Params[0] < 0 {
					m = append(tensor.Meta{{Key: "general.type", Value: "adapter"}}, m...)
				}
				require.Equal(t, c.File, FileName(m, "F16"))
			}
		})
	}
}

// shortestFloats spells numpy's floats as Go does.
func shortestFloats(t testing.TB, v any) any {
	if l, ok := v.([]any); ok {
		return each(l, func(x any) any { return shortestFloats(t, x) })
	}
	f, err := strconv.ParseFloat(v.(string), 32)
	require.NoError(t, err)
	return strconv.FormatFloat(f, 'g', -1, 32)
}

func TestTitles(t *testing.T) {
	g := readGoldens(t)
	require.NotEmpty(t, g.Titles)
	for s, want := range g.Titles {
		require.Equal(t, want, titleOf(s), "%q", s)
	}
}

func TestCountParams(t *testing.T) {
	g := readGoldens(t)
	require.NotEmpty(t, g.Counts)
	for _, c := range g.Counts {
		got := CountParams(func(yield func(tensor.Info) bool) {
			for _, x := range c.Tensors {
				info := tensor.Info{DType: tensor.F32}
				require.NoError(t, json.Unmarshal(x[0], &info.Name))
				require.NoError(t, json.Unmarshal(x[1], &info.Shape))
				if !yield(info) {
					return
				}
			}
		})
		require.Equal(t, params(c.Params), got)
	}
	huge := tensor.Info{Name: "x", DType: tensor.F32, Shape: tensor.Shape{1 << 62}}
	got := CountParams(slices.Values([]tensor.Info{huge, huge, huge}))
	require.Equal(t, "9223372T", got.SizeLabel(), "sums stop at the largest number")
}

func TestReadBadFiles(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		says  string // "" if there is nothing to note
	}{
		"large README, front matter inside":  {map[string]string{ReadmeName: "---\nlicense: mit\n---\n" + strings.Repeat("text\n", 1<<18)}, ""},
		"large README, front matter outside": {map[string]string{ReadmeName: "---\n" + strings.Repeat("# text\n", 1<<18) + "---\n"}, "no end"},
		"not UTF-8":                          {map[string]string{ReadmeName: "---\nlicense: \xff\n---\n"}, "UTF-8"},
		"not UTF-8, no front matter":         {map[string]string{ReadmeName: "\xff"}, ""},
		"deep flow":                          {map[string]string{ReadmeName: "---\na: " + strings.Repeat("[", 1<<19) + "\n---\n"}, "deep"},
		"deep flow mappings":                 {map[string]string{ReadmeName: "---\n" + strings.Repeat("{a: ", 1<<17) + "\n---\n"}, "deep"},
		"deep block":                         {map[string]string{ReadmeName: "---\n" + strings.Repeat("- ", 1<<18) + "\n---\n"}, "deep"},
		"many tags":                          {map[string]string{ReadmeName: "---\na: " + strings.Repeat("!a ", 1<<17) + "\n---\n"}, "limit"},
		"many anchors":                       {map[string]string{ReadmeName: "---\n" + strings.Repeat("&a\n", 1<<17) + "\n---\n"}, "limit"},
		"many lines":                         {map[string]string{ReadmeName: "---\n" + strings.Repeat("a: 1\n", 1<<17) + "\n---\n"}, "limit"},
		"an alias in its own anchor":         {map[string]string{ReadmeName: "---\ntags: &a [x, *a]\nbase_model: &b [{name: *b}]\n---\n"}, ""},
		"merge of itself":                    {map[string]string{ReadmeName: "---\n&a\n<<: *a\nlicense: mit\n---\n"}, ""},
		"deep JSON":                          {map[string]string{GenerationName: strings.Repeat("[", 5000)}, "deep"},
		"large generation_config":            {map[string]string{GenerationName: strings.Repeat(" ", 1<<20) + "{}"}, "more than"},
		"config.json is not JSON":            {map[string]string{"config.json": "{"}, ""}, // whoever needs it says so
	} {
		t.Run(name, func(t *testing.T) {
			g := golden{Files: c.files}
			card := g.read(t)
			_, _ = card.GGUF("model", Params{})
			if c.says == "" {
				require.Empty(t, card.Notes)
			} else {
				require.Contains(t, strings.Join(card.Notes, "\n"), c.says)
			}
		})
	}
	t.Run("no regular file", func(t *testing.T) {
		dir := t.TempDir()
		require.NoError(t, os.Mkdir(filepath.Join(dir, ReadmeName), 0o777))
		require.NoError(t, os.Symlink("/dev/zero", filepath.Join(dir, GenerationName)))
		c, err := Read(dir)
		require.NoError(t, err)
		require.Empty(t, c.Notes)
	})
}

func TestBadOverride(t *testing.T) {
	for text, says := range map[string]string{
		`{`:                                      "not JSON",
		`[]`:                                     "an object",
		`{"general.nam": "x"}`:                   "general.nam",
		`{"general.license": "mit"}`:             "general.license",
		`{"general.name": 7}`:                    "general.name",
		`{"general.tags": "a"}`:                  "general.tags",
		`{"general.tags": ["a", 1]}`:             "general.tags",
		`{"general.base_models": {}}`:            "general.base_models",
		`{"general.datasets": [1]}`:              "general.datasets",
		`{"general.sampling.top_k":1.}`:          "not JSON",
		`{"general.sampling.top_k":1.5}`:         "general.sampling.top_k",
		`{"general.base_models": [{"name": 1}]}`: "base_model.0.name",
	} {
		path := filepath.Join(t.TempDir(), "o.json")
		require.NoError(t, os.WriteFile(path, []byte(text), 0o666))
		_, err := ReadOverride(path)
		require.ErrorContains(t, err, says, "%s", text)
		require.ErrorContains(t, err, path)
		require.True(t, isInputError(err), "%v", err)
	}
	_, err := ReadOverride(filepath.Join(t.TempDir(), "none"))
	require.ErrorIs(t, err, os.ErrNotExist)
}

func isInputError(err error) bool {
	return errors.Is(err, tensor.ErrMalformed) || errors.Is(err, tensor.ErrUnsupported)
}
