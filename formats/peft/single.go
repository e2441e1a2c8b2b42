package peft

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/tensor"
)

// Adapters that are a single file of tensors: kohya's sd-scripts and what came after it,
// and diffusers'. Neither has a configuration. Of a diffusion pipeline one file has the
// adapters of several models, which begin the names of Adapter here: "unet.", "text_encoder."

// single says how names of factors end in such files, and what that is in Adapter.
var single = []struct{ suffix, as string }{
	{".lora_down.weight", suffixA}, {".lora_up.weight", suffixB}, // kohya
	{".lora_A.weight", suffixA}, {".lora_B.weight", suffixB}, // diffusers since 0.26, PEFT
	{".lora.down.weight", suffixA}, {".lora.up.weight", suffixB}, // diffusers before
	{".lora_A.default.weight", suffixA}, {".lora_B.default.weight", suffixB},
	{".alpha", suffixAlpha},
}

const suffixAlpha = ".alpha"

// kohyaPrefixes are how names of kohya's files begin, and what model of a pipeline that is;
// "" stands for one that is alone.
var kohyaPrefixes = []struct{ kohya, component string }{
	{"lora_unet_", "unet."},
	{"lora_te1_", "text_encoder."},
	{"lora_te2_", "text_encoder_2."},
	{"lora_te3_", "text_encoder_3."},
	{"lora_te_", ""},
	{"lora_transformer_", "transformer."},
}

// clip is how the modules of the text encoder begin that has no number in kohya's files.
const clip = "text_model."

// components are the models of a pipeline.
var components = []string{"unet.", "transformer.", "text_encoder.", "text_encoder_2.", "text_encoder_3."}

// oldAttention matches the layers of attention in files of diffusers before 0.26.
var oldAttention = regexp.MustCompile(`\.processor\.(to_q|to_k|to_v|to_out)_lora$`)

// others are the endings of adapters that are no product of two matrices.
var others = []struct{ part, what string }{
	{".hada_", "a LoHa"}, {".lokr_", "a LoKr"}, {".lora_mid", "a LoCon with a third matrix"}, {".dora_scale", "a DoRA"},
	{".oft_", "an OFT"}, {".diff", "a difference stored whole"}, {".on_input", "an IA3"},
}

// IsSingle reports whether a file of tensors is an adapter.
func IsSingle(src tensor.Source) bool {
	for info := range src.All() {
		for _, s := range single {
			if s.as == suffixA && strings.HasSuffix(info.Name, s.suffix) {
				return true
			}
		}
	}
	return false
}

// FromSingle returns the adapter that a file of tensors is, in the layout of Adapter. modules
// are the names of the modules of the model that it is for, by which names in kohya's
// spelling, with an underscore for each dot, are told apart; without them, which may be,
// that is done by the words that modules are called with. The scale is alpha over rank where
// the file has an alpha that is not 0, and else 1.
func FromSingle(src tensor.Source, path string, modules []string) (*Adapter, error) {
	spelled := make(map[string]string)
	for _, m := range modules {
		spelled[strings.ReplaceAll(m, ".", "_")] = m
	}
	config := NewConfig()
	alphas := make(map[string]string) // by module, the names of tensors
	var entries []tensor.Entry
	var list []string
	ranks := make(map[string]int64)
	for info := range src.All() {
		module, as := cutSingle(info.Name)
		if as == "" {
			return nil, notSingle(info.Name)
		}
		module = moduleOf(module, spelled)
		if as == suffixAlpha {
			if info.Shape.Elems() != 1 {
				return nil, fmt.Errorf("tensor %q: %w: shape %v, want one number", info.Name, tensor.ErrMalformed, info.Shape)
			}
			alphas[module] = info.Name
			continue
		}
		if info.Shape.Elems() == 0 || len(info.Shape) < 2 {
			return nil, fmt.Errorf("tensor %q: %w: shape %v, want a matrix", info.Name, tensor.ErrMalformed, info.Shape)
		}
		if as == suffixA {
			list = append(list, module)
			ranks[module] = info.Shape[0]
		}
		a, b := namesOf(module, isEmbedding(module))
		entries = append(entries, tensor.Forward(src, info, map[string]string{suffixA: a, suffixB: b}[as]))
	}
	var scales []ModuleScale
	for _, m := range list {
		s := ModuleScale{m, int(ranks[m]), 1}
		if name, ok := alphas[m]; ok {
			_, x, err := codecs().ReadAll(src, name)
			if err != nil {
				return nil, err
			}
			alpha := float64(x[0])
			if math.IsNaN(alpha) || math.IsInf(alpha, 0) {
				return nil, fmt.Errorf("tensor %q: %w: alpha is %v", name, tensor.ErrMalformed, alpha)
			}
			if alpha != 0 {
				s.Scale = alpha / float64(s.Rank)
			}
			delete(alphas, m)
		}
		scales = append(scales, s)
	}
	for module, name := range alphas {
		return nil, fmt.Errorf("tensor %q: %w: there are no matrices of %s beside it", name, tensor.ErrMalformed, module)
	}
	if len(scales) == 0 {
		return nil, fmt.Errorf("%w: the adapter holds no lora_down or lora_A", tensor.ErrMalformed)
	}
	table, err := tensor.NewTable(src.Meta(), entries)
	if err != nil {
		return nil, err
	}
	config.InferenceMode = true
	config.TargetModules = TargetsOf(list)
	config.FanInFanOut = strings.HasPrefix(list[0], conv1D)
	config.SetModules(scales)
	return NewAdapter(config, table, path, nil), nil
}

