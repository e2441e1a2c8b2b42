package main

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/internal/report"
	"github.com/seed18967229/nibble/tensor"
)

func readReport(t *testing.T, path string) *report.Report {
	t.Helper()
	var r report.Report
	require.NoError(t, json.Unmarshal([]byte(readFile(t, path)), &r))
	return &r
}

// decoded returns every tensor of a model in checkpoint form.
func decoded(t *testing.T, path string) map[string][]float32 {
	t.Helper()
	m, err := openModel(path)
	require.NoError(t, err)
	defer m.Close()
	out := make(map[string][]float32)
	for info := range m.tensors().All() {
		_, w, err := codecs.ReadAll(m.tensors(), info.Name)
		require.NoError(t, err)
		out[info.Name] = w
	}
	return out
}

// relRMS is written down here once more, plainly.
func relRMS(x, y []float32) float64 {
	var square, e float64
	for i := range x {
		d := float64(x[i]) - float64(y[i])
		square, e = square+float64(x[i])*float64(x[i]), e+d*d
	}
	return math.Sqrt(e / square)
}

// The figures of a report are those of what lies on disk, for every kind of type.
func TestReport(t *testing.T) {
	dir := workspace(t)
	in := filepath.Join(dir, "stories260K")
	original := decoded(t, in)
	for _, typ := range []string{"nf4", "fp4", "int8", "q8_0", "q4_0", "iq4_nl"} {
		out := filepath.Join(dir, typ)
		if _, ok := bnbTypes[typ]; !ok {
			out += ".gguf"
		}
		path := filepath.Join(dir, "report-"+typ+".json")
		ok(t, "quantize", in, out, "--type", typ, "--report", path)
		r := readReport(t, path)
		require.Len(t, r.Tensors, len(original))
		got := decoded(t, out)
		var all int64
		quantized := 0
		for _, x := range r.Tensors {
			require.InDelta(t, relRMS(original[x.Name], got[x.Name]), float64(x.Error.RelRMS), 1e-8, x.Name)
			require.Zero(t, x.Error.NonFinite+x.Error.MadeNonFinite+x.Error.ZeroBlocks)
			require.InDelta(t, 8*float64(x.Bytes)/float64(x.Weights), x.Bits, 1e-9)
			require.Equal(t, x.Kept == "", x.Type != "F32" && x.Type != "F16", x.Name)
			if x.Kept == "" {
				quantized++
				require.Positive(t, float64(x.Error.RelRMS))
				require.LessOrEqual(t, float64(x.Error.RelRMS), float64(x.Error.WorstRelRMS)+1e-9)
			}
			all += x.Bytes
		}
		require.Equal(t, all, r.After.Bytes)
		require.Equal(t, int64(260032), r.After.Weights)
		require.GreaterOrEqual(t, quantized, 30) // GGUF's types do not divide rows of 172
		require.Equal(t, strings.ToUpper(typ), r.Type)
		require.Nil(t, r.Double)
		require.Equal(t, in, r.Reference)
		var kinds int64
		for _, k := range r.Kinds {
			kinds += k.Bytes
		}
		require.Equal(t, all, kinds)
	}
	// What a directory's report counts is what its files hold.
	r := readReport(t, filepath.Join(dir, "report-nf4.json"))
	var stored int64
	m, err := openModel(filepath.Join(dir, "nf4"))
	require.NoError(t, err)
	defer m.Close()
	for info := range m.Input.All() {
		stored += info.Size()
	}
	require.Equal(t, stored, r.After.Bytes)
}

// The same run gives the same report, whatever the processors.
func TestReportIsDeterministic(t *testing.T) {
	dir := workspace(t)
	in, out := filepath.Join(dir, "stories260K"), filepath.Join(dir, "nf4")
	var first [2]string
	for i, threads := range []string{"1", "4", "3"} {
		ok(t, "quantize", in, out, "--force", "--report", filepath.Join(dir, "r"), "--threads", threads)
		var got [2]string
		for k, name := range []string{"report.json", "report.html"} {
			got[k] = strings.ReplaceAll(readFile(t, filepath.Join(dir, "r", name)), "--threads "+threads, "")
		}
		if i == 0 {
			first = got
		}
		require.Equal(t, first, got)
	}
}

