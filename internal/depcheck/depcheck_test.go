package depcheck

import (
	"go/build"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "github.com/seed18967229/nibble/"

// allowed says, for each package or tree of packages (ending in "/..."), what
// of nibble's it may import beside internal. The most specific row counts. It is
// the picture in docs/ARCHITECTURE.md.
var allowed = map[string][]string{
	"internal/...":        {},
	"internal/tensortest": {"tensor", "arch"},
	"internal/bench":      {"tensor", "tensor/floats", "arch", "pipeline", "nf4", "nf4/bnb", "formats/hf"},

	"tensor":            {},
	"arch":              {},
	"tensor/floats":     {"tensor"},
	"tensor/scaled":     {"tensor", "tensor/floats"},
	"pipeline":          {"tensor"},
	"formats/gguf":      {"tensor"},
	"formats/hf":        {"tensor", "formats/safetensors", "formats/torch"},
	"formats/peft":      {"tensor", "tensor/floats", "pipeline", "formats/safetensors", "formats/torch"},
	"formats/vocab":     {"tensor", "arch", "formats/vocab/bpe"},
	"formats/modelcard": {"tensor", "formats/hf"},
	"formats/ollama":    {},
	"formats/quantized": {"tensor", "tensor/floats", "tensor/scaled", "pipeline"},
	"nf4":               {"tensor"},
	"nf4/internal/...":  {},
	"nf4/bnb":           {"tensor", "tensor/floats", "tensor/scaled", "pipeline", "nf4"},
	"merge":             {"tensor"},
	"merge/combine":     {"tensor", "merge", "merge/factors"},
	"merge/recipe":      {"tensor", "merge", "merge/combine"},
	"merge/factors":     {"tensor"},
	"merge/receipt":     {"tensor", "pipeline", "merge", "nf4"},

	"formats/safetensors":  {"tensor"},
	"formats/torch":        {"tensor"},
	"formats/vocab/bpe":    {"tensor"},
	"formats/gguf/ggml":    {"tensor"},
	"formats/gguf/ftype":   {"tensor"},
	"formats/gguf/imatrix": {"tensor", "formats/gguf"},
	"formats/convert":      {"tensor", "arch", "pipeline", "formats/gguf", "formats/hf", "formats/vocab", "formats/modelcard"},
	"formats":              {"tensor", "formats/gguf", "formats/hf", "formats/peft", "formats/safetensors", "formats/torch"},

	"train/optim":                {"tensor"},
	"train/pages":                {"tensor", "train/optim"},
	"train/model":                {"tensor", "arch", "train/optim"},
	"train/stream":               {"tensor", "arch"},
	"train/engine":               {"tensor", "arch", "train/model", "train/stream"},
	"train/data/tokenizer":       {"tensor", "formats/vocab", "formats/vocab/bpe"},
	"train/data/records":         {"tensor", "train/data/records/parquet"},
	"train/data/records/parquet": {"tensor"},
	"train/data/chat":            {"tensor"},
	"train/data":                 {"tensor", "formats/vocab", "train/data/chat", "train/data/records", "train/data/tokenizer"},
	"train":                      {"tensor", "arch", "formats/peft", "train/data", "train/engine", "train/model", "train/optim", "train/pages", "train/stream"},

	"cmd/...": {"..."},
}

// standardOnly may import nothing but the standard library.
var standardOnly = []string{"tensor", "arch"}

func rule(pkg string) ([]string, bool) {
	if r, ok := allowed[pkg]; ok {
		return r, true
	}
	best, found := "", false
	for name := range allowed {
		tree, ok := strings.CutSuffix(name, "/...")
		if ok && (pkg == tree || strings.HasPrefix(pkg, tree+"/")) && len(name) > len(best) {
			best, found = name, true
		}
	}
	return allowed[best], found
}

func TestImportsGoOneWay(t *testing.T) {
	root, err := filepath.Abs("../..")
	require.NoError(t, err)
	packages := 0
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		if n := d.Name(); path != root && (n == "testdata" || strings.HasPrefix(n, ".") || strings.HasPrefix(n, "_") || n == "node_modules") {
			return filepath.SkipDir
		}
		if _, err := os.Stat(filepath.Join(path, "go.mod")); err == nil && path != root {
			return filepath.SkipDir // a module of its own
		}
		p, err := build.ImportDir(path, 0)
		if _, none := err.(*build.NoGoError); none {
			return nil
		}
		require.NoError(t, err)
		rel, err := filepath.Rel(root, path)
		require.NoError(t, err)
		pkg := filepath.ToSlash(rel)
		packages++
		may, ok := rule(pkg)
		require.True(t, ok, "package %s has no row in the table of this test", pkg)
		for _, imp := range p.Imports {
			own, ours := strings.CutPrefix(imp, module)
			if !ours {
				if slices.Contains(standardOnly, pkg) {
					require.NotContains(t, strings.Split(imp, "/")[0], ".", "%s may import the standard library only", pkg)
				}
				continue
			}
			require.False(t, slices.Contains(standardOnly, pkg), "%s may import the standard library only, not %s", pkg, own)
			require.NotEqual(t, "internal/tensortest", own, "%s: only tests import it", pkg)
			if strings.HasPrefix(own, "internal/") || strings.Contains(own, "/internal/") || may != nil && slices.Contains(may, "...") {
				continue
			}
			require.Contains(t, may, own, "%s must not import %s: see docs/ARCHITECTURE.md", pkg, own)
		}
		return nil
	})
	require.NoError(t, err)
	require.Greater(t, packages, 20)
}