func cutSingle(name string) (module, as string) {
	for _, s := range single {
		if module, ok := strings.CutSuffix(strings.TrimPrefix(name, prefix), s.suffix); ok {
			return module, s.as
		}
	}
	return "", ""
}

func notSingle(name string) error {
	for _, o := range others {
		if strings.Contains(name, o.part) {
			return fmt.Errorf("tensor %q: %w: part of %s, which is no LoRA of two matrices", name, tensor.ErrUnsupported, o.what)
		}
	}
	return fmt.Errorf("tensor %q: %w: no part of a LoRA", name, tensor.ErrUnsupported)
}

// moduleOf returns the module that a name in the file stands for.
func moduleOf(name string, spelled map[string]string) string {
	for _, p := range kohyaPrefixes {
		rest, ok := strings.CutPrefix(name, p.kohya)
		if !ok {
			continue
		}
		if m, ok := spelled[rest]; ok {
			return p.component + m
		}
		m := sgm(dotted(rest))
		if p.component == "" && strings.HasPrefix(m, clip) {
			return "text_encoder." + m
		}
		return p.component + m
	}
	return oldAttention.ReplaceAllString(name, ".$1")
}

// words are the parts of modules' names that have an underscore of their own, in
// transformers and diffusers.
var words = func() map[string]bool {
	out := make(map[string]bool)
	for _, w := range strings.Fields(`
		q_proj k_proj v_proj o_proj out_proj gate_proj up_proj down_proj qkv_proj gate_up_proj self_attn cross_attn encoder_attn
		embed_tokens lm_head c_attn c_proj c_fc word_embeddings dense_h_to_4h dense_4h_to_h query_key_value block_sparse_moe shared_expert shared_experts
		shared_expert_gate in_proj_qkvz in_proj_ba linear_attn input_layernorm post_attention_layernorm q_norm k_norm in_proj x_proj dt_proj
		text_model vision_model token_embedding position_embedding text_projection final_layer_norm layer_norm1 layer_norm2
		down_blocks mid_block up_blocks transformer_blocks single_transformer_blocks time_emb_proj time_embedding time_embed label_emb add_embedding
		linear_1 linear_2 conv_in conv_out conv_shortcut proj_in proj_out proj_mlp to_q to_k to_v to_out add_q_proj add_k_proj add_v_proj to_add_out
		ff_context norm1_context input_blocks middle_block output_blocks in_layers out_layers emb_layers skip_connection
		double_blocks single_blocks img_attn img_mlp img_mod txt_attn txt_mlp txt_mod joint_blocks context_block x_block
		context_embedder x_embedder time_text_embed timestep_embedder guidance_embedder text_embedder
		relative_attention_bias DenseReluDense wi_0 wi_1`) {
		out[w] = true
	}
	return out
}()

// longest is how many underscores a word has at most, and one.
const longest = 5

