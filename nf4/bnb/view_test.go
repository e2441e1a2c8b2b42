package bnb

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/internal/tensortest"
	"github.com/seed18967229/nibble/nf4"
	"github.com/seed18967229/nibble/nf4/internal/golden"
	"github.com/seed18967229/nibble/tensor"
)

// A whole checkpoint, against what bitsandbytes decodes it to.
func TestViewTinyLlama(t *testing.T) {
	for _, kind := range []string{"dq", "plain"} {
		src := archive(t, "tiny_llama_bnb4/model_nf4_"+kind+".safetensors")
		want := archive(t, "tiny_llama_bnb4/dequant_bf16_"+kind+".safetensors")
		original := archive(t, "tiny_llama_bnb4/original_bf16.safetensors")
		view, err := View(src, tensor.Invalid)
		require.NoError(t, err)
		tensortest.TestSource(t, view)
		require.Equal(t, names(original), names(view))
		require.Equal(t, src.Meta(), view.Meta())

		got := cast(t, view, tensor.BF16)
		require.Equal(t, names(want), names(got))
		for info := range want.All() {
			require.Equal(t, tensortest.Bytes(t, want, info.Name), tensortest.Bytes(t, got, info.Name), info.Name)
			full, err := original.Info(info.Name)
			require.NoError(t, err)
			logical, err := view.Info(info.Name)
			require.NoError(t, err)
			require.Equal(t, full.Shape, logical.Shape)
			h, err := nf4.Describe(view, info.Name)
			require.NoError(t, err)
			require.Equal(t, nf4.Header{BlockSize: 64, Double: kind == "dq", Source: tensor.BF16, Offset: h.Offset}, h)
		}
		// What is not quantized is passed on.
		for info := range original.All() {
			if !tensor.Has(want, info.Name) {
				require.Equal(t, tensortest.Bytes(t, original, info.Name), tensortest.Bytes(t, view, info.Name))
			}
		}
	}
}

// The order is that of the file, the weight standing for its group.
func TestViewOrder(t *testing.T) {
	src := open(t, "nf4_dq", "model.safetensors")
	view, err := View(src, tensor.Invalid)
	require.NoError(t, err)
	var want, got []string
	for info := range src.All() {
		if _, _, _, beside := split(info.Name); !beside {
			want = append(want, info.Name)
		}
	}
	for info := range view.All() {
		got = append(got, info.Name)
	}
	require.Equal(t, want, got)
}

// Every single case of the archive, decoded to three dtypes.
func TestViewGolden(t *testing.T) {
	n := 0
	for name := range golden.Files(t, filepath.Join("..", "testdata")) {
		if strings.Contains(name, "/") || !strings.Contains(name, "_b") {
			continue
		}
		n++
		src := archive(t, name)
		var entries []tensor.Entry
		for info := range src.All() {
			switch {
			case info.Name == "packed":
				entries = append(entries, tensor.Forward(src, info, "w.weight"))
			case strings.Contains(info.Name, "sim_cuda") || strings.Contains(info.Name, "native_cpu"):
			case info.Name == "absmax" || strings.HasPrefix(info.Name, "quant_") || strings.HasPrefix(info.Name, "nested_"):
				entries = append(entries, tensor.Forward(src, info, "w.weight."+info.Name))
			}
		}
		group, err := tensor.NewTable(nil, entries)
		require.NoError(t, err)
		view, err := View(group, tensor.Invalid)
		require.NoError(t, err, name)
		for key, d := range map[string]tensor.DType{"dequant_f32": tensor.F32, "dequant_bf16": tensor.BF16, "dequant_f16": tensor.F16} {
			got := tensortest.Bytes(t, cast(t, view, d), "w.weight")
			if want := tensortest.Bytes(t, src, key); !strings.HasPrefix(name, "naninf") { // nf4 tests that one
				require.True(t, bytes.Equal(want, got), "%s %s", name, key)
			}
		}
	}
	require.Equal(t, 24, n)
}

