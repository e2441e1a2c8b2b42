package ftype

import (
	"compress/gzip"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/tensor"
)

// recipe is a model as testdata/gen/ftype_goldens.py writes one.
type recipe struct {
	Name  string
	Arch  string
	KV    map[string]any
	Outer [][]any // name, shape
	Layer [][]any // name, shape, first layer, layer behind the last

	Runs []struct {
		Type      string
		Imatrix   bool
		Pure      bool
		Output    string
		Embedding string
		Leave     bool `json:"leave_output"`
		Overrides [][2]string
		Types     map[string]string
	}
	Sections []struct {
		Type  string
		Base  string
		Types map[string]string
	}
}

func readGolden(t *testing.T, name string) []recipe {
	f, err := os.Open(filepath.Join("testdata", name))
	require.NoError(t, err)
	defer f.Close()
	z, err := gzip.NewReader(f)
	require.NoError(t, err)
	var list []recipe
	require.NoError(t, json.NewDecoder(z).Decode(&list))
	return list
}

func (r *recipe) tensors() []tensor.Info {
	var out []tensor.Info
	info := func(name string, shape any) tensor.Info {
		t := tensor.Info{Name: name, DType: tensor.F32}
		for _, d := range shape.([]any) {
			t.Shape = append(t.Shape, int64(d.(float64)))
		}
		return t
	}
	for _, o := range r.Outer {
		out = append(out, info(o[0].(string), o[1]))
	}
	for _, l := range r.Layer {
		for i := int(l[2].(float64)); i < int(l[3].(float64)); i++ {
			out = append(out, info(fmt.Sprintf("blk.%d.%s", i, l[0]), l[1]))
		}
	}
	return out
}

func (r *recipe) model(t *testing.T) Model {
	meta := tensor.Meta{{Key: "general.architecture", Value: r.Arch}}
	for k, v := range r.KV {
		if n := v.(float64); n == float64(int(n)) {
			meta = append(meta, tensor.KV{Key: r.Arch + "." + k, Value: uint32(n)})
		}
	}
	m, err := ModelOf(meta)
	require.NoError(t, err)
	return m
}

// unfold undoes compact of ftype_goldens.py.
func unfold(t *testing.T, types map[string]string) map[string]string {
	out := make(map[string]string)
	for name, s := range types {
		rest, ok := strings.CutPrefix(name, "blk.")
		if !ok {
			out[name] = s
			continue
		}
		for part := range strings.SplitSeq(s, ", ") {
			fields := strings.Fields(part)
			for _, span := range fields[1:] {
				a, b, two := strings.Cut(span, "-")
				if !two {
					b = a
				}
				first, err := strconv.Atoi(a)
				require.NoError(t, err)
				last, err := strconv.Atoi(b)
				require.NoError(t, err)
				for i := first; i <= last; i++ {
					out["blk."+strconv.Itoa(i)+"."+rest] = fields[0]
				}
			}
		}
	}
	return out
}

// What llama-quantize chooses for models of every shape, with every flag.
func TestChooseIsLlamaQuantize(t *testing.T) {
	all := Types()
	runs := 0
	for _, r := range readGolden(t, "models.json.gz") {
		infos, model := r.tensors(), r.model(t)
		for _, run := range r.Runs {
			o := Options{Type: all[run.Type], Imatrix: run.Imatrix, Pure: run.Pure, LeaveOutput: run.Leave}
			require.NotZero(t, o.Type, run.Type)
			for name, to := range map[string]*tensor.DType{run.Output: &o.Output, run.Embedding: &o.Embedding} {
				if name != "" {
					d, err := ParseDType(name)
					require.NoError(t, err)
					*to = d
				}
			}
			for _, v := range run.Overrides {
				p, err := ParseOverride(v[0] + "=" + v[1])
				require.NoError(t, err)
				o.Overrides = append(o.Overrides, p)
			}
			choices, err := Choose(infos, model, o)
			require.NoError(t, err, "%s, %s", r.Name, run.Type)
			require.Len(t, choices, len(infos))
			types := unfold(t, run.Types)
			for _, c := range choices {
				if want := types[c.Out.Name]; want != c.Out.DType.String() {
					require.Equal(t, want, c.Out.DType.String(), "%s, %+v: %s (%s)", r.Name, o, c.Out.Name, c.Why)
				}
				runs++
			}
		}
	}
	require.Greater(t, runs, 900_000)
}