// dotted returns the name of a module whose dots are underscores: the longest of the words
// at each place, and a part of its own for what is none.
func dotted(name string) string {
	tokens := strings.Split(name, "_")
	var parts []string
	for i := 0; i < len(tokens); {
		n := 1
		for k := min(longest, len(tokens)-i); k > 1; k-- {
			if words[strings.Join(tokens[i:i+k], "_")] {
				n = k
				break
			}
		}
		parts = append(parts, strings.Join(tokens[i:i+n], "_"))
		i += n
	}
	return strings.Join(parts, ".")
}

// sgm returns diffusers' name of a module of a UNet that has the names of Stability's
// code, as kohya's files of SDXL do. Its blocks have two layers each, and what is of
// another shape is left as it is.
func sgm(module string) string {
	parts := strings.Split(module, ".")
	if len(parts) < 4 {
		return module
	}
	n, err := strconv.Atoi(parts[1])
	if err != nil || n < 0 {
		return module
	}
	var head string
	rest := parts[3:]
	switch parts[0] {
	case "input_blocks":
		if n == 0 {
			return module
		}
		block, layer := (n-1)/3, (n-1)%3
		switch {
		case layer == 2 && rest[0] == "op":
			return fmt.Sprintf("down_blocks.%d.downsamplers.0.conv", block)
		case layer == 2:
			return module
		}
		head = fmt.Sprintf("down_blocks.%d.%s.%d", block, kindOf(parts[2]), layer)
	case "output_blocks":
		block, layer := n/3, n%3
		if rest[0] == "conv" {
			return fmt.Sprintf("up_blocks.%d.upsamplers.0.conv", block)
		}
		head = fmt.Sprintf("up_blocks.%d.%s.%d", block, kindOf(parts[2]), layer)
	case "middle_block":
		// middle_block.N has no number of a layer.
		rest = parts[2:]
		switch n {
		case 0:
			head = "mid_block.resnets.0"
		case 1:
			head = "mid_block.attentions.0"
		default:
			head = "mid_block.resnets.1"
		}
	default:
		return module
	}
	tail := strings.Join(rest, ".")
	if as, ok := sgmResnet[tail]; ok {
		tail = as
	}
	return head + "." + tail
}

func kindOf(sub string) string {
	if sub == "0" {
		return "resnets"
	}
	return "attentions"
}

// sgmResnet are the layers of a block of convolutions.
var sgmResnet = map[string]string{
	"in_layers.2": "conv1", "out_layers.3": "conv2", "emb_layers.1": "time_emb_proj", "skip_connection": "conv_shortcut",
}

// Components returns the models of a pipeline that modules are of, "" for those of a model
// that is alone.
func Components(modules []string) []string {
	var out []string
	for _, m := range modules {
		c := ""
		for _, x := range components {
			if strings.HasPrefix(m, x) {
				c = strings.TrimSuffix(x, ".")
			}
		}
		// A language model may have a module that is called like one.
		if c == "transformer" && strings.HasPrefix(m, conv1D) {
			c = ""
		}
		if !slices.Contains(out, c) {
			out = append(out, c)
		}
	}
	return out
}

// ToKohya returns the tensors of a file in kohya's spelling. list has the adapter's modules;
// component is the model of a pipeline that those are of which do not say it, as the
// modules of a PEFT adapter do not: "" for a language model. The metadata say the rank and
// the alpha, as kohya's do.
func ToKohya(a *Adapter, list []ModuleScale, component string) (*tensor.Table, error) {
	first := slices.MaxFunc(list, func(x, y ModuleScale) int { return x.Rank - y.Rank })
	meta := tensor.Meta{
		{Key: "ss_network_alpha", Value: strconv.FormatFloat(alphaOf(first), 'g', -1, 64)},
		{Key: "ss_network_dim", Value: strconv.Itoa(first.Rank)},
		{Key: "ss_network_module", Value: "networks.lora"},
	}
	two := slices.ContainsFunc(list, func(m ModuleScale) bool { return strings.HasPrefix(m.Module, "text_encoder_2.") })
	return toSingle(a, list, meta, func(m ModuleScale) ([]tensor.Entry, error) {
		name, err := kohyaName(m.Module, component, two)
		if err != nil {
			return nil, err
		}
		infoA, infoB, err := halves(a, m.Module)
		if err != nil {
			return nil, err
		}
		return []tensor.Entry{
			constant(name+suffixAlpha, float32(alphaOf(m))),
			tensor.Forward(a, infoA, name+".lora_down.weight"),
			tensor.Forward(a, infoB, name+".lora_up.weight"),
		}, nil
	})
}