// Checkpoints that transformers saved: 4-bit types, a list of skipped modules,
// codes stored as BF16.
func TestViewSaved(t *testing.T) {
	for name, d := range map[string]tensor.DType{"nf4_dq": tensor.BF16, "fp4_skip": tensor.F16, "nf4_storage": tensor.F32} {
		view, err := View(open(t, name, "model.safetensors"), tensor.Invalid)
		require.NoError(t, err)
		tensortest.TestSource(t, view)
		want := open(t, name, "dequant.safetensors")
		got := cast(t, view, d)
		require.Equal(t, names(want), names(got))
		for _, n := range names(want) {
			require.Equal(t, tensortest.Bytes(t, want, n), tensortest.Bytes(t, got, n), "%s %s", name, n)
			h, err := nf4.Describe(view, n)
			require.NoError(t, err)
			require.Equal(t, d, h.Source)
		}
	}
}

func TestViewWithoutQuantizedTensors(t *testing.T) {
	src := open(t, "original", "model.safetensors")
	view, err := View(src, tensor.Invalid)
	require.NoError(t, err)
	require.Same(t, src, view)
}

const (
	down  = "model.layers.0.mlp.down_proj.weight"
	query = "model.layers.0.self_attn.q_proj.weight"
)

// Other dtypes hold the same numbers.
func TestViewStorage(t *testing.T) {
	base, err := View(open(t, "nf4_dq", "model.safetensors"), tensor.Invalid)
	require.NoError(t, err)
	want := tensortest.Bytes(t, cast(t, base, tensor.F32), down)

	for _, d := range []tensor.DType{tensor.I8, tensor.F16, tensor.BF16, tensor.F32, tensor.F64} {
		m := tensors(t, open(t, "nf4_dq", "model.safetensors"))
		_, size := d.Block()
		m[down].Info.DType = d
		m[down].Info.Shape = tensor.Shape{int64(len(m[down].Data)) / size, 1}
		view, err := View(source(t, m), tensor.Invalid)
		require.NoError(t, err, "%v", d)
		require.Equal(t, want, tensortest.Bytes(t, cast(t, view, tensor.F32), down), "%v", d)
	}

	// Transposed, as older versions keep it in memory.
	m := tensors(t, open(t, "nf4_dq", "model.safetensors"))
	slices.Reverse(m[down].Info.Shape)
	view, err := View(source(t, m), tensor.Invalid)
	require.NoError(t, err)
	require.Equal(t, want, tensortest.Bytes(t, cast(t, view, tensor.F32), down))

	// Keys of double quantization say nothing where there are no tensors of it.
	m = tensors(t, open(t, "fp4_skip", "model.safetensors"))
	plain, err := View(source(t, m), tensor.Invalid)
	require.NoError(t, err)
	x := m[query+stateInfix+"fp4"]
	x.Data = bytes.Replace(x.Data, []byte("}"), []byte(`, "nested_blocksize": 0, "nested_offset": 0.5}`), 1)
	x.Info.Shape = tensor.Shape{int64(len(x.Data))}
	view, err = View(source(t, m), tensor.Invalid)
	require.NoError(t, err)
	require.Equal(t, tensortest.Bytes(t, plain, query), tensortest.Bytes(t, view, query))

	// A quant_map in the default dtype of torch is for show.
	for _, d := range []tensor.DType{tensor.BF16, tensor.F16} {
		m := tensors(t, open(t, "nf4_dq", "model.safetensors"))
		convert(t, m[down+quantMapSuffix], d)
		view, err := View(source(t, m), tensor.Invalid)
		require.NoError(t, err)
		require.Equal(t, want, tensortest.Bytes(t, cast(t, view, tensor.F32), down))
	}
}

