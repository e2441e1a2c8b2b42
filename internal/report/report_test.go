package report

import (
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/internal/distortion"
)

var update = flag.Bool("update", false, "write the goldens of this test anew")

// figures returns what a meter finds of values that were moved by a part of themselves.
func figures(part float32) distortion.Figures {
	x, y := make([]float32, 256), make([]float32, 256)
	for i := range x {
		x[i] = float32(i%17) - 8
		y[i] = x[i] * (1 + part*float32(i%3-1))
	}
	m := distortion.NewMeter(64)
	m.Add(x, y)
	return m.Figures()
}

// sample is a report in which there is something of everything.
func sample() *Report {
	r := &Report{
		Program: "nibble test", Command: "nibble quantize in out", In: "models/in", Out: "out", Model: "A model", Type: "NF4", Reference: "models/in",
		Notes: []string{"a note with <b>markup</b> & more"},
	}
	var all distortion.Figures
	add := func(name, kept string, part float32) {
		f := figures(part)
		t := Tensor{Name: name, Shape: []int64{16, 16}, Was: "BF16", Type: "NF4 block 64 double-quantized", Size: NewSize(256, 140), Error: NewLoss(f), Kept: kept}
		if kept != "" {
			t.Type, t.Size = "BF16", NewSize(256, 512)
		} else {
			all.Add(&f)
		}
		r.Before.Weights, r.Before.Bytes = r.Before.Weights+256, r.Before.Bytes+512
		r.After.Weights, r.After.Bytes = r.After.Weights+256, r.After.Bytes+t.Bytes
		r.Tensors = append(r.Tensors, t)
	}
	add("model.embed_tokens.weight", "embeddings", 0)
	for l := range 3 {
		for i, m := range []string{"self_attn.q_proj", "mlp.experts.0.up_proj", "mlp.experts.1.up_proj"} {
			add(fmt.Sprintf("model.layers.%d.%s.weight", l, m), "", 0.05*float32(i+l+1))
		}
	}
	add("model.norm.weight", "norms", 0)
	add("lm_head.weight", "", 0.3)
	r.Before, r.After = NewSize(r.Before.Weights, r.Before.Bytes), NewSize(r.After.Weights, r.After.Bytes)
	r.Error = NewLoss(all)
	r.Kinds = []Kind{{"BF16", 2, NewSize(512, 1024), nil}, {"NF4 block 64 double-quantized", 10, NewSize(2560, 1400), r.Error}}
	return r
}

func comparison() *Report {
	r := sample()
	r.Out, r.Type, r.Error, r.Kinds = "", "", nil, nil
	c := &Comparison{}
	for k, name := range []string{"nf4:64", "q4_0", "q8_0"} {
		t := Compared{
			Type: name, Quantized: NewSize(2560, int64(1300+600*k)), Whole: NewSize(3072, int64(2300+600*k)),
			RelRMS: Number(0.09 / float64(int(1)<<(2*k))), Mean: 0.1, SNR: 21, Worst: "lm_head.weight", WorstRelRMS: 0.2,
		}
		for i := range r.Tensors {
			e := Number(math.NaN())
			if r.Tensors[i].Kept == "" {
				e = Number(0.01 * float64(i+1) / float64(k+1))
			}
			t.Tensors = append(t.Tensors, e)
		}
		c.Types = append(c.Types, t)
	}
	r.Comparison = c
	return r
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := "testdata/" + name
	if *update {
		require.NoError(t, os.WriteFile(path, got, 0o666))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), string(got), "run the test with -update if it is meant to differ, and look at the page")
}

func TestGoldens(t *testing.T) {
	choice := sample()
	choice.Choice = &Choice{
		Asked: "--target-bits 4.3", Budget: 2500, Used: 2424, Objective: "sum of errors", Cost: 0.1, Candidates: []string{"nf4:64", "bf16"},
		Types: []ChosenType{{"nf4:64", 10, NewSize(2560, 1400), []ChosenModule{{"model.layers.*.self_attn.q_proj.weight", 3}}}},
	}
	expected := Number(0.005)
	choice.Double = &Double{Input: "Q8_0", Expected: &expected, This: choice.Error}
	for name, r := range map[string]*Report{"report": choice, "compare": comparison()} {
		j, err := r.JSON()
		require.NoError(t, err)
		golden(t, name+".json", j)
		h, err := r.HTML()
		require.NoError(t, err)
		golden(t, name+".html", h)
		again, err := r.HTML()
		require.NoError(t, err)
		require.Equal(t, h, again)
	}
}

// The page asks nothing of the network and runs nothing that is in a file.
func TestSelfContained(t *testing.T) {
	r := sample()
	evil := `</script><script>alert(1)</script><img src=x onerror=alert(1)>`
	r.In, r.Command, r.Notes = "models/"+evil, evil, []string{evil}
	r.Tensors[1].Name, r.Tensors[0].Kept, r.Kinds[0].Type = "model.layers.0."+evil, evil, evil
	h, err := r.HTML()
	require.NoError(t, err)
	page := string(h)
	require.NotContains(t, page, "<script>alert")
	require.NotContains(t, page, "<img")
	require.Contains(t, page, "&lt;img src=x onerror=alert(1)&gt;")
	require.Equal(t, 1, strings.Count(page, "<script>"))
	require.Contains(t, page, "default-src 'none'")
	require.Contains(t, page, "prefers-color-scheme: dark")
	require.Contains(t, page, "@media print")
	h, err = comparison().HTML()
	require.NoError(t, err)
	require.NotRegexp(t, regexp.MustCompile(`(?i)(src|href|action|xlink:href)\s*=|url\(|@import|https?://`), string(h))
}