// ToDiffusers returns the tensors of a file in diffusers' spelling. It takes the scale of one
// without metadata to be 1, so what another scale is goes into B.
func ToDiffusers(a *Adapter, list []ModuleScale, component string) (*tensor.Table, error) {
	return toSingle(a, list, meta(), func(m ModuleScale) ([]tensor.Entry, error) {
		name := m.Module
		if Components([]string{name})[0] == "" {
			if component == "" {
				return nil, hint.Add(fmt.Errorf("module %s: %w: diffusers' files say which model of a pipeline a module is of", name, tensor.ErrUnsupported),
					"say which with --component: unet, transformer, text_encoder, ...")
			}
			name = component + "." + name
		}
		infoA, infoB, err := halves(a, m.Module)
		if err != nil {
			return nil, err
		}
		b := tensor.Forward(a, infoB, name+suffixB)
		if m.Scale != 1 {
			b = computed(a, infoB.Name, b.Info, func(x []float32) []float32 { return scaled(x, m.Scale) })
		}
		return []tensor.Entry{tensor.Forward(a, infoA, name+suffixA), b}, nil
	})
}

// toSingle makes the entries of all modules and checks that nothing is left.
func toSingle(a *Adapter, list []ModuleScale, meta tensor.Meta, of func(ModuleScale) ([]tensor.Entry, error)) (*tensor.Table, error) {
	used := make(map[string]bool)
	var entries []tensor.Entry
	for _, m := range list {
		more, err := of(m)
		if err != nil {
			return nil, err
		}
		entries = append(entries, more...)
		infoA, infoB, err := halves(a, m.Module)
		if err != nil {
			return nil, err
		}
		used[infoA.Name], used[infoB.Name] = true, true
	}
	for info := range a.All() {
		if !used[info.Name] {
			return nil, hint.Add(fmt.Errorf("adapter tensor %q: %w: such a file holds low-rank matrices only", info.Name, tensor.ErrUnsupported), "merge the adapter, and convert the model")
		}
	}
	slices.SortFunc(entries, func(x, y tensor.Entry) int { return strings.Compare(x.Info.Name, y.Info.Name) })
	return tensor.NewTable(meta, entries)
}

// halves returns what A and B of a module are.
func halves(a *Adapter, module string) (infoA, infoB tensor.Info, err error) {
	nameA, nameB := namesOf(module, tensor.Has(a, module+embeddingA))
	if infoA, err = a.Info(nameA); err != nil {
		return infoA, infoB, err
	}
	infoB, err = a.Info(nameB)
	return infoA, infoB, err
}

// kohyaName spells a module as kohya does. Where there are two text encoders the first has a
// number too.
func kohyaName(module, component string, two bool) (string, error) {
	of := Components([]string{module})[0]
	rest := strings.TrimPrefix(module, of+".")
	if of == "" {
		of, rest = component, module
	}
	if of != "" {
		of += "."
	}
	if of == "text_encoder." && !two && strings.HasPrefix(rest, clip) {
		of = ""
	}
	for _, p := range kohyaPrefixes {
		if p.component == of {
			return p.kohya + strings.ReplaceAll(rest, ".", "_"), nil
		}
	}
	return "", hint.Add(fmt.Errorf("%w: kohya has no name for a model called %q", tensor.ErrUnsupported, strings.TrimSuffix(of, ".")),
		"there are: unet, transformer, text_encoder, text_encoder_2, text_encoder_3")
}

// Readable reports whether a module's name in kohya's spelling can be told apart again
// without the modules of the model.
func Readable(module string) bool {
	name, err := kohyaName(module, "", false)
	return err != nil || moduleOf(name, nil) == module
}

// Rename returns the adapter with its modules under other names.
func Rename(a *Adapter, name func(module string) string) (*Adapter, error) {
	var entries []tensor.Entry
	for info := range a.All() {
		as := info.Name
		for _, s := range []string{suffixA, suffixB, embeddingA, embeddingB, suffixMagnitude} {
			if m, ok := strings.CutSuffix(info.Name, s); ok {
				as = name(m) + s
			}
		}
		entries = append(entries, tensor.Forward(a, info, as))
	}
	table, err := tensor.NewTable(a.Meta(), entries)
	if err != nil {
		return nil, err
	}
	return NewAdapter(a.Config.Clone(), table, a.path, a.file), nil
}