// Rounded scales and maps are used as they are stored.
func TestViewRoundedScales(t *testing.T) {
	for _, suffix := range []string{nestedMapSuffix, nestedAbsmaxSuffix} {
		for _, d := range []tensor.DType{tensor.BF16, tensor.F16} {
			rounded := tensors(t, open(t, "nf4_dq", "model.safetensors"))
			convert(t, rounded[down+suffix], d)
			exact := tensors(t, source(t, rounded))
			convert(t, exact[down+suffix], tensor.F32)
			a, err := View(source(t, rounded), tensor.Invalid)
			require.NoError(t, err)
			tensortest.TestSource(t, a)
			b, err := View(source(t, exact), tensor.Invalid)
			require.NoError(t, err)
			require.Equal(t, tensortest.Bytes(t, b, down), tensortest.Bytes(t, a, down))
		}
	}
	m := tensors(t, open(t, "fp4_skip", "model.safetensors"))
	convert(t, m[query+absmaxSuffix], tensor.BF16)
	a, err := View(source(t, m), tensor.Invalid)
	require.NoError(t, err)
	convert(t, m[query+absmaxSuffix], tensor.F32)
	b, err := View(source(t, m), tensor.Invalid)
	require.NoError(t, err)
	require.Equal(t, tensortest.Bytes(t, b, query), tensortest.Bytes(t, a, query))

	// bitsandbytes up to 0.49 could leave -1 in entry 0 of the nested map.
	m = tensors(t, open(t, "nf4_dq", "model.safetensors"))
	copy(m[down+nestedMapSuffix].Data, []byte{0, 0, 0x80, 0xbf})
	clear(m[down+absmaxSuffix].Data)
	view, err := View(source(t, m), tensor.Invalid)
	require.NoError(t, err)
	h, err := nf4.Describe(view, down)
	require.NoError(t, err)
	nested := tensortest.Floats(t, source(t, m), down+nestedAbsmaxSuffix)[0]
	_, got, err := codecs.ReadAll(view, down)
	require.NoError(t, err)
	var top float32
	for _, v := range got {
		top = max(top, float32(math.Abs(float64(v))))
	}
	require.Equal(t, float32(math.Abs(float64(h.Offset-nested))), top)
}

func TestViewBlockSize128(t *testing.T) {
	src := archive(t, "normal4096_b128_dq.safetensors")
	require.Contains(t, string(tensortest.Bytes(t, src, "quant_state.bitsandbytes__nf4")), `"blocksize": 128`) // decoded by TestViewGolden
}

// The FP4 table that bitsandbytes had on CPUs up to 0.49 is the same but for its
// rounding; codes mean what they mean to its GPUs.
func TestViewOldFP4Table(t *testing.T) {
	src := open(t, "fp4_skip", "model.safetensors")
	want, err := View(src, tensor.Invalid)
	require.NoError(t, err)
	m := tensors(t, src)
	old := []float32{0, 0.0052, 0.6667, 1, 0.3333, 0.5, 0.1667, 0.25, 0, -0.0052, -0.6667, -1, -0.3333, -0.5, -0.1667, -0.25}
	table := m[query+quantMapSuffix]
	require.Len(t, table.Data, 4*len(old))
	for i, v := range old {
		binary.LittleEndian.PutUint32(table.Data[4*i:], math.Float32bits(v))
	}
	got, err := View(source(t, m), tensor.Invalid)
	require.NoError(t, err)
	require.Equal(t, tensortest.Bytes(t, want, query), tensortest.Bytes(t, got, query))
}

