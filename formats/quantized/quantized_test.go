package quantized

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/formats/safetensors"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/tensortest"
	"github.com/seed18967229/nibble/pipeline"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/tensor/floats"
	"github.com/seed18967229/nibble/tensor/scaled"
)

var codecs = tensor.NewCodecs(append(floats.Codecs(), scaled.Codecs()...)...)

// open returns a file of testdata.
func open(t testing.TB, path ...string) tensor.Source {
	t.Helper()
	f, err := safetensors.Open(filepath.Join(append([]string{"testdata"}, path...)...))
	require.NoError(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}

func readFile(t testing.TB, path ...string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(append([]string{"testdata"}, path...)...))
	require.NoError(t, err)
	return text
}

// sum decodes a tensor panel by panel and returns the hash of its values.
func sum(t testing.TB, src tensor.Source, name string) string {
	t.Helper()
	h := sha256.New()
	enc, err := codecs.Encoder(tensor.F32)
	require.NoError(t, err)
	require.NoError(t, pipeline.EachPanel(t.Context(), codecs, src, name, func(w []float32, _ int64) error {
		b := make([]byte, 4*len(w))
		enc.Encode(b, w)
		h.Write(b)
		return nil
	}))
	return hex.EncodeToString(h.Sum(nil))
}

// Checkpoints of all makers decode to the bits that the peers give, and nothing
// but the weights is left.
func TestGoldens(t *testing.T) {
	for name, is := range map[string]struct {
		kind string
		drop []string
	}{
		"fp8_block":       {"FP8 E4M3, blocks of 128x128", nil},
		"fp8_tensor":      {"FP8 E4M3, a scale", []string{"a.activation_scale", "c_activation_scale"}},
		"mistral":         {"FP8 E4M3, a scale", []string{"wq.qscale_act"}},
		"autofp8":         {"FP8 E4M3, a scale", []string{"k_proj.k_scale", "q_proj.input_scale"}},
		"ct_channel":      {"FP8 E4M3, a scale for each row", nil},
		"ct_naive":        {"FP8 E4M3, a scale for each row", nil},
		"ct_tensor":       {"FP8 E4M3, a scale", []string{"a.input_scale"}},
		"ct_block":        {"FP8 E4M3, blocks of 128x128", nil},
		"ct_int":          {"INT8, a scale for each row", nil},
		"ct_group":        {"INT8, blocks of 1x32", nil},
		"ct_mxfp8":        {"FP8 E4M3, blocks of 1x32", nil},
		"modelopt":        {"FP8 E4M3, a scale for each matrix", []string{"k_proj.k_scale", "q_proj.input_scale", "v_proj.v_scale"}},
		"modelopt_blocks": {"FP8 E4M3, blocks of 128x128", nil},
		"deepseek_v4":     {"FP8 E4M3, blocks of 128x128", nil},
	} {
		t.Run(name, func(t *testing.T) {
			var want struct {
				Tensors map[string]struct {
					Shape  tensor.Shape
					SHA256 string
				}
			}
			require.NoError(t, json.Unmarshal(readFile(t, name, "expect.json"), &want))
			require.NotEmpty(t, want.Tensors)
			config := readFile(t, name, "config.json")
			src := open(t, name, "model.safetensors")
			view, drop, err := View(src, config)
			require.NoError(t, err)
			tensortest.TestSource(t, view)
			require.Equal(t, src.Meta(), view.Meta())

			for info := range view.All() {
				w, ok := want.Tensors[info.Name]
				require.True(t, ok, "the peer leaves no %q", info.Name)
				delete(want.Tensors, info.Name)
				require.True(t, w.Shape.Equal(info.Shape), "%s: %v, want %v", info.Name, info.Shape, w.Shape)
				require.Equal(t, w.SHA256, sum(t, view, info.Name), info.Name)
				if h, err := scaled.Describe(view, info.Name); info.DType.Opaque() {
					require.NoError(t, err)
					require.Equal(t, tensor.BF16, h.Source)
				}
			}
			require.Empty(t, want.Tensors)

			var dropped []string
			for _, d := range drop {
				require.NotEmpty(t, d.Reason)
				dropped = append(dropped, d.Name)
			}
			slices.Sort(dropped)
			require.Equal(t, is.drop, dropped)
			kind, err := Describe(src, config)
			require.NoError(t, err)
			require.Equal(t, is.kind, kind)
		})
	}
}

// Where a folder has no configuration, the names of the tensors and their shapes
// say the same.
func TestWithoutConfiguration(t *testing.T) {
	for _, name := range []string{"fp8_block", "fp8_tensor", "mistral", "autofp8", "ct_channel", "ct_tensor", "ct_block", "ct_int", "ct_mxfp8", "modelopt", "deepseek_v4"} {
		src := open(t, name, "model.safetensors")
		with, _, err := View(src, readFile(t, name, "config.json"))
		require.NoError(t, err)
		for _, config := range []string{"", "{}", `{"quantization_config": null}`, `{"quantization": {"qformat_weight": "fp8_e4m3"}}`} {
			without, _, err := View(src, []byte(config))
			require.NoError(t, err, name)
			for info := range with.All() {
				require.Equal(t, sum(t, with, info.Name), sum(t, without, info.Name), "%s: %s", name, info.Name)
			}
		}
	}
}

