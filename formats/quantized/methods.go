package quantized

import (
	"fmt"
	"slices"
	"strings"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/tensor"
)

// What becomes of weights that are stored by a method.
const (
	refused = iota
	decoded
	bnb // is nf4/bnb's
)

// method is a way of quantizing weights, or of storing what was quantized.
type method struct {
	// title is what people call it.
	title string

	// names are its quant_method, formats those of its formats that this row is
	// about: none for all that no row before it is.
	names, formats []string

	fate int

	// marks are names of tensors that tell it where config.json says nothing.
	marks []mark

	// packed says how to find the bits and the size of groups in the shapes of the
	// tensors, if it can be told.
	packed func(at func(suffix string) tensor.Shape) (bits, group int64)

	// advice is what to do instead.
	advice string
}

// mark is a set of suffixes: a tensor whose name ends in the first, for which there
// are others that end in the rest instead.
type mark []struct {
	suffix string
	dtype  tensor.DType // Invalid for any
}

// suffixes returns the mark of names alone.
func suffixes(list ...string) mark {
	m := make(mark, len(list))
	for i, s := range list {
		m[i].suffix = s
	}
	return m
}

const (
	original  = "start from the 16-bit model that it was made from"
	converter = "llama.cpp's convert_hf_to_gguf.py decodes it; or " + original
	saved     = "decode it with transformers (quantization_config with dequantize=True) and save_pretrained; or " + original
)

// methods is every method that is known, one a row. Of rows that fit, the first
// counts. The names of methods are those of transformers 5.23
// (utils/quantization_config.py), vLLM and MLX; those of tensors are what these
// and the programs that quantize write.
var methods = []method{
	{title: "FP8", names: []string{"fp8", "mxfp8"}, fate: decoded},
	{title: "4-bit floats packed in bytes (DeepSeek V4)", advice: original,
		marks: []mark{{{".weight", tensor.I8}, {".scale", tensor.F8_E8M0}}, {{".weight", tensor.I8}, {".weight_scale_inv", tensor.Invalid}}}},

	{title: "NVFP4", names: []string{"compressed-tensors"}, formats: []string{"nvfp4-pack-quantized"}, advice: converter,
		marks: []mark{suffixes(".weight_packed", ".weight_global_scale")}},
	{title: "NVFP4", names: []string{"modelopt", "modelopt_fp4"}, formats: []string{"NVFP4", "W4A16_NVFP4", "NVFP4_AWQ", "W4A8_NVFP4_FP8"}, advice: converter,
		marks: []mark{suffixes(".weight_scale_2"), suffixes("_weight_scale_2")}},
	{title: "packed integers (compressed-tensors)", names: []string{"compressed-tensors"}, formats: []string{"pack-quantized", "marlin-24"}, advice: converter,
		marks: []mark{suffixes(".weight_packed", ".weight_shape")}},
	{title: "MXFP4", names: []string{"compressed-tensors"}, formats: []string{"mxfp4-pack-quantized"}, advice: saved,
		marks: []mark{suffixes(".weight_packed", ".weight_scale")}},
	{title: "MXFP6", names: []string{"compressed-tensors"}, formats: []string{"mxfp6-pack-quantized"}, advice: saved},
	{title: "sparse weights (compressed-tensors)", names: []string{"compressed-tensors"}, formats: []string{"sparse-24-bitmask", "sparse-bitmask"}, advice: saved,
		marks: []mark{suffixes(".compressed", ".bitmask")}},
	{title: "rotated weights (compressed-tensors)", names: []string{"compressed-tensors"}, formats: []string{"transform_config"}, advice: original},
	{title: "integers with zero points (compressed-tensors)", advice: saved,
		marks: []mark{suffixes(".weight_zero_point")}},
	{title: "compressed-tensors", names: []string{"compressed-tensors"}, fate: decoded,
		formats: []string{"dense", "float-quantized", "naive-quantized", "int-quantized", "mxfp8-quantized"}},
	{title: "integers with smoothed inputs (ModelOpt)", advice: original,
		marks: []mark{suffixes(".pre_quant_scale")}},
	{title: "FP8 (ModelOpt)", names: []string{"modelopt", "modelopt_mxfp8"}, fate: decoded,
		formats: []string{"FP8", "FP8_PER_CHANNEL_PER_TOKEN", "FP8_PB_WO", "fp8_pb_wo", "MXFP8"}},

	{title: "LLM.int8", names: []string{"bitsandbytes"}, formats: []string{"8-bit"}, fate: bnb,
		marks: []mark{suffixes(".SCB", ".weight")}},
	{title: "bitsandbytes", names: []string{"bitsandbytes"}, fate: bnb,
		marks: []mark{suffixes(".weight.absmax", ".weight")}},

	{title: "GPTQ", names: []string{"gptq", "gptq_marlin", "gptqmodel"}, advice: converter, packed: packedGPTQ,
		marks: []mark{suffixes(".qweight", ".g_idx")}},
	{title: "AWQ", names: []string{"awq", "awq_marlin"}, advice: original, packed: packedAWQ,
		marks: []mark{suffixes(".qweight", ".qzeros", ".scales")}},
	{title: "AutoRound", names: []string{"auto-round", "auto_round", "intel/auto-round"}, advice: original},
	{title: "MXFP4", names: []string{"mxfp4"}, advice: "llama.cpp's convert_hf_to_gguf.py keeps it as MXFP4; or " + saved,
		marks: []mark{suffixes("_blocks", "_scales")}},
	{title: "NVFP4", names: []string{"nvfp4"}, advice: original},
	{title: "AQLM", names: []string{"aqlm"}, advice: original,
		marks: []mark{suffixes(".codebooks", ".codes", ".scales")}},
	{title: "SINQ", names: []string{"sinq"}, advice: original},
	{title: "HQQ", names: []string{"hqq"}, advice: original,
		marks: []mark{suffixes(".W_q")}},
	{title: "Quanto", names: []string{"quanto"}, advice: original,
		marks: []mark{suffixes(".weight._data", ".weight._scale")}},
	{title: "EETQ", names: []string{"eetq"}, advice: original,
		marks: []mark{{{".weight", tensor.I8}, {".weight_scales", tensor.Invalid}}, suffixes(".qweight", ".weight_scales")}},
	{title: "BitNet", names: []string{"bitnet"}, advice: converter,
		marks: []mark{{{".weight", tensor.U8}, {".weight_scale", tensor.BF16}}}},
	{title: "FBGEMM FP8", names: []string{"fbgemm_fp8"}, advice: original,
		marks: []mark{suffixes(".input_scale_ub")}},
	{title: "VPTQ", names: []string{"vptq"}, advice: original,
		marks: []mark{suffixes(".centroids.weight", ".indices")}},
	{title: "SpQR", names: []string{"spqr"}, advice: original,
		marks: []mark{suffixes(".dense_weights", ".row_offsets")}},
	{title: "HIGGS", names: []string{"higgs"}, advice: original,
		marks: []mark{suffixes(".tables2", ".scales")}},
	{title: "torchao", names: []string{"torchao"}, advice: original,
		marks: []mark{suffixes("._weight_qdata")}},
	{title: "FP-Quant", names: []string{"fp_quant"}, advice: original,
		marks: []mark{suffixes(".qweight", ".forward_hadamard_matrix"), suffixes(".dqweight")}},
	{title: "Quark", names: []string{"quark"}, advice: original},
	{title: "Four Over Six", names: []string{"fouroversix"}, advice: original},
	{title: "Gemma's own quantization", names: []string{"gemma"}, advice: original,
		marks: []mark{suffixes(".embedding_quantized", ".embedding_scale")}},
	{title: "Metal", names: []string{"metal"}, advice: saved,
		marks: []mark{{{".weight", tensor.U32}, {".scales", tensor.Invalid}, {".qbiases", tensor.Invalid}}}},
	{title: "MLX", names: []string{"mlx"}, advice: "decode it with mlx_lm.convert --dequantize; or " + original,
		marks: []mark{{{".weight", tensor.U32}, {".scales", tensor.Invalid}}}},
	{title: "EXL2", names: []string{"exl2"}, advice: original,
		marks: []mark{suffixes(".q_weight", ".q_scale")}},
	{title: "EXL3", names: []string{"exl3"}, advice: original,
		marks: []mark{suffixes(".trellis")}},
}