// CUDA writes a block of zeros as codes 0, -1 times an absmax of 0: it is zero all
// the same, unless double quantization moves the absmax.
func TestViewZeroBlocksOfCUDA(t *testing.T) {
	m := tensors(t, archive(t, "zeroblock_b64_plain.safetensors"))
	group := make(map[string]*tensortest.Tensor)
	for name, x := range m {
		switch {
		case name == "packed":
			group["w.weight"] = x
		case name == "absmax" || strings.HasPrefix(name, "quant_"):
			group["w.weight."+name] = x
		}
	}
	read := func() []float32 {
		for name, x := range group {
			x.Info.Name = name
		}
		view, err := View(source(t, group), tensor.Invalid)
		require.NoError(t, err)
		_, w, err := codecs.ReadAll(view, "w.weight")
		require.NoError(t, err)
		return w
	}
	want := read()
	zeros := 0
	for i, a := range tensortest.Floats(t, source(t, group), "w.weight"+absmaxSuffix) {
		if a == 0 {
			clear(group["w.weight"].Data[32*i : 32*(i+1)])
			zeros++
		}
	}
	require.Positive(t, zeros)
	got := read()
	for i := range want {
		require.True(t, want[i] == got[i], "element %d: %v, want %v", i, got[i], want[i]) // 0 is -0 here
	}
}

// A shape that a quant_state does not have is taken from the model.
func TestViewShaped(t *testing.T) {
	src := open(t, "nf4_dq", "model.safetensors")
	want, err := View(src, tensor.Invalid)
	require.NoError(t, err)
	info, err := want.Info(down)
	require.NoError(t, err)
	m := tensors(t, src)
	x := m[down+stateInfix+"nf4"]
	x.Data = bytes.Replace(x.Data, fmt.Appendf(nil, "%v", info.Shape), []byte("null"), 1)
	x.Info.Shape = tensor.Shape{int64(len(x.Data))}
	require.Contains(t, string(x.Data), `"shape": null`)
	_, err = View(source(t, m), tensor.Invalid)
	require.ErrorIs(t, err, tensor.ErrUnsupported)
	require.ErrorContains(t, err, down)
	require.ErrorContains(t, err, "no shape")
	shapes := func(shape tensor.Shape) func(string) tensor.Shape {
		return func(name string) tensor.Shape {
			if name == down {
				return shape
			}
			return tensor.Shape{1} // of the others the own one counts
		}
	}
	got, err := ViewShaped(source(t, m), tensor.Invalid, shapes(info.Shape))
	require.NoError(t, err)
	require.Equal(t, tensortest.Bytes(t, want, down), tensortest.Bytes(t, got, down))
	_, err = ViewShaped(source(t, m), tensor.Invalid, shapes(tensor.Shape{7, 7}))
	require.ErrorIs(t, err, tensor.ErrMalformed)
	require.ErrorContains(t, err, "shape [7, 7] needs 25")
}

