package quantized

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/seed18967229/nibble/tensor"
)

// config is what config.json says about how the weights are stored.
type config struct {
	// method is quant_method, "" if there is none.
	method string

	// formats are the formats that the method names, of all weights or of groups
	// of them.
	formats []string

	// detail is the number of bits and the size of groups, for people: "4-bit,
	// group 128".
	detail string

	// blocks are the sizes of blocks that share a scale.
	blocks []block

	// dtype is what the model is in when it is not quantized.
	dtype tensor.DType
}

type block struct{ rows, cols int64 }

// sections are the members of config.json that say how weights are stored, in the
// order in which they are looked for. The second is what compressed-tensors wrote
// in 2024, the third is MLX's.
var sections = []string{"quantization_config", "compression_config", "quantization"}

// nested are the members that hold the configuration of the language model, where
// there are others.
var nested = []string{"text_config", "llm_config", "language_config"}

// Members returns the members of config.json that do not apply any more once its
// weights have been decoded, those inside of others with dots between the names:
// "text_config.quantization_config".
func Members(text []byte) []string {
	var out []string
	top, err := object(text)
	if err != nil {
		return nil
	}
	for _, name := range sections {
		if says(top, name) {
			out = append(out, name)
		}
	}
	for _, in := range nested {
		inner, err := object(top[in])
		if err != nil {
			continue
		}
		for _, name := range sections {
			if says(inner, name) {
				out = append(out, in+"."+name)
			}
		}
	}
	return out
}

// says reports whether a member may say how weights are stored. That of MLX has a
// name that others use for something else.
func says(members map[string]jsontext.Value, name string) bool {
	v := members[name]
	return v != nil && (v.Kind() == '{' || name != "quantization")
}

// Files are the names of the files beside config.json, of ModelOpt and of AutoGPTQ
// and its kin, that do not apply any more either.
func Files() []string { return []string{"hf_quant_config.json", "quantize_config.json"} }

// DType returns what config.json says the model is in when it is not quantized:
// F32, F16, BF16, or Invalid if it says nothing of these.
func DType(text []byte) tensor.DType {
	top, err := object(text)
	if err != nil {
		return tensor.Invalid
	}
	if d := dtypeOf(top); d != tensor.Invalid {
		return d
	}
	for _, in := range nested {
		if inner, err := object(top[in]); err == nil {
			if d := dtypeOf(inner); d != tensor.Invalid {
				return d
			}
		}
	}
	return tensor.Invalid
}

var dtypes = map[string]tensor.DType{"float32": tensor.F32, "float16": tensor.F16, "bfloat16": tensor.BF16}

// dtypeOf reads what transformers 5 calls dtype and 4 torch_dtype.
func dtypeOf(members map[string]jsontext.Value) tensor.DType {
	for _, key := range []string{"dtype", "torch_dtype"} {
		var name string
		if json.Unmarshal(members[key], &name) == nil {
			if d := dtypes[strings.TrimPrefix(name, "torch.")]; d != tensor.Invalid {
				return d
			}
		}
	}
	return tensor.Invalid
}

// object reads the members of a JSON object; of nothing there are none.
func object(text []byte) (map[string]jsontext.Value, error) {
	if len(text) == 0 {
		return nil, nil
	}
	var m map[string]jsontext.Value
	if err := json.Unmarshal(text, &m); err != nil {
		return nil, fmt.Errorf("%w: %w", tensor.ErrMalformed, err)
	}
	return m, nil
}

// parseConfig reads the text of config.json, which may be missing.
func parseConfig(text []byte) (*config, error) {
	top, err := object(text)
	if err != nil {
		return nil, err
	}
	c := &config{dtype: DType(text)}
	value, where := find(top)
	if value == nil {
		return c, nil
	}
	var s section
	if err := json.Unmarshal(value, &s); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", tensor.ErrMalformed, where, err)
	}
	if err := s.read(c); err != nil {
		return nil, fmt.Errorf("%s: %w", where, err)
	}
	return c, nil
}

// find returns the first section that is not null, and where it is.
func find(top map[string]jsontext.Value) (value jsontext.Value, where string) {
	in := func(members map[string]jsontext.Value, prefix string) bool {
		for _, name := range sections {
			if v := members[name]; says(members, name) && v.Kind() != 'n' {
				value, where = v, prefix+name
				return true
			}
		}
		return false
	}
	if in(top, "") {
		return value, where
	}
	for _, name := range nested {
		if inner, err := object(top[name]); err == nil && in(inner, name+".") {
			return value, where
		}
	}
	return nil, ""
}

// section is a quantization_config: a JSON object whose members depend on the
// method.
type section map[string]any

func (s section) text(key string) string {
	v, _ := s[key].(string)
	return v
}

func (s section) inner(key string) section {
	v, _ := s[key].(map[string]any)
	return v
}

// groups returns the descriptions in config_groups, sorted by name.
func (s section) groups() []section {
	all := s.inner("config_groups")
	var names []string
	for name := range all {
		names = append(names, name)
	}
	slices.Sort(names)
	var out []section
	for _, name := range names {
		if g := all.inner(name); g != nil {
			out = append(out, g)
		}
	}
	return out
}