// bytesOf is the tensors of a test: name to dtype and shape, all bytes 56.
type bytesOf map[string]tensor.Info

func info(d tensor.DType, shape ...int64) tensor.Info { return tensor.Info{DType: d, Shape: shape} }

func (m bytesOf) source(t testing.TB) tensor.Source {
	t.Helper()
	var list []tensortest.Tensor
	for _, name := range slices.Sorted(maps.Keys(m)) {
		i := m[name]
		i.Name = name
		list = append(list, tensortest.Tensor{Info: i, Data: []byte(strings.Repeat("8", int(i.Size())))})
	}
	return tensortest.NewSource(t, nil, list...)
}

// with returns the tensors with others added; those of Invalid are removed.
func (m bytesOf) with(more bytesOf) bytesOf {
	out := maps.Clone(m)
	maps.Copy(out, more)
	maps.DeleteFunc(out, func(_ string, i tensor.Info) bool { return i.DType == tensor.Invalid })
	return out
}

var plain = bytesOf{"model.norm.weight": info(tensor.BF16, 8), "model.embed_tokens.weight": info(tensor.BF16, 16, 8)}

// A plain checkpoint is returned as it is, whatever its configuration says, and so
// is what is nf4/bnb's.
func TestUnchanged(t *testing.T) {
	ids := plain.with(bytesOf{"model.ids": info(tensor.I64, 3), "model.mask": info(tensor.Bool, 3)})
	bnb4 := plain.with(bytesOf{"q.weight": info(tensor.U8, 32, 1), "q.weight.absmax": info(tensor.F32, 1)})
	bnb8 := plain.with(bytesOf{"q.weight": info(tensor.I8, 4, 8), "q.SCB": info(tensor.F32, 4)})
	for config, m := range map[string]bytesOf{
		``: plain, `{}`: plain, `{"quantization_config": null, "dtype": "float16"}`: plain,
		`{"quantization": "none"}`: plain, `{"quantization": false}`: ids,
		`{"quantization_config": {"quant_method": "gptq", "bits": 4}}`:                                     ids,
		`{"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}`:                ids,
		`{"quantization_config": {"quant_method": "nobody knows"}}`:                                        ids,
		`{"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": true}}`:                  bnb4,
		`{"quantization_config": {"load_in_8bit": true}}`:                                                  bnb8,
		`{"text_config": {}, "vocab_size": 1}`:                                                             bnb8,
		`{"text_config": {"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": true}}}`: bnb8,
		`{"model_type": "llama"}`: bnb4,
		// 8-bit floats that no scale belongs to are plain numbers.
		`{"model_type": "x"}`: plain.with(bytesOf{"q.weight": info(tensor.F8_E4M3, 4, 8), "act.scale": info(tensor.F32, 4)}),
	} {
		src := m.source(t)
		view, drop, err := View(src, []byte(config))
		require.NoError(t, err, config)
		require.Same(t, src, view, config)
		require.Empty(t, drop)
	}
	kind, err := Describe(bnb8.source(t), nil)
	require.NoError(t, err)
	require.Equal(t, "LLM.int8", kind)
	kind, err = Describe(bnb4.source(t), nil)
	require.NoError(t, err)
	require.Empty(t, kind)
}

// quant wraps the members of a quantization_config.
func quant(members string) string { return `{"quantization_config": {` + members + `}}` }