func TestViewErrors(t *testing.T) {
	const state = down + stateInfix + "nf4"
	setText := func(text string) func(map[string]*tensortest.Tensor) {
		return func(m map[string]*tensortest.Tensor) {
			m[state].Data = []byte(text)
			m[state].Info.Shape = tensor.Shape{int64(len(text))}
		}
	}
	replace := func(old, new string) func(map[string]*tensortest.Tensor) {
		return func(m map[string]*tensortest.Tensor) {
			text := string(m[state].Data)
			require.Contains(t, text, old)
			setText(strings.Replace(text, old, new, 1))(m)
		}
	}
	remove := func(names ...string) func(map[string]*tensortest.Tensor) {
		return func(m map[string]*tensortest.Tensor) {
			for _, n := range names {
				require.Contains(t, m, n)
				delete(m, n)
			}
		}
	}
	shorten := func(name string, n int) func(map[string]*tensortest.Tensor) {
		return func(m map[string]*tensortest.Tensor) {
			m[name].Data = m[name].Data[n:]
			_, size := m[name].Info.DType.Block()
			m[name].Info.Shape = tensor.Shape{int64(len(m[name].Data)) / size}
		}
	}
	retype := func(name string, d tensor.DType) func(map[string]*tensortest.Tensor) {
		return func(m map[string]*tensortest.Tensor) {
			_, size := d.Block()
			m[name].Info.DType = d
			m[name].Info.Shape = tensor.Shape{int64(len(m[name].Data)) / size}
		}
	}
	add := func(name string, d tensor.DType, n int64) func(map[string]*tensortest.Tensor) {
		return func(m map[string]*tensortest.Tensor) {
			info := tensor.Info{Name: name, DType: d, Shape: tensor.Shape{n}}
			m[name] = &tensortest.Tensor{Info: info, Data: make([]byte, info.Size())}
		}
	}
	for _, c := range []struct {
		name   string
		change func(map[string]*tensortest.Tensor)
		want   error
		text   string
	}{
		{"no weight", remove(down), tensor.ErrMalformed, "belongs to a weight \"" + down},
		{"no state", remove(state), tensor.ErrMalformed, state},
		{"no absmax", remove(down + absmaxSuffix), tensor.ErrMalformed, down + absmaxSuffix},
		{"no quant_map", remove(down + quantMapSuffix), tensor.ErrMalformed, down + quantMapSuffix},
		{"no nested_absmax", remove(down + nestedAbsmaxSuffix), tensor.ErrMalformed, down + nestedAbsmaxSuffix},
		{"no nested_quant_map", remove(down + nestedMapSuffix), tensor.ErrMalformed, down + nestedMapSuffix},
		{"nothing nested", remove(down+nestedAbsmaxSuffix, down+nestedMapSuffix), tensor.ErrMalformed, "is U8, want F32"},
		{"only an absmax", func(m map[string]*tensortest.Tensor) {
			clear(m)
			add("x.weight.absmax", tensor.F32, 4)(m)
		}, tensor.ErrMalformed, `"x.weight.absmax"`},
		{"two states", add(down+stateInfix+"fp4", tensor.U8, 4), tensor.ErrMalformed, "both"},
		{"other kind", func(m map[string]*tensortest.Tensor) {
			m[down+stateInfix+"int4"] = m[state]
			m[state].Info.Name = down + stateInfix + "int4"
			delete(m, state)
		}, tensor.ErrUnsupported, "int4"},
		{"empty state", setText(""), tensor.ErrMalformed, state},
		{"garbage state", setText("{nf4}"), tensor.ErrMalformed, state},
		{"list state", setText("[]"), tensor.ErrMalformed, state},
		{"trailing", setText("{} {}"), tensor.ErrMalformed, state},
		{"huge state", setText(strings.Repeat(" ", tensor.MaxLate) + "{}"), tensor.ErrMalformed, "at most 65536"},
		{"state dtype", retype(state, tensor.I8), tensor.ErrMalformed, "I8"},
		{"unknown key", replace("{", `{"compressed": true, `), tensor.ErrMalformed, "compressed"},
		{"key twice", replace("{", `{"quant_type": "nf4", `), tensor.ErrMalformed, "duplicate"},
		{"no quant_type", replace(`"quant_type": "nf4", `, ""), tensor.ErrMalformed, "no quant_type"},
		{"no blocksize", replace(`"blocksize": 64, `, ""), tensor.ErrMalformed, "no blocksize"},
		{"no dtype", replace(`"dtype": "bfloat16", `, ""), tensor.ErrMalformed, "no dtype"},
		{"no offset", replace(`, "nested_offset": `, `, "nested_dtype": "float32", "x": `), tensor.ErrMalformed, ""},
		{"NaN offset", replace(`"nested_offset": `, `"nested_offset": NaN, "x": `), tensor.ErrMalformed, ""},
		{"shape null", replace(`"shape": [32, 44]`, `"shape": null`), tensor.ErrUnsupported, "no shape"},
		{"shape negative", replace(`[32, 44]`, `[-32, -44]`), tensor.ErrMalformed, "negative"},
		{"shape huge", replace(`[32, 44]`, `[4294967296, 4294967296]`), tensor.ErrMalformed, "more elements"},
		{"shape other", replace(`[32, 44]`, `[32, 46]`), tensor.ErrMalformed, "shape [32, 46] needs 736"},
		{"shape of strings", replace(`[32, 44]`, `["32"]`), tensor.ErrMalformed, state},
		{"quant_type", replace(`"nf4"`, `"fp4"`), tensor.ErrMalformed, `quant_type "fp4"`},
		{"dtype", replace(`bfloat16`, `float64`), tensor.ErrUnsupported, "float64"},
		{"block size", replace(`"blocksize": 64`, `"blocksize": 48`), tensor.ErrUnsupported, "block size 48"},
		{"block size 0", replace(`"blocksize": 64`, `"blocksize": 0`), tensor.ErrUnsupported, "block size 0"},
		{"other block size", replace(`"blocksize": 64`, `"blocksize": 128`), tensor.ErrMalformed, "absmax"},
		{"nested block size", replace(`"nested_blocksize": 256`, `"nested_blocksize": 128`), tensor.ErrUnsupported, "nested_blocksize 128"},
		{"nested dtype", replace(`"nested_dtype": "float32"`, `"nested_dtype": "float16"`), tensor.ErrUnsupported, "nested_dtype"},
		{"short weight", shorten(down, 1), tensor.ErrMalformed, "703 bytes"},
		{"weight dtype", retype(down, tensor.I64), tensor.ErrUnsupported, "stored as I64"},
		{"short absmax", shorten(down+absmaxSuffix, 1), tensor.ErrMalformed, "want U8 of [22]"},
		{"absmax dtype", retype(down+absmaxSuffix, tensor.F16), tensor.ErrMalformed, "want U8"},
		{"short nested_absmax", shorten(down+nestedAbsmaxSuffix, 4), tensor.ErrMalformed, "0 elements, want 1"},
		{"short nested map", shorten(down+nestedMapSuffix, 4), tensor.ErrMalformed, "255 elements, want 256"},
		{"nested map dtype", retype(down+nestedMapSuffix, tensor.I32), tensor.ErrMalformed, "want F32, BF16 or F16"},
		{"short quant_map", shorten(down+quantMapSuffix, 4), tensor.ErrMalformed, "15 elements, want 16"},
		{"other quant_map", func(m map[string]*tensortest.Tensor) { clear(m[down+quantMapSuffix].Data) }, tensor.ErrUnsupported, "entry 0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := tensors(t, open(t, "nf4_dq", "model.safetensors"))
			c.change(m)
			_, err := View(source(t, m), tensor.Invalid)
			require.ErrorIs(t, err, c.want)
			require.ErrorContains(t, err, c.text)
			require.NotContains(t, err.Error(), "\n")
			if !strings.Contains(c.text, `"`) {
				require.ErrorContains(t, err, fmt.Sprintf("tensor %q", down))
			}
		})
	}
}

// A disk that fails is not a broken checkpoint.
func TestViewReadErrors(t *testing.T) {
	good := open(t, "nf4_dq", "model.safetensors")
	for info := range good.All() {
		if !strings.HasPrefix(info.Name, down) {
			continue
		}
		for _, raw := range []bool{false, true} {
			src := &failing{good, info.Name, raw}
			view, err := View(src, tensor.Invalid)
			if err == nil {
				_, _, err = codecs.ReadAll(view, down)
			}
			require.ErrorIs(t, err, errDisk, info.Name)
			require.NotErrorIs(t, err, tensor.ErrMalformed)
			require.ErrorContains(t, err, down)
		}
	}
}

var errDisk = errors.New("disk")

// failing cannot read one tensor: not open it (raw), or not read it.
type failing struct {
	tensor.Source
	name string
	raw  bool
}

func (f *failing) Raw(name string) (*io.SectionReader, error) {
	if name != f.name {
		return f.Source.Raw(name)
	}
	if f.raw {
		return nil, errDisk
	}
	info, err := f.Info(name)
	return io.NewSectionReader(f, 0, info.Size()), err
}

func (f *failing) ReadAt([]byte, int64) (int, error) { return 0, errDisk }