func TestReportFiles(t *testing.T) {
	dir := workspace(t)
	in := filepath.Join(dir, "stories260K")
	at := func(name string) string { return filepath.Join(dir, name) }
	for i, c := range []struct {
		report string
		files  []string
	}{
		{"a.html", []string{"a.html"}}, {"b.json", []string{"b.json"}}, {"new", []string{"new/report.html", "new/report.json"}},
		{"with.HTM", []string{"with.HTM"}},
	} {
		ok(t, "quantize", in, at(string(rune('A'+i))), "--report", at(c.report))
		for _, f := range c.files {
			require.FileExists(t, at(f))
		}
	}
	put(t, at("plain"), "x")
	for _, c := range []struct {
		args []string
		code int
		text string
	}{
		{[]string{"--report", at("r.pdf")}, exitUsage, ".html or .json"},
		{[]string{"--report", at("plain")}, exitUsage, "without an extension"},
		{[]string{"--report", at("b.json")}, exitFailed, "output exists"},
		{[]string{"--report", at("r.json"), "--dry-run", "--type", "q8_0"}, exitUsage, "--dry-run"},
		{[]string{"--original", at("nowhere")}, exitFailed, "nowhere"},
	} {
		o := nibble(t, append([]string{"quantize", in, at("Z")}, c.args...)...)
		require.Equal(t, c.code, o.code, o.stderr)
		require.Contains(t, o.stderr, c.text)
		if c.code == exitUsage {
			require.NoFileExists(t, at("Z/config.json"), "refused before the work")
		}
	}
}

// convert can say what it rounded.
func TestReportOfConversion(t *testing.T) {
	dir := workspace(t)
	in, half := filepath.Join(dir, "stories260K"), filepath.Join(dir, "half")
	ok(t, "convert", in, half, "--outtype", "bf16", "--report", filepath.Join(dir, "r"))
	r := readReport(t, filepath.Join(dir, "r/report.json"))
	original, got := decoded(t, in), decoded(t, half)
	require.Len(t, r.Tensors, len(original))
	for _, x := range r.Tensors {
		require.InDelta(t, relRMS(original[x.Name], got[x.Name]), float64(x.Error.RelRMS), 1e-8, x.Name)
		require.Equal(t, "BF16", x.Type)
		require.Empty(t, x.Kept)
	}
	require.Greater(t, float64(r.Error.RelRMS), 1e-4)
	require.Less(t, float64(r.Error.RelRMS), 1.0/256)
	require.Contains(t, readFile(t, filepath.Join(dir, "r/report.html")), "as BF16: what the conversion cost")

	back := filepath.Join(dir, "back.gguf")
	require.NotContains(t, ok(t, "convert", half, back, "--outtype", "bf16", "--report", filepath.Join(dir, "same.json")), "warning")
	require.Zero(t, readReport(t, filepath.Join(dir, "same.json")).Error.RelRMS)
	o := nibble(t, "convert", filepath.Join(half, "model.safetensors"), filepath.Join(dir, "x.safetensors"), "--report", filepath.Join(dir, "x.json"))
	require.Equal(t, exitUsage, o.code)
	require.NoFileExists(t, filepath.Join(dir, "x.safetensors"))
}

// A model that is quantized again: both losses, against the original if it is there.
func TestDoubleLoss(t *testing.T) {
	dir := workspace(t)
	in, q8, out := filepath.Join(dir, "stories260K"), filepath.Join(dir, "q8.gguf"), filepath.Join(dir, "nf4")
	ok(t, "convert", in, q8, "--outtype", "q8_0")
	path := filepath.Join(dir, "r.json")
	text := ok(t, "quantize", q8, out, "--report", path)
	require.Contains(t, text, "warning: "+q8+" was quantized already (Q8_0)")
	require.Contains(t, text, "not known; of normally distributed weights it would be about 0.5")
	d := readReport(t, path).Double
	require.NotNil(t, d)
	require.Nil(t, d.Both)
	require.InDelta(t, 0.005, float64(*d.Expected), 0.001)

	var r struct {
		Type string
		Loss lossResult
	}
	okJSON(t, &r, "quantize", q8, out, "--force", "--original", in, "--report", path)
	require.Equal(t, "NF4", r.Type)
	require.Contains(t, r.Loss.Warning, "against "+in)
	full := readReport(t, path)
	d = full.Double
	require.NotNil(t, d.Both)
	x, y, z := decoded(t, in), decoded(t, q8), decoded(t, out)
	var sums [3][2]float64
	for _, tt := range full.Tensors {
		if tt.Kept != "" {
			continue
		}
		name := tt.Name
		require.InDelta(t, relRMS(x[name], y[name]), float64(tt.Input.RelRMS), 1e-8)
		require.InDelta(t, relRMS(x[name], z[name]), float64(tt.Error.RelRMS), 1e-8)
		for i, p := range [3][2][]float32{{x[name], y[name]}, {y[name], z[name]}, {x[name], z[name]}} {
			for k := range p[0] {
				e := float64(p[0][k]) - float64(p[1][k])
				sums[i][0], sums[i][1] = sums[i][0]+float64(p[0][k])*float64(p[0][k]), sums[i][1]+e*e
			}
		}
	}
	for i, l := range []*report.Loss{d.InputError, d.This, d.Both} {
		require.InDelta(t, math.Sqrt(sums[i][1]/sums[i][0]), float64(l.RelRMS), 1e-8)
	}
	require.Greater(t, float64(d.Both.RelRMS), float64(d.InputError.RelRMS))
}