// Every method that is not decoded is refused by name, by its configuration and by
// its tensors alone.
func TestRefused(t *testing.T) {
	gptq := bytesOf{"q.qweight": info(tensor.I32, 8, 32), "q.qzeros": info(tensor.I32, 2, 4), "q.scales": info(tensor.F16, 2, 32), "q.g_idx": info(tensor.I32, 64)}
	awq := bytesOf{"q.qweight": info(tensor.I32, 64, 4), "q.qzeros": info(tensor.I32, 2, 4), "q.scales": info(tensor.F16, 2, 32)}
	odd := bytesOf{"q.weight": info(tensor.U8, 4, 8)}
	f8 := bytesOf{"q.weight": info(tensor.F8_E4M3, 4, 8), "q.weight_scale": info(tensor.F32, 4, 1)}
	group := func(format, weights string) string {
		return quant(`"quant_method": "compressed-tensors", "format": "` + format + `", "config_groups": {"group_0": {"weights": ` + weights + `}}`)
	}
	for name, c := range map[string]struct {
		config string
		m      bytesOf
		label  string
		hint   string
	}{
		"gptq":             {quant(`"quant_method": "gptq", "bits": 4, "group_size": 128`), gptq, "GPTQ 4-bit, group 128", "convert_hf_to_gguf"},
		"gptq alone":       {``, gptq, "GPTQ 4-bit, group 32", "convert_hf_to_gguf"},
		"gptq, no g_idx":   {``, gptq.with(bytesOf{"q.g_idx": {}}), "GPTQ 4-bit, group 32", "convert_hf_to_gguf"},
		"gptq 3-bit":       {``, bytesOf{"q.qweight": info(tensor.I32, 6, 32), "q.qzeros": info(tensor.I32, 1, 3), "q.scales": info(tensor.F16, 1, 32), "q.g_idx": info(tensor.I32, 64)}, "GPTQ 3-bit, group 64", ""},
		"gptq, odd shapes": {``, bytesOf{"q.qweight": info(tensor.I32, 8), "q.g_idx": info(tensor.I32, 64)}, "GPTQ", ""},
		"awq":              {quant(`"quant_method": "awq", "w_bit": 4, "q_group_size": 64, "version": "gemm"`), awq, "AWQ 4-bit, group 64", "16-bit"},
		"awq alone":        {`{"model_type": "llama"}`, awq, "AWQ 4-bit, group 32", "16-bit"},
		"auto-round":       {quant(`"quant_method": "auto-round", "bits": 4, "group_size": 128`), gptq, "AutoRound 4-bit, group 128", ""},
		"auto-round old":   {quant(`"quant_method": "intel/auto-round", "bits": 4, "group_size": 128`), gptq, "AutoRound 4-bit, group 128", ""},
		"pack-quantized": {group("pack-quantized", `{"num_bits": 4, "group_size": 128, "type": "int"}`),
			bytesOf{"q.weight_packed": info(tensor.I32, 4, 2), "q.weight_shape": info(tensor.I64, 2), "q.weight_scale": info(tensor.BF16, 4, 1)},
			"packed integers (compressed-tensors) 4-bit, group 128", "convert_hf_to_gguf"},
		"pack-quantized alone": {``,
			bytesOf{"q.weight_packed": info(tensor.I32, 4, 2), "q.weight_shape": info(tensor.I64, 2), "q.weight_scale": info(tensor.BF16, 4, 1)},
			"packed integers (compressed-tensors)", ""},
		"nvfp4-pack-quantized": {group("nvfp4-pack-quantized", `{"num_bits": 4, "group_size": 16, "type": "float"}`), odd, "NVFP4 4-bit, group 16", "convert_hf_to_gguf"},
		"nvfp4 alone": {``, bytesOf{"q.weight_packed": info(tensor.U8, 4, 2), "q.weight_scale": info(tensor.F8_E4M3, 4, 1), "q.weight_global_scale": info(tensor.F32, 1)},
			"NVFP4", ""},
		"nvfp4 in a mixture": {quant(`"quant_method": "compressed-tensors", "format": "mixed-precision", "config_groups": {
			"a": {"format": "float-quantized"}, "b": {"format": "nvfp4-pack-quantized"}}`), odd, "NVFP4", ""},
		"mxfp4-pack-quantized": {group("mxfp4-pack-quantized", `{"num_bits": 4, "group_size": 32}`), odd, "MXFP4 4-bit, group 32", "dequantize"},
		"mxfp4 alone":          {``, bytesOf{"q.weight_packed": info(tensor.U8, 4, 2), "q.weight_scale": info(tensor.U8, 4, 1)}, "MXFP4", ""},
		"mxfp6":                {group("mxfp6-pack-quantized", `{"num_bits": 6}`), odd, "MXFP6 6-bit", ""},
		"sparse": {quant(`"quant_method": "compressed-tensors", "format": "float-quantized", "sparsity_config": {"format": "sparse-24-bitmask"}`), odd,
			"sparse weights (compressed-tensors)", ""},
		"rotated": {quant(`"quant_method": "compressed-tensors", "format": "float-quantized", "transform_config": {"config_groups": {"u": {}}}`), f8,
			"rotated weights (compressed-tensors)", ""},
		"zero points": {group("int-quantized", `{"num_bits": 8, "symmetric": false}`),
			bytesOf{"q.weight": info(tensor.I8, 4, 8), "q.weight_scale": info(tensor.F32, 4, 1), "q.weight_zero_point": info(tensor.I8, 4, 1)},
			"integers with zero points (compressed-tensors) 8-bit", ""},
		"unknown format": {group("new-quantized", `{"num_bits": 8}`), odd, `"compressed-tensors" ("new-quantized") 8-bit`, ""},
		"modelopt nvfp4": {quant(`"quant_method": "modelopt", "quant_algo": "NVFP4"`), odd, "NVFP4", "convert_hf_to_gguf"},
		"modelopt nvfp4 alone": {``, bytesOf{"q.weight": info(tensor.U8, 4, 4), "q.weight_scale": info(tensor.F8_E4M3, 4, 1), "q.weight_scale_2": info(tensor.F32)},
			"NVFP4", ""},
		"modelopt mixture": {quant(`"quant_algo": "MIXED_PRECISION", "producer": {"name": "modelopt"}, "quantized_layers": {"a": {"quant_algo": "FP8"}, "b": {"quant_algo": "NVFP4"}}`), odd, "NVFP4", ""},
		"modelopt mixture that hides it": {quant(`"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION"`),
			f8.with(bytesOf{"z.weight": info(tensor.U8, 4, 4), "z.weight_scale": info(tensor.F8_E4M3, 4, 1), "z.weight_scale_2": info(tensor.F32)}), "NVFP4", ""},
		"modelopt int4":    {quant(`"quant_method": "modelopt", "quant_algo": "W4A16_AWQ"`), odd, `"modelopt" ("W4A16_AWQ")`, ""},
		"smoothquant":      {quant(`"quant_method": "modelopt", "quant_algo": "FP8"`), f8.with(bytesOf{"q.pre_quant_scale": info(tensor.F32, 8)}), "integers with smoothed inputs (ModelOpt)", ""},
		"mxfp4 (gpt-oss)":  {quant(`"quant_method": "mxfp4"`), bytesOf{"gate_up_proj_blocks": info(tensor.U8, 2, 4, 1, 16), "gate_up_proj_scales": info(tensor.U8, 2, 4, 1)}, "MXFP4", "convert_hf_to_gguf"},
		"gpt-oss alone":    {``, bytesOf{"gate_up_proj_blocks": info(tensor.U8, 2, 4, 1, 16), "gate_up_proj_scales": info(tensor.U8, 2, 4, 1)}, "MXFP4", ""},
		"deepseek v4 fp4":  {quant(`"quant_method": "fp8", "expert_dtype": "fp4"`), bytesOf{"e.weight": info(tensor.I8, 4, 16), "e.scale": info(tensor.F8_E8M0, 4, 1)}, "4-bit floats packed in bytes (DeepSeek V4)", ""},
		"nvfp4":            {quant(`"quant_method": "nvfp4"`), odd, "NVFP4", ""},
		"aqlm":             {quant(`"quant_method": "aqlm", "nbits_per_codebook": 16, "in_group_size": 8`), odd, "AQLM 16-bit, group 8", ""},
		"aqlm alone":       {``, bytesOf{"q.codebooks": info(tensor.F16, 1, 4, 1, 8), "q.codes": info(tensor.I16, 4, 1, 1), "q.scales": info(tensor.F16, 4, 1, 1, 1)}, "AQLM", ""},
		"hqq":              {quant(`"quant_method": "hqq", "quant_config": {"weight_quant_params": {"nbits": 4, "group_size": 64}}`), bytesOf{"q.W_q": info(tensor.U8, 4, 8)}, "HQQ 4-bit, group 64", ""},
		"hqq alone":        {``, bytesOf{"q.W_q": info(tensor.BF16, 4, 8)}, "HQQ", ""},
		"quanto":           {quant(`"quant_method": "quanto", "weights": "int4"`), odd, "Quanto int4", ""},
		"quanto alone":     {``, bytesOf{"q.weight._data": info(tensor.I8, 4, 8), "q.weight._scale": info(tensor.BF16, 4, 1)}, "Quanto", ""},
		"eetq":             {quant(`"quant_method": "eetq", "weights": "int8"`), odd, "EETQ int8", ""},
		"eetq alone":       {``, bytesOf{"q.weight": info(tensor.I8, 8, 4), "q.weight_scales": info(tensor.F16, 4)}, "EETQ", ""},
		"bitnet":           {quant(`"quant_method": "bitnet"`), bytesOf{"q.weight": info(tensor.U8, 1, 8), "q.weight_scale": info(tensor.BF16, 1)}, "BitNet", "convert_hf_to_gguf"},
		"bitnet alone":     {``, bytesOf{"q.weight": info(tensor.U8, 1, 8), "q.weight_scale": info(tensor.BF16, 1)}, "BitNet", ""},
		"fbgemm_fp8":       {quant(`"quant_method": "fbgemm_fp8"`), f8, "FBGEMM FP8", ""},
		"fbgemm_fp8 alone": {``, f8.with(bytesOf{"q.input_scale_ub": info(tensor.F32, 1)}), "FBGEMM FP8", ""},
		"vptq":             {quant(`"quant_method": "vptq"`), odd, "VPTQ", ""},
		"vptq alone":       {``, bytesOf{"q.centroids.weight": info(tensor.F16, 1, 8), "q.indices": info(tensor.I32, 4)}, "VPTQ", ""},
		"spqr":             {quant(`"quant_method": "spqr", "bits": 3`), odd, "SpQR 3-bit", ""},
		"spqr alone":       {``, bytesOf{"q.dense_weights": info(tensor.I64, 8), "q.row_offsets": info(tensor.I32, 4)}, "SpQR", ""},
		"higgs":            {quant(`"quant_method": "higgs", "bits": 4, "group_size": 256`), odd, "HIGGS 4-bit, group 256", ""},
		"higgs alone":      {``, bytesOf{"q.weight": info(tensor.I16, 4, 8), "q.tables2": info(tensor.F16, 8), "q.scales": info(tensor.F16, 8)}, "HIGGS", ""},
		"torchao":          {quant(`"quant_method": "torchao", "quant_type": {"default": {}}`), odd, "torchao", ""},
		"torchao alone":    {``, bytesOf{"q._weight_qdata": info(tensor.I8, 4, 8), "q._weight_scale": info(tensor.BF16, 4)}, "torchao", ""},
		"fp_quant":         {quant(`"quant_method": "fp_quant"`), bytesOf{"q.dqweight": info(tensor.BF16, 4, 8)}, "FP-Quant", ""},
		"quark":            {quant(`"quant_method": "quark"`), f8, "Quark", ""},
		"fouroversix":      {quant(`"quant_method": "fouroversix"`), odd, "Four Over Six", ""},
		"sinq":             {quant(`"quant_method": "sinq", "nbits": 4, "group_size": 64`), odd, "SINQ 4-bit, group 64", ""},
		"gemma":            {quant(`"quant_method": "gemma", "num_bits": 4`), odd, "Gemma's own quantization 4-bit", ""},
		"metal":            {quant(`"quant_method": "metal", "bits": 4, "group_size": 64`), bytesOf{"q.weight": info(tensor.U32, 4, 1), "q.scales": info(tensor.BF16, 4, 1), "q.qbiases": info(tensor.BF16, 4, 1)}, "Metal 4-bit, group 64", ""},
		"mlx":              {`{"quantization": {"group_size": 64, "bits": 4}}`, bytesOf{"q.weight": info(tensor.U32, 4, 1), "q.scales": info(tensor.BF16, 4, 1), "q.biases": info(tensor.BF16, 4, 1)}, "MLX 4-bit, group 64", "mlx_lm"},
		"mlx alone":        {``, bytesOf{"q.weight": info(tensor.U32, 4, 1), "q.scales": info(tensor.BF16, 4, 1), "q.biases": info(tensor.BF16, 4, 1)}, "MLX", ""},
		"exl2":             {``, bytesOf{"q.q_weight": info(tensor.I32, 4, 8), "q.q_scale": info(tensor.I32, 4)}, "EXL2", ""},
		"exl3":             {``, bytesOf{"q.trellis": info(tensor.I16, 4, 8, 16)}, "EXL3", ""},
		"unknown":          {quant(`"quant_method": "nobody knows", "bits": 2`), odd, `"nobody knows" 2-bit`, "16-bit"},
		"nested":           {`{"text_config": ` + quant(`"quant_method": "awq", "bits": 4`) + `}`, awq, "AWQ 4-bit", ""},
		"older key":        {`{"compression_config": {"quant_method": "compressed_tensors", "format": "pack-quantized"}}`, odd, "packed integers (compressed-tensors)", ""},
	} {
		t.Run(name, func(t *testing.T) {
			src := plain.with(c.m).source(t)
			view, _, err := View(src, []byte(c.config))
			require.Nil(t, view)
			require.ErrorIs(t, err, tensor.ErrUnsupported)
			require.ErrorContains(t, err, "weights stored by "+c.label+", such as \"")
			require.NotEmpty(t, hint.Of(err))
			require.Contains(t, hint.Of(err), c.hint)
			label, again := Describe(src, []byte(c.config))
			require.Equal(t, c.label, label)
			require.Equal(t, err.Error(), again.Error())
		})
	}
}