// What llama.cpp's own test expects of real models.
func TestSnapshots(t *testing.T) {
	all := Types()
	for _, r := range readGolden(t, "snapshots.json.gz") {
		infos, model := r.tensors(), r.model(t)
		for _, s := range r.Sections {
			choices, err := Choose(infos, model, Options{Type: all[s.Type]})
			require.NoError(t, err)
			require.Equal(t, s.Base, all[s.Type].Base().String())
			types := unfold(t, s.Types)
			matrices := 0
			for _, c := range choices {
				if c.Keeps() {
					continue
				}
				want, ok := types[c.Out.Name]
				if !ok {
					want = s.Base
				}
				require.Equal(t, want, c.Out.DType.String(), "%s, %s: %s (%s)", r.Name, s.Type, c.Out.Name, c.Why)
				matrices++
			}
			require.Greater(t, matrices, 7*model.Blocks-1)
		}
	}
}

func names(choices []Choice) []string {
	var out []string
	for _, c := range choices {
		out = append(out, c.Out.Name)
	}
	return out
}

func matrix(name string, shape ...int64) tensor.Info {
	return tensor.Info{Name: name, DType: tensor.F32, Shape: shape}
}

var small = Model{Arch: "llama", Blocks: 11, Heads: 8, KVHeads: 8}

func TestOrderAndReasons(t *testing.T) {
	choices, err := Choose([]tensor.Info{
		matrix("blk.10.attn_v.weight", 256, 256), matrix("blk.2.ffn_down.weight", 256, 96), matrix("blk.2.attn_norm.weight", 256),
		matrix("token_embd.weight", 8, 256), matrix("output.weight", 8, 256), matrix("blk.2.ffn_gate_inp_shexp.weight", 1, 256),
	}, small, Options{Type: Q4_K_M})
	require.NoError(t, err)
	require.Equal(t, []string{"output.weight", "token_embd.weight", "blk.2.attn_norm.weight", "blk.2.ffn_down.weight",
		"blk.2.ffn_gate_inp_shexp.weight", "blk.10.attn_v.weight"}, names(choices))
	require.Equal(t, "output", choices[0].Why)
	require.Equal(t, "", choices[1].Why)
	require.Equal(t, "a vector", choices[2].Why)
	require.True(t, choices[2].Keeps())
	require.Equal(t, tensor.Q8_0, choices[3].Out.DType)
	require.Equal(t, "ffn_down in a layer that gets more bits", choices[3].Why)
	require.Equal(t, "rows of 96 are not a multiple of 256, as Q6_K needs", choices[3].Fallback)
	require.Equal(t, "a vector", choices[4].Why)
	require.Equal(t, tensor.Shape{256}, choices[4].Out.Shape)
	require.Equal(t, "attn_v in a layer that gets more bits", choices[5].Why)
}

func TestNeedsImatrix(t *testing.T) {
	list := []tensor.Info{matrix("token_embd.weight", 8, 256), matrix("output.weight", 8, 256), matrix("blk.0.attn_q.weight", 256, 256)}
	for _, c := range []struct {
		o    Options
		want []bool
	}{
		{Options{Type: Q2_K}, []bool{false, false, false}},
		{Options{Type: Q2_K_S}, []bool{false, false, true}},
		{Options{Type: Q2_K_S, Pure: true}, []bool{false, false, true}},
		{Options{Type: Q4_0, Overrides: []Override{override(t, ".=iq2_xxs")}}, []bool{false, false, true}},
	} {
		choices, err := Choose(list, small, c.o)
		require.NoError(t, err)
		for i, want := range c.want {
			require.Equal(t, want, choices[i].NeedsImatrix, "%+v: %s", c.o, choices[i].Out.Name)
		}
	}
}