// What a comparison says of a type is what quantizing to it then does.
func TestCompare(t *testing.T) {
	dir := workspace(t)
	in := filepath.Join(dir, "stories260K")
	var r compareResult
	path := filepath.Join(dir, "c.json")
	okJSON(t, &r, "quantize", in, "--compare", "nf4,NF4:128,fp4,int8,q4_0,q8_0,iq4_nl", "--report", path)
	require.Len(t, r.Types, 7)
	require.Equal(t, 35, r.Measured)
	full := readReport(t, path)
	for _, c := range r.Types {
		typ, block, _ := strings.Cut(c.Type, ":")
		out := filepath.Join(dir, strings.ReplaceAll(c.Type, ":", "-"))
		args := []string{"quantize", in, out, "--type", typ, "--report", out + ".json"}
		if block != "" {
			args = append(args, "--block-size", block)
		}
		if _, ok := bnbTypes[typ]; !ok {
			args[2] += ".gguf"
		}
		ok(t, args...)
		real := readReport(t, out+".json")
		var sum, n float64
		for i, x := range real.Tensors {
			require.Equal(t, x.Name, full.Tensors[i].Name)
			e := float64(c.Tensors[i])
			if !math.IsNaN(e) {
				require.InEpsilon(t, float64(x.Error.RelRMS), e, 1e-5, "%s %s", c.Type, x.Name)
				sum, n = sum+e, n+1
				require.LessOrEqual(t, e, float64(c.WorstRelRMS))
			}
		}
		require.InDelta(t, sum/n, float64(c.Mean), 1e-8)
		require.InEpsilon(t, real.After.Bytes, c.Whole.Bytes, 0.01, c.Type)
		require.LessOrEqual(t, real.After.Bytes, c.Whole.Bytes, c.Type)
	}
	for _, c := range []struct{ list, text string }{{"nf5", "no type"}, {"nf4,nf4:64", "twice"}, {"nf4:48", "48"}, {"int8:64", "no type"}} {
		o := nibble(t, "quantize", in, "--compare", c.list)
		require.Equal(t, exitUsage, o.code, o.stderr)
		require.Contains(t, o.stderr, c.text)
	}
	o := nibble(t, "quantize", in, filepath.Join(dir, "out"), "--compare", "nf4")
	require.Equal(t, exitUsage, o.code)
}

// chosenBy returns what a command chose.
func chosenBy(t *testing.T, args ...string) *report.Choice {
	t.Helper()
	var r struct{ Choice *report.Choice }
	okJSON(t, &r, args...)
	require.NotNil(t, r.Choice)
	return r.Choice
}