// Every row of the table can be met.
func TestMethods(t *testing.T) {
	for i, m := range methods {
		require.NotEmpty(t, m.title)
		require.True(t, len(m.names)+len(m.marks) > 0, "%s: nothing tells it", m.title)
		require.Equal(t, m.fate == refused, m.advice != "", "%s: advice is for what is refused", m.title)
		for _, name := range m.names {
			for _, format := range append(slices.Clone(m.formats), "") {
				c := config{method: name}
				if format != "" {
					c.formats = []string{format}
				} else if m.formats != nil {
					continue
				}
				require.Same(t, &methods[i], c.row(), "%s %s", name, format)
			}
		}
	}
}

func TestPublishedFiles(t *testing.T) {
	for name, label := range map[string]string{"gptq": "GPTQ 4-bit, group 32", "awq": "AWQ 4-bit, group 32"} {
		got, err := Describe(open(t, "anamnesis", name+".safetensors"), nil)
		require.ErrorIs(t, err, tensor.ErrUnsupported)
		require.Equal(t, label, got)
	}
	// [8, 8] in blocks of 4x4: nothing in the file says so.
	src := open(t, "anamnesis", "fp8.safetensors")
	_, _, err := View(src, nil)
	require.ErrorIs(t, err, tensor.ErrMalformed)
	view, _, err := View(src, []byte(quant(`"quant_method": "fp8", "weight_block_size": [4, 4]`)))
	require.NoError(t, err)
	i, err := view.Info("model.layers.0.weight")
	require.NoError(t, err)
	require.Equal(t, tensor.FP8, i.DType)
	kind, err := Describe(src, []byte(quant(`"quant_method": "fp8", "weight_block_size": [4, 4]`)))
	require.NoError(t, err)
	require.Equal(t, "FP8 E4M3, blocks of 4x4", kind)
}