// Every tensor has a row, and every matrix that lost something a square.
func TestPageHasEverything(t *testing.T) {
	r := sample()
	h, err := r.HTML()
	require.NoError(t, err)
	page := string(h)
	for _, x := range r.Tensors {
		require.Contains(t, page, `<td class="n">`+x.Name+`</td>`)
	}
	require.Equal(t, 3*2+1, strings.Count(page, `<rect class="cell"`), "two modules in three layers, the experts as one, and the head")
	require.Contains(t, page, "mlp.experts.up_proj, layer 2: ")
	require.Contains(t, page, "lm_head: ")
	require.Contains(t, page, "norms</td><td>1</td>")
	require.Contains(t, page, "a note with &lt;b&gt;markup&lt;/b&gt; &amp; more")

	h, err = comparison().HTML()
	require.NoError(t, err)
	page = string(h)
	require.Equal(t, 3*(3*2+1), strings.Count(page, `<rect class="cell"`))
	require.Equal(t, 3, strings.Count(page, `<circle`))
}

// An empty report is a page too.
func TestEmpty(t *testing.T) {
	h, err := (&Report{Tensors: []Tensor{}}).HTML()
	require.NoError(t, err)
	require.NotContains(t, string(h), "NaN")
}

func TestJSONNumbers(t *testing.T) {
	exact := NewLoss(distortion.Figures{Values: 4, Square: 1})
	b, err := json.Marshal(exact)
	require.NoError(t, err)
	require.Contains(t, string(b), `"snr_db":null`)
	var back Loss
	require.NoError(t, json.Unmarshal(b, &back))
	require.True(t, math.IsNaN(float64(back.SNR)))
	require.Zero(t, back.RelRMS)
}

func TestPlaces(t *testing.T) {
	names := []string{
		"model.layers.0.self_attn.q_proj.weight", "model.layers.11.mlp.experts.3.down_proj.weight", "lm_head.weight",
		"visual.blocks.2.attn.qkv.weight", "model.layers.1.self_attn.q_proj.bias", "blk.99999.x.weight", "blk..weight", "",
	}
	require.Equal(t, []place{
		{0, "self_attn.q_proj"}, {11, "mlp.experts.down_proj"}, {-1, "lm_head"},
		{2, "visual.blocks.attn.qkv"}, {1, "self_attn.q_proj.bias"}, {-1, "blk.99999.x"}, {-1, "blk."}, {-1, ""},
	}, places(names))
	for name, want := range map[string]string{
		"model.layers.1.mlp.experts.3.down_proj.weight": "model.layers.1.mlp.experts.down_proj.weight",
		"model.layers.1.mlp.experts.7.down_proj.weight": "model.layers.1.mlp.experts.down_proj.weight",
		"model.layers.2.mlp.down_proj.weight":           "model.layers.2.mlp.down_proj.weight",
		"lm_head.weight":                                "lm_head.weight",
	} {
		require.Equal(t, want, Group(name))
	}
}

// Names of types never lie on each other or outside the picture.
func TestScatterNames(t *testing.T) {
	var types []Compared
	for i := range 24 {
		types = append(types, Compared{Type: fmt.Sprint("type", i), Quantized: NewSize(8000, int64(4100+20*i)), RelRMS: Number(0.09 - 0.001*float64(i%7))})
	}
	types = append(types, Compared{Type: "q8_0", Quantized: NewSize(8000, 8500), RelRMS: 0.005})
	s := newScatter(types)
	require.Len(t, s.Points, 25)
	for i, p := range s.Points {
		require.GreaterOrEqual(t, p.NameX, s.Left)
		require.LessOrEqual(t, p.NameX+7*len(p.Name), s.Right)
		for _, q := range s.Points[:i] {
			a, b := box{p.NameX, p.NameY - 10, p.NameX + 7*len(p.Name), p.NameY}, box{q.NameX, q.NameY - 10, q.NameX + 7*len(q.Name), q.NameY}
			require.False(t, a.meets(b), "%s and %s", p.Name, q.Name)
		}
	}
	require.Nil(t, newScatter(types[:1]))
}

func TestWords(t *testing.T) {
	require.Equal(t, "9.47 %", percent(0.09473))
	require.Equal(t, "0", percent(0))
	require.Equal(t, "1.0e-05 %", percent(1e-7))
	require.Equal(t, "∞", percent(Number(math.Inf(1))))
	require.Equal(t, "1 234 567", grouped(1234567))
	require.Equal(t, "12", grouped(12))
	require.Equal(t, "exact", decibels(Number(math.Inf(1))))
	require.Equal(t, "x", lastPart("a/b/x"))
	require.Equal(t, "x/", lastPart("x/"))
}