// packedGPTQ and packedAWQ tell bits and group size: either packs the zero points
// of 32 bits' worth of outputs in a word, GPTQ weights of as many inputs, AWQ
// weights of as many outputs.
func packedGPTQ(at func(string) tensor.Shape) (bits, group int64) { return packed(at, true) }
func packedAWQ(at func(string) tensor.Shape) (bits, group int64)  { return packed(at, false) }

func packed(at func(string) tensor.Shape, inputs bool) (bits, group int64) {
	w, zeros, scales := at(".qweight"), at(".qzeros"), at(".scales")
	if len(w) != 2 || len(zeros) != 2 || len(scales) != 2 || scales[0] < 1 || scales[1] < 1 {
		return 0, 0
	}
	const most = 1 << 40 // so that no product overflows
	if bits = min(zeros[1], most) * 32 / scales[1]; bits < 1 || bits > 8 {
		return 0, 0
	}
	in := min(w[0], most)
	if inputs {
		in = in * 32 / bits
	}
	return bits, in / scales[0]
}

// found is a method that a checkpoint is stored by.
type found struct {
	*method
	detail string // bits and group size
	at     string // a tensor that shows it, "" if only config.json says so
}

// label is the method with what is known of it: "GPTQ 4-bit, group 128".
func (f *found) label() string {
	if f.detail == "" {
		return f.title
	}
	return f.title + " " + f.detail
}