// read fills in a config.
func (s section) read(c *config) error {
	if v, ok := s["quant_method"]; ok && v != nil {
		if c.method, ok = v.(string); !ok {
			return fmt.Errorf("%w: quant_method is %v, want a name", tensor.ErrMalformed, kindOf(v))
		}
	}
	switch {
	case s["load_in_8bit"] == true:
		c.method, c.formats = "bitsandbytes", []string{"8-bit"}
	case s["load_in_4bit"] == true:
		c.method, c.formats = "bitsandbytes", []string{"4-bit"}
	case c.method == "" && s.inner("producer").text("name") == "modelopt":
		c.method = "modelopt"
	}
	c.method = strings.ReplaceAll(strings.ToLower(c.method), "compressed_tensors", "compressed-tensors")
	s.readFormats(c)
	s.readDetail(c)
	return s.readBlocks(c)
}

// readFormats collects what the weights are stored as: format, that of groups
// where they differ, quant_algo, and what is done to the weights besides.
func (s section) readFormats(c *config) {
	add := func(name string) {
		if name != "" && name != "mixed-precision" && name != "MIXED_PRECISION" && !slices.Contains(c.formats, name) {
			c.formats = append(c.formats, name)
		}
	}
	add(s.text("format"))
	add(s.text("quant_algo"))
	for _, g := range s.groups() {
		add(g.text("format"))
	}
	layers := s.inner("quantized_layers")
	var algos []string
	for name := range layers {
		algos = append(algos, layers.inner(name).text("quant_algo"))
	}
	slices.Sort(algos)
	for _, a := range algos {
		add(a)
	}
	if f := s.inner("sparsity_config").text("format"); f != "dense" {
		add(f)
	}
	if len(s.inner("transform_config").inner("config_groups")) > 0 {
		add("transform_config")
	}
}

// readDetail collects bits and group size under the names that makers give them.
func (s section) readDetail(c *config) {
	places := []section{s, s.inner("quant_config").inner("weight_quant_params"), s.inner("weight_quant_params")}
	for _, g := range s.groups() {
		places = append(places, g.inner("weights"))
	}
	first := func(keys ...string) string {
		for _, p := range places {
			for _, k := range keys {
				switch v := p[k].(type) {
				case float64:
					if v > 0 && v < 1<<20 {
						return strconv.FormatFloat(v, 'f', -1, 64)
					}
				case string:
					if v != "" && len(v) < 32 && strings.IndexFunc(v, func(r rune) bool { return r < ' ' || r > '~' }) < 0 {
						return v
					}
				}
			}
		}
		return ""
	}
	bits := first("bits", "w_bit", "nbits", "num_bits", "weights", "nbits_per_codebook", "quant_type")
	if _, err := strconv.ParseFloat(bits, 64); err == nil {
		bits += "-bit"
	}
	c.detail = bits
	if group := first("group_size", "q_group_size", "in_group_size"); group != "" {
		c.detail = strings.TrimPrefix(bits+", group "+group, ", ")
	}
}

// readBlocks collects the sizes of blocks.
func (s section) readBlocks(c *config) error {
	add := func(key string, v any) error {
		b, err := parseBlock(v)
		if err != nil {
			return fmt.Errorf("%w: %s is %v, want two positive numbers", tensor.ErrMalformed, key, err)
		}
		if !slices.Contains(c.blocks, b) {
			c.blocks = append(c.blocks, b)
		}
		return nil
	}
	if v := s["weight_block_size"]; v != nil {
		if err := add("weight_block_size", v); err != nil {
			return err
		}
	}
	for _, g := range s.groups() {
		w := g.inner("weights")
		if v := w["block_structure"]; v != nil {
			if err := add("block_structure", v); err != nil {
				return err
			}
		}
		if v, ok := w["group_size"].(float64); ok && v > 0 {
			if err := add("group_size", []any{1.0, v}); err != nil {
				return err
			}
		}
	}
	return nil
}

// parseBlock reads [128, 128], or "128x128" as compressed-tensors wrote it first.
// Its error is what was found.
func parseBlock(v any) (block, error) {
	var sides []int64
	switch v := v.(type) {
	case []any:
		for _, x := range v {
			n, ok := x.(float64)
			if !ok || n != math.Trunc(n) || n < 1 || n > math.MaxInt32 {
				return block{}, fmt.Errorf("a list with %v in it", kindOf(x))
			}
			sides = append(sides, int64(n))
		}
	case string:
		for _, x := range strings.Split(v, "x") {
			n, err := strconv.ParseInt(x, 10, 32)
			if err != nil || n < 1 {
				return block{}, fmt.Errorf("%q", v)
			}
			sides = append(sides, n)
		}
	default:
		return block{}, fmt.Errorf("%v", kindOf(v))
	}
	if len(sides) != 2 {
		return block{}, fmt.Errorf("a list of %d", len(sides))
	}
	return block{sides[0], sides[1]}, nil
}

// kindOf names a JSON value without quoting all of it.
func kindOf(v any) string {
	switch v := v.(type) {
	case []any:
		return "a list"
	case map[string]any:
		return "an object"
	case string:
		return strconv.Quote(v[:min(len(v), 40)])
	}
	return fmt.Sprint(v)
}