const scaleInv, weightScale = "q.weight_scale_inv", "q.weight_scale"

func TestErrors(t *testing.T) {
	fp8 := quant(`"quant_method": "fp8", "weight_block_size": [128, 128]`)
	w := bytesOf{"q.weight": info(tensor.F8_E4M3, 200, 300)}
	for name, c := range map[string]struct {
		config string
		m      bytesOf
		want   error
		text   []string
	}{
		"not JSON":             {`{`, w, tensor.ErrMalformed, nil},
		"a list":               {`[]`, w, tensor.ErrMalformed, nil},
		"a key twice":          {`{"a": 1, "a": 2}`, w, tensor.ErrMalformed, []string{"duplicate"}},
		"no object":            {`{"quantization_config": "fp8"}`, w, tensor.ErrMalformed, []string{"quantization_config"}},
		"nested no object":     {`{"text_config": {"quantization_config": 3}}`, w, tensor.ErrMalformed, []string{"text_config.quantization_config"}},
		"method":               {quant(`"quant_method": ["fp8"]`), w, tensor.ErrMalformed, []string{"quant_method is a list"}},
		"block of three":       {quant(`"quant_method": "fp8", "weight_block_size": [1, 2, 3]`), w, tensor.ErrMalformed, []string{"weight_block_size is a list of 3"}},
		"block of zero":        {quant(`"quant_method": "fp8", "weight_block_size": [0, 128]`), w, tensor.ErrMalformed, []string{"weight_block_size is a list with 0"}},
		"block of a fraction":  {quant(`"quant_method": "fp8", "weight_block_size": [1.5, 128]`), w, tensor.ErrMalformed, []string{"1.5"}},
		"block huge":           {quant(`"quant_method": "fp8", "weight_block_size": [1e300, 128]`), w, tensor.ErrMalformed, []string{"weight_block_size"}},
		"block of a name":      {quant(`"quant_method": "fp8", "weight_block_size": "big"`), w, tensor.ErrMalformed, []string{`"big"`}},
		"block of a number":    {quant(`"quant_method": "fp8", "weight_block_size": 128`), w, tensor.ErrMalformed, []string{"128"}},
		"structure":            {quant(`"quant_method": "compressed-tensors", "config_groups": {"g": {"weights": {"block_structure": "128xy"}}}`), w, tensor.ErrMalformed, []string{"block_structure"}},
		"no scale":             {fp8, w, tensor.ErrMalformed, []string{`"q.weight"`, `"q.weight_scale_inv" is not there`}},
		"no scale, integers":   {quant(`"quant_method": "compressed-tensors", "format": "int-quantized"`), bytesOf{"q.weight": info(tensor.I8, 4, 4)}, tensor.ErrMalformed, []string{`"q.weight_scale" is not there`}},
		"one without a scale":  {``, w.with(bytesOf{scaleInv: info(tensor.F32, 2, 3), "v.weight": info(tensor.F8_E4M3, 2, 2)}), tensor.ErrMalformed, []string{`tensor "v.weight"`}},
		"no weight":            {fp8, bytesOf{scaleInv: info(tensor.F32, 2, 3)}, tensor.ErrMalformed, []string{`tensor "q.weight_scale_inv"`, `weight "q.weight", which is not there`}},
		"two scales":           {fp8, w.with(bytesOf{scaleInv: info(tensor.F32, 2, 3), weightScale: info(tensor.F32, 2, 3)}), tensor.ErrMalformed, []string{`"q.weight"`, `both "q.weight_scale" and "q.weight_scale_inv"`}},
		"a row too few":        {fp8, w.with(bytesOf{scaleInv: info(tensor.F32, 1, 3)}), tensor.ErrMalformed, []string{`tensor "q.weight"`, `scale "q.weight_scale_inv" has shape [1, 3]`, "[200, 300]", "128x128"}},
		"a column too many":    {fp8, w.with(bytesOf{scaleInv: info(tensor.F32, 2, 4)}), tensor.ErrMalformed, []string{"[2, 4]"}},
		"of another block":     {quant(`"quant_method": "fp8", "weight_block_size": [64, 64]`), w.with(bytesOf{scaleInv: info(tensor.F32, 2, 3)}), tensor.ErrMalformed, []string{"64x64"}},
		"transposed":           {fp8, w.with(bytesOf{scaleInv: info(tensor.F32, 3, 2)}), tensor.ErrMalformed, []string{"[3, 2]"}},
		"a scale a column":     {fp8, w.with(bytesOf{scaleInv: info(tensor.F32, 1, 300)}), tensor.ErrMalformed, []string{"[1, 300]"}},
		"more dimensions":      {fp8, w.with(bytesOf{scaleInv: info(tensor.F32, 1, 2, 3)}), tensor.ErrMalformed, []string{"[1, 2, 3]"}},
		"no scales":            {fp8, w.with(bytesOf{scaleInv: info(tensor.F32, 0, 3)}), tensor.ErrMalformed, []string{"[0, 3]"}},
		"other experts":        {fp8, bytesOf{"e": info(tensor.F8_E4M3, 3, 4, 5), "e_scale_inv": info(tensor.F32, 2, 1, 1)}, tensor.ErrMalformed, []string{`tensor "e"`, `"e_scale_inv"`}},
		"one grid for experts": {fp8, bytesOf{"e": info(tensor.F8_E4M3, 3, 4, 500), "e_scale_inv": info(tensor.F32, 1, 1, 4)}, tensor.ErrMalformed, []string{`"e_scale_inv"`}},
		"a vector":             {fp8, bytesOf{"e": info(tensor.F8_E4M3, 300), "e_scale_inv": info(tensor.F32, 3)}, tensor.ErrMalformed, []string{`"e_scale_inv"`}},
		"plain weight":         {fp8, bytesOf{"q.weight": info(tensor.BF16, 4, 4), weightScale: info(tensor.F32)}, tensor.ErrUnsupported, []string{"weights of BF16 with a scale \"q.weight_scale\""}},
		"packed weight":        {fp8, bytesOf{"q.weight": info(tensor.U8, 4, 4), weightScale: info(tensor.F32)}, tensor.ErrUnsupported, []string{"weights of U8"}},
		"scale of integers":    {fp8, w.with(bytesOf{scaleInv: info(tensor.I32, 2, 3)}), tensor.ErrUnsupported, []string{"of I32"}},
		"exponents for int":    {``, bytesOf{"q.weight": info(tensor.I8, 4, 32), weightScale: info(tensor.U8, 4, 1)}, tensor.ErrUnsupported, []string{"of U8 for weights of I8"}},
		"two sizes fit": {quant(`"quant_method": "compressed-tensors", "config_groups": {
			"a": {"weights": {"block_structure": [100, 128]}}, "b": {"weights": {"block_structure": "128x128"}}}`),
			bytesOf{"q.weight": info(tensor.F8_E4M3, 300, 8), weightScale: info(tensor.F32, 3, 1)}, tensor.ErrUnsupported, []string{"100x128 and 128x128 fit"}},
		"LLM.int8 without SCB": {quant(`"load_in_8bit": true`), bytesOf{"q.weight": info(tensor.I8, 4, 4), "v.weight": info(tensor.I8, 4, 4), "v.SCB": info(tensor.F32, 4)}, tensor.ErrMalformed, []string{`"q.weight"`, `"q.SCB"`}},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := View(plain.with(c.m).source(t), []byte(c.config))
			require.ErrorIs(t, err, c.want)
			for _, text := range c.text {
				require.ErrorContains(t, err, text)
			}
			require.NotContains(t, err.Error(), "\n")
		})
	}
}