// refusal is the error of a method that is not decoded.
func (f *found) refusal() error {
	return hint.Add(fmt.Errorf("%w: weights stored by %s, such as %q", tensor.ErrUnsupported, f.label(), f.at), "%s", f.advice)
}

// identify returns the method that the tensors of src are stored by, nil if they
// are plain. What config.json says counts, unless the tensors show nothing of it:
// a quantization_config is left behind easily. A method that is decoded here must
// show nothing of one that is not.
func identify(src tensor.Source, c *config) *found {
	f := &found{method: c.row(), detail: c.detail}
	switch {
	case f.method == nil || f.fate == decoded:
		marked := findMark(src, func(m *method) bool { return f.method == nil || m.fate == refused })
		if marked == nil && f.method == nil {
			return eightBit(src)
		}
		if marked != nil {
			if c.detail != "" {
				marked.detail = c.detail
			}
			return marked
		}
		return f
	case f.fate == bnb:
		return f
	}
	if f.at = firstOdd(src); f.at == "" {
		return nil
	}
	return f
}

// row returns the method that the configuration names, nil if it names none, a row
// of its own for one that is not known.
func (c *config) row() *method {
	if c.method == "" {
		return nil
	}
	for i := range methods {
		m := &methods[i]
		if !slices.Contains(m.names, c.method) {
			continue
		}
		switch {
		case m.formats == nil, m.fate != decoded && m.any(c.formats), m.fate == decoded && m.all(c.formats):
			return m
		}
	}
	title := fmt.Sprintf("%q", c.method[:min(len(c.method), 40)])
	if len(c.formats) > 0 {
		name := c.formats[0]
		title += fmt.Sprintf(" (%q)", name[:min(len(name), 40)])
	}
	return &method{title: title, advice: original}
}

func (m *method) any(formats []string) bool {
	return slices.ContainsFunc(formats, func(f string) bool { return slices.Contains(m.formats, f) })
}

func (m *method) all(formats []string) bool {
	return !slices.ContainsFunc(formats, func(f string) bool { return !slices.Contains(m.formats, f) })
}

// findMark returns the first method, of those that may count, whose mark a tensor
// of src bears.
func findMark(src tensor.Source, counts func(*method) bool) *found {
	for i := range methods {
		m := &methods[i]
		if len(m.marks) == 0 || !counts(m) {
			continue
		}
		for info := range src.All() {
			for _, k := range m.marks {
				if base, ok := k.on(src, info); ok {
					return m.shown(src, info.Name, base)
				}
			}
		}
	}
	return nil
}

// on reports whether a tensor bears the mark, and the name without the suffix.
func (k mark) on(src tensor.Source, info tensor.Info) (base string, ok bool) {
	base, ok = strings.CutSuffix(info.Name, k[0].suffix)
	if !ok || k[0].dtype != tensor.Invalid && k[0].dtype != info.DType {
		return "", false
	}
	for _, part := range k[1:] {
		other, err := src.Info(base + part.suffix)
		if err != nil || part.dtype != tensor.Invalid && part.dtype != other.DType {
			return "", false
		}
	}
	return base, true
}

// shown returns what is known of a method from the tensors of one layer. What
// looks like AWQ without its packing is GPTQ, which need not store g_idx.
func (m *method) shown(src tensor.Source, name, base string) *found {
	at := func(suffix string) tensor.Shape {
		info, err := src.Info(base + suffix)
		if err != nil {
			return nil
		}
		return info.Shape
	}
	if w, scales := at(".qweight"), at(".scales"); m.title == "AWQ" && w.Cols() == scales.Cols() {
		m = named("gptq")
	}
	f := &found{method: m, at: name}
	if m.packed != nil {
		if bits, group := m.packed(at); bits > 0 {
			f.detail = fmt.Sprintf("%d-bit, group %d", bits, group)
		}
	}
	return f
}

// named returns the row of a quant_method.
func named(name string) *method {
	i := slices.IndexFunc(methods, func(m method) bool { return slices.Contains(m.names, name) })
	return &methods[i]
}

// firstOdd returns the name of the first tensor of src that no plain checkpoint
// has.
func firstOdd(src tensor.Source) string {
	for info := range src.All() {
		switch d := info.DType; {
		case d.Float(), d == tensor.Bool, d == tensor.I64, d == tensor.U64:
			if slices.ContainsFunc(methods, func(m method) bool {
				return slices.ContainsFunc(m.marks, func(k mark) bool { _, ok := k.on(src, info); return ok })
			}) {
				return info.Name
			}
		default:
			return info.Name
		}
	}
	return ""
}

// eightBit returns the method of a checkpoint without a configuration if one of
// its tensors has 8 bits and a scale.
func eightBit(src tensor.Source) *found {
	for info := range src.All() {
		if weight, _, ok := scaleOf(src, info); ok {
			if w, err := src.Info(weight); err == nil && isElement(w.DType) {
				return &found{method: named("fp8"), at: weight}
			}
		}
	}
	return nil
}