// A choice fits its budget, is better than one type for all of the same size, and is the
// same again; the result is a model as any other.
func TestTarget(t *testing.T) {
	dir := workspace(t)
	in := filepath.Join(dir, "stories260K")
	for _, out := range []string{filepath.Join(dir, "mixed"), filepath.Join(dir, "mixed.gguf")} {
		path := out + ".json"
		bits := "9.1"
		if isGGUF(out) {
			bits = "7.6"
		}
		ok(t, "quantize", in, out, "--target-bits", bits, "--report", path)
		r := readReport(t, path)
		require.NotNil(t, r.Choice)
		require.LessOrEqual(t, r.After.Bytes, r.Choice.Budget)
		require.Greater(t, r.After.Bytes, r.Choice.Budget*98/100)
		require.Greater(t, len(r.Choice.Types), 1)
		var cost float64
		for _, x := range r.Tensors {
			if x.Error != nil {
				cost += float64(x.Error.RelRMS) * float64(x.Error.RelRMS)
			}
		}
		require.InEpsilon(t, cost, float64(r.Choice.Cost), 1e-4, "what is on disk is what was minimised")
		again := filepath.Join(t.TempDir(), filepath.Base(out))
		ok(t, "quantize", in, again, "--target-bits", bits, "--threads", "3")
		require.Equal(t, tensors(t, out), tensors(t, again))
		ok(t, "generate", "--model", out, "--prompt", "Once upon a time", "--max-tokens", "4", "--temperature", "0")
	}
	// In the room of one type for all, the choice does better.
	one := filepath.Join(dir, "one.gguf")
	ok(t, "quantize", in, one, "--type", "q5_0", "--pure", "--report", one+".json")
	uniform := readReport(t, one+".json")
	var cost float64
	for _, x := range uniform.Tensors {
		cost += float64(x.Error.RelRMS) * float64(x.Error.RelRMS)
	}
	mixed := chosenBy(t, "quantize", in, one, "--target-bits", fmt.Sprint(uniform.After.Bits), "--force")
	require.Less(t, float64(mixed.Cost), cost)

	// With much room some weights keep their type, and transformers is told.
	wide := filepath.Join(dir, "wide")
	ok(t, "quantize", in, wide, "--target-bits", "15", "--report", wide+".json")
	skip := quantizationConfig(t, wide).Skip
	require.Contains(t, skip, "lm_head")
	keeps := 0
	for _, x := range readReport(t, wide+".json").Tensors {
		if x.Kept == "chosen to keep its type" {
			require.Contains(t, skip, strings.TrimSuffix(x.Name, ".weight"))
			require.Equal(t, "F32", x.Type)
			keeps++
		}
	}
	require.Positive(t, keeps)
	require.Len(t, skip, keeps+1)

	// Less room never gains.
	last := math.Inf(1)
	for _, bits := range []string{"7.1", "7.4", "8", "10"} {
		r := chosenBy(t, "quantize", in, filepath.Join(dir, "b.gguf"), "--target-bits", bits, "--force")
		require.Less(t, float64(r.Cost), last)
		last = float64(r.Cost)
	}
	// A file of the size that was asked for, all of it counted.
	out := filepath.Join(dir, "size.gguf")
	ok(t, "quantize", in, out, "--target-size", "270KiB")
	st, err := os.Stat(out)
	require.NoError(t, err)
	require.LessOrEqual(t, st.Size(), int64(270<<10))
	require.Greater(t, st.Size(), int64(270<<10)*98/100)
}

// An importance matrix weighs the columns, for both families.
func TestTargetByImportance(t *testing.T) {
	dir := workspace(t)
	in, im := filepath.Join(dir, "stories260K"), filepath.Join(dir, "im.gguf")
	text := filepath.Join(dir, "text.txt")
	put(t, text, readFile(t, filepath.Join(goldens, "stories260K/shakespeare.txt"))[:4000])
	ok(t, "imatrix", "--model", in, "--data", text, "--out", im)
	for _, out := range []string{filepath.Join(dir, "w"), filepath.Join(dir, "w.gguf")} {
		bits := "9.1"
		if isGGUF(out) {
			bits = "7.6"
		}
		args := []string{"quantize", in, out, "--target-bits", bits, "--force"}
		plain, weighted := chosenBy(t, args...), chosenBy(t, append(args, "--imatrix", im)...)
		require.NotContains(t, plain.Objective, "importance")
		require.Contains(t, weighted.Objective, "importance")
		require.NotEqual(t, plain.Cost, weighted.Cost)
	}
	// Types are tried as they would be written.
	var without, with compareResult
	okJSON(t, &without, "quantize", in, "--compare", "iq4_nl,nf4")
	okJSON(t, &with, "quantize", in, "--compare", "iq4_nl,nf4", "--imatrix", im)
	require.NotEqual(t, float64(without.Types[0].RelRMS), float64(with.Types[0].RelRMS))
	require.Equal(t, float64(without.Types[1].RelRMS), float64(with.Types[1].RelRMS))
	out := filepath.Join(dir, "i.gguf")
	ok(t, "quantize", in, out, "--type", "iq4_nl", "--imatrix", im, "--report", out+".json")
	for i, x := range readReport(t, out+".json").Tensors {
		if e := float64(with.Types[0].Tensors[i]); !math.IsNaN(e) {
			require.InEpsilon(t, float64(x.Error.RelRMS), e, 1e-5, x.Name)
		}
	}
}