// Two sizes of blocks may fit where they come to the same.
func TestBlocksThatAreTheSame(t *testing.T) {
	m := bytesOf{"q.weight": info(tensor.F8_E4M3, 60, 8), weightScale: info(tensor.F32, 1, 1)}
	_, _, err := View(m.source(t), []byte(quant(`"quant_method": "compressed-tensors", "config_groups": {
		"a": {"weights": {"block_structure": [64, 64]}}, "b": {"weights": {"block_structure": [128, 128]}}}`)))
	require.NoError(t, err)
}

// What is not a scale though it is called one is passed on, as is a bias, and what
// the trained dtype was is config.json's to say.
func TestPassedOn(t *testing.T) {
	m := plain.with(bytesOf{
		"q.weight": info(tensor.F8_E5M2, 4, 8), scaleInv: info(tensor.F32), "q.bias": info(tensor.F16, 4),
		"act.scale": info(tensor.F32, 4), "mlp.gate_scale": info(tensor.F32), "stat": info(tensor.F8_E4M3, 3),
	})
	for _, c := range []struct {
		config string
		dtype  tensor.DType
	}{
		{`{"dtype": "float16"}`, tensor.F16}, {`{"torch_dtype": "torch.float32"}`, tensor.F32}, {`{"torch_dtype": "bfloat16"}`, tensor.BF16},
		{`{"text_config": {"dtype": "float16"}}`, tensor.F16}, {`{"dtype": "float64"}`, tensor.BF16}, {`{"dtype": 3}`, tensor.BF16}, {``, tensor.BF16},
	} {
		src := m.source(t)
		view, _, err := View(src, []byte(c.config))
		require.NoError(t, err)
		h, err := scaled.Describe(view, "q.weight")
		require.NoError(t, err)
		require.Equal(t, c.dtype, h.Source, c.config)
		for _, name := range []string{"q.bias", "act.scale", "mlp.gate_scale", "stat"} {
			require.Equal(t, tensortest.Bytes(t, src, name), tensortest.Bytes(t, view, name))
		}
		require.False(t, tensor.Has(view, scaleInv))
	}
	require.Equal(t, tensor.Invalid, DType([]byte(`[]`)))
	require.Equal(t, tensor.Invalid, DType(nil))
}