func override(t *testing.T, s string) Override {
	o, err := ParseOverride(s)
	require.NoError(t, err)
	return o
}

func TestFaults(t *testing.T) {
	for _, s := range []string{"", "=", "a", "a=", "=q4_0", "a=q4_9", "(=q4_0", "a=i32"} {
		_, err := ParseOverride(s)
		require.Error(t, err, s)
	}
	_, err := Choose(nil, small, Options{Type: 99})
	require.ErrorIs(t, err, tensor.ErrUnsupported)

	moe := Model{Arch: "llama", Blocks: 2, Experts: 8, Heads: 8, KVHeads: 8}
	for _, name := range []string{"ffn_up.weight", "blk.2.ffn_down.weight", "blk..ffn_gate.weight", "blk.99999999999999999999.ffn_gate.weight"} {
		_, err := Choose([]tensor.Info{matrix(name, 256, 256)}, moe, Options{Type: Q4_K_M})
		require.ErrorIs(t, err, tensor.ErrUnsupported, name)
		require.ErrorContains(t, err, name)
	}
	_, err = Choose([]tensor.Info{matrix("output.weight", 8, 96)}, small, Options{Type: Q4_0, Output: tensor.Q6_K})
	require.ErrorIs(t, err, tensor.ErrUnsupported)
	require.ErrorContains(t, err, "--output-tensor-type")
	_, err = Choose([]tensor.Info{matrix("blk.0.attn_q.weight", 8, 96)}, small, Options{Type: Q4_0, Overrides: []Override{override(t, "q=nvfp4")}})
	require.ErrorIs(t, err, tensor.ErrUnsupported)

	good := tensor.Meta{{Key: "general.architecture", Value: "x"}, {Key: "x.block_count", Value: uint32(3)}}
	m, err := ModelOf(append(slices.Clone(good), tensor.KV{Key: "x.attention.head_count", Value: []int32{4, 8}}))
	require.NoError(t, err)
	require.Equal(t, Model{Arch: "x", Blocks: 3, Heads: 4, KVHeads: 4}, m)
	for _, bad := range []tensor.Meta{
		nil,
		good[:1],
		{{Key: "general.architecture", Value: uint32(1)}},
		{good[0], {Key: "x.block_count", Value: uint32(0)}},
		{good[0], {Key: "x.block_count", Value: "3"}},
		append(slices.Clone(good), tensor.KV{Key: "x.expert_count", Value: int32(-1)}),
		append(slices.Clone(good), tensor.KV{Key: "x.attention.head_count", Value: []uint32{}}),
		append(slices.Clone(good), tensor.KV{Key: "x.nextn_predict_layers", Value: uint32(4)}),
	} {
		_, err := ModelOf(bad)
		require.ErrorIs(t, err, tensor.ErrMalformed)
	}
}

func TestTypes(t *testing.T) {
	all := Types()
	for _, name := range strings.Fields("q4_0 q4_1 q5_0 q5_1 q8_0 q2_k q2_k_s q3_k_s q3_k_m q3_k_l q4_k_s q4_k_m q5_k_s q5_k_m q6_k iq4_nl iq4_xs tq1_0 tq2_0 mxfp4") {
		require.Equal(t, name, all[name].String())
	}
	require.Equal(t, Q3_K_M, all["q3_k"])
	require.Equal(t, Q4_K_M, all["q4_k"])
	require.Equal(t, Q5_K_M, all["q5_k"])
	require.Equal(t, MXFP4_MOE, all["mxfp4_moe"])
	require.Len(t, all, 24)
	require.Equal(t, "Type(99)", Type(99).String())
}