func TestTargetFlags(t *testing.T) {
	dir := workspace(t)
	in, out := filepath.Join(dir, "stories260K"), filepath.Join(dir, "out")
	for _, c := range []struct {
		args []string
		code int
		text string
	}{
		{[]string{out, "--target-bits", "5", "--target-size", "1MiB"}, exitUsage, "two budgets"},
		{[]string{out, "--target-bits", "-5"}, exitUsage, "above 0"},
		{[]string{out, "--target-bits", "9", "--type", "nf4"}, exitUsage, "--type is one type"},
		{[]string{out, "--target-bits", "9", "--block-size", "64"}, exitUsage, "--types"},
		{[]string{out, "--target-bits", "9", "--types", "nf4,int8"}, exitUsage, "one type for all layers"},
		{[]string{out, "--target-bits", "9", "--types", "nf4,fp4"}, exitUsage, "one type for all layers"},
		{[]string{out, "--target-bits", "9", "--types", "keep"}, exitUsage, "nothing to quantize"},
		{[]string{out, "--types", "nf4"}, exitUsage, "--target-bits"},
		{[]string{out + ".gguf", "--target-bits", "6", "--types", "nf4"}, exitUsage, "q4_k"},
		{[]string{out + ".gguf", "--target-bits", "6", "--pure"}, exitUsage, "--pure"},
		{[]string{out + ".gguf", "--target-bits", "2"}, exitUsage, "give at least --target-bits"},
		{[]string{out, "--target-size", "10KiB"}, exitUsage, "give at least --target-size"},
	} {
		o := nibble(t, append([]string{"quantize", in}, c.args...)...)
		require.Equal(t, c.code, o.code, "%v\n%s", c.args, o.stderr)
		require.Contains(t, o.stderr, c.text, "%v", c.args)
		require.NoFileExists(t, out)
	}
	// The hint can be taken at its word.
	o := nibble(t, "quantize", in, out, "--target-bits", "1")
	_, least, found := strings.Cut(o.stderr, "--target-bits ")
	require.True(t, found)
	_, least, found = strings.Cut(least, "--target-bits ")
	require.True(t, found)
	least, _, _ = strings.Cut(least, ",")
	ok(t, "quantize", in, out, "--target-bits", least)
}

// Types are tried on whole tensors as on stacked experts and on layers that lie the other
// way round.
func TestCompareFamilies(t *testing.T) {
	for _, family := range []string{"gpt2", "qwen3moe", "mixtral", "gemma3-vision"} {
		t.Run(family, func(t *testing.T) {
			t.Parallel()
			in, dir := filepath.Join(goldens, "families", family), t.TempDir()
			var r compareResult
			path := filepath.Join(dir, "c.json")
			okJSON(t, &r, "quantize", in, "--compare", "nf4,q8_0", "--report", path)
			out := filepath.Join(dir, "x.gguf")
			ok(t, "quantize", in, out, "--type", "q8_0", "--report", out+".json")
			real := make(map[string]report.Number)
			for _, x := range readReport(t, out+".json").Tensors {
				if x.Error != nil {
					real[x.Name] = x.Error.RelRMS
				}
			}
			checked := 0
			for i, x := range readReport(t, path).Tensors {
				if e := float64(r.Types[1].Tensors[i]); !math.IsNaN(e) && e > 0 {
					require.InEpsilon(t, float64(real[x.Name]), e, 1e-4, x.Name)
					checked++
				}
			}
			require.Greater(t, checked, 5)
		})
	}
}

// The encodings a trial knows are as large as it says.
func TestEncodingSizes(t *testing.T) {
	shape := tensor.Shape{6, 256}
	require.Equal(t, int64(6*144), encoding{dtype: tensor.Q4_K}.size(shape))
	require.Equal(t, int64(6*256*2), encoding{dtype: tensor.BF16}.size(shape))
	require.Equal(t, int64(6*256+24+1), encoding{dtype: tensor.INT8}.size(shape))
	require.False(t, encoding{dtype: tensor.Q4_K}.fits(tensor.Shape{2, 128}))
	require.True(t, encoding{dtype: tensor.NF4, block: 64}.fits(tensor.Shape{2, 7}))
}