func TestMembers(t *testing.T) {
	for text, want := range map[string][]string{
		``: nil, `[`: nil, `{"vocab_size": 3}`: nil,
		`{"quantization_config": null}`:                                                              {"quantization_config"},
		`{"a": 1, "quantization": {"bits": 4}, "quantization_config": {"bits": 4}}`:                  {"quantization_config", "quantization"},
		`{"quantization": "none", "compression_config": {}}`:                                         {"compression_config"},
		`{"text_config": {"quantization_config": {}}, "vision_config": {"quantization_config": {}}}`: {"text_config.quantization_config"},
	} {
		require.Equal(t, want, Members([]byte(text)), text)
	}
}

// Tensors without elements have no scales, or some that do not matter.
func TestNoElements(t *testing.T) {
	for _, c := range []struct{ w, s tensor.Shape }{
		{tensor.Shape{0, 7}, tensor.Shape{0, 1}}, {tensor.Shape{7, 0}, tensor.Shape{7, 1}}, {tensor.Shape{0, 0}, tensor.Shape{}},
		{tensor.Shape{0, 200}, tensor.Shape{0, 2}}, {tensor.Shape{2, 0, 5}, tensor.Shape{2, 0, 1}},
	} {
		m := bytesOf{"q.weight": info(tensor.F8_E4M3, c.w...), scaleInv: info(tensor.F32, c.s...)}
		view, _, err := View(m.source(t), []byte(quant(`"quant_method": "fp8", "weight_block_size": [128, 128]`)))
		require.NoError(t, err, "%v %v", c.w, c.s)
		i, values, err := codecs.ReadAll(view, "q.weight")
		require.NoError(t, err)
		require.True(t, c.w.Equal(i.Shape))
		require.Empty(t, values)
	}
}

// A NaN among the scales is in the values of its block and in no others.
func TestNaNScales(t *testing.T) {
	shape, block := tensor.Shape{130, 129}, int64(128)
	weight := tensortest.Tensor{Info: tensor.Info{Name: "q.weight", DType: tensor.F8_E4M3, Shape: shape}, Data: []byte(strings.Repeat("8", int(shape.Elems())))}
	nan := float32(math.NaN())
	src := tensortest.NewSource(t, nil, weight, tensortest.Float32(scaleInv, tensor.Shape{2, 2}, []float32{1, nan, 2, 3}))
	view, _, err := View(src, nil)
	require.NoError(t, err)
	_, values, err := codecs.ReadAll(view, "q.weight")
	require.NoError(t, err)
	for i, v := range values {
		row, col := int64(i)/shape.Cols(), int64(i)%shape.Cols()
		require.Equal(t, row < block && col >= block, v != v, "row %d, column %d", row, col)
	}
}

// Whatever the sizes of weights and blocks, every element has the scale of the
// block that it lies in.
func TestAnyBlocks(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	for range 300 {
		experts, rows, cols := 1+rng.Int64N(3), 1+rng.Int64N(40), 1+rng.Int64N(40)
		down, across := 1+rng.Int64N(20), 1+rng.Int64N(20)
		shape, grid := tensor.Shape{rows, cols}, tensor.Shape{(rows + down - 1) / down, (cols + across - 1) / across}
		if rng.IntN(3) == 0 {
			shape, grid = append(tensor.Shape{experts}, shape...), append(tensor.Shape{experts}, grid...)
		}
		data := make([]byte, shape.Elems())
		for i := range data {
			data[i] = byte(rng.IntN(0x7f)) // of E4M3, no NaN
		}
		scales := make([]float32, grid.Elems())
		for i := range scales {
			scales[i] = float32(rng.NormFloat64())
		}
		i := tensor.Info{Name: "q.weight", DType: tensor.F8_E4M3, Shape: shape}
		src := tensortest.NewSource(t, nil, tensortest.Tensor{Info: i, Data: data}, tensortest.Float32(scaleInv, grid, scales))
		view, _, err := View(src, []byte(quant(fmt.Sprintf(`"quant_method": "fp8", "weight_block_size": [%d, %d]`, down, across))))
		require.NoError(t, err, "%v in %dx%d", shape, down, across)
		_, got, err := codecs.ReadAll(view, "q.weight")
		require.NoError(t, err)
		_, codes, err := codecs.ReadAll(src, "q.weight")
		require.NoError(t, err)
		for j, v := range got {
			n := int64(j)
			col, row, expert := n%cols, n/cols%rows, n/cols/rows
			s := scales[(expert*grid[len(grid)-2]+row/down)*grid.Cols()+col/across]
			require.Equal(t, codes[j]*s, v, "%v in %dx%d, element %d", shape, down, across, j)
		}
	}
}
