package peft

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/formats/safetensors"
	"github.com/seed18967229/nibble/internal/tensortest"
	"github.com/seed18967229/nibble/tensor"
)

func scalar(name string, v float32) tensortest.Tensor {
	return tensortest.Float32(name, tensor.Shape{}, []float32{v})
}

func normal(name string, shape ...int64) tensortest.Tensor {
	return tensortest.Normal(name, shape, 1, 1)
}

// Names of kohya's scripts, as files on the net have them, and the modules of transformers
// and diffusers that they are for (networks/lora.py of sd-scripts; diffusers'
// loaders/lora_conversion_utils.py).
func TestKohyaNames(t *testing.T) {
	for name, want := range map[string]string{
		"lora_te_text_model_encoder_layers_0_self_attn_q_proj":                           "text_encoder.text_model.encoder.layers.0.self_attn.q_proj",
		"lora_te_text_model_encoder_layers_11_mlp_fc1":                                   "text_encoder.text_model.encoder.layers.11.mlp.fc1",
		"lora_te1_text_model_encoder_layers_3_self_attn_out_proj":                        "text_encoder.text_model.encoder.layers.3.self_attn.out_proj",
		"lora_te2_text_model_encoder_layers_31_mlp_fc2":                                  "text_encoder_2.text_model.encoder.layers.31.mlp.fc2",
		"lora_te_model_layers_20_self_attn_q_proj":                                       "model.layers.20.self_attn.q_proj",
		"lora_te_model_layers_3_mlp_experts_7_gate_proj":                                 "model.layers.3.mlp.experts.7.gate_proj",
		"lora_te_transformer_h_5_attn_c_attn":                                            "transformer.h.5.attn.c_attn",
		"lora_te_lm_head":                                                                "lm_head",
		"lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q":           "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q",
		"lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_out_0":       "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_out.0",
		"lora_unet_mid_block_attentions_0_transformer_blocks_0_ff_net_0_proj":            "unet.mid_block.attentions.0.transformer_blocks.0.ff.net.0.proj",
		"lora_unet_up_blocks_3_attentions_2_proj_in":                                     "unet.up_blocks.3.attentions.2.proj_in",
		"lora_unet_down_blocks_0_resnets_1_time_emb_proj":                                "unet.down_blocks.0.resnets.1.time_emb_proj",
		"lora_unet_down_blocks_0_downsamplers_0_conv":                                    "unet.down_blocks.0.downsamplers.0.conv",
		"lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_k":                     "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_k",
		"lora_unet_input_blocks_8_1_proj_out":                                            "unet.down_blocks.2.attentions.1.proj_out",
		"lora_unet_input_blocks_1_0_in_layers_2":                                         "unet.down_blocks.0.resnets.0.conv1",
		"lora_unet_input_blocks_3_0_op":                                                  "unet.down_blocks.0.downsamplers.0.conv",
		"lora_unet_middle_block_1_transformer_blocks_9_attn2_to_v":                       "unet.mid_block.attentions.0.transformer_blocks.9.attn2.to_v",
		"lora_unet_middle_block_0_emb_layers_1":                                          "unet.mid_block.resnets.0.time_emb_proj",
		"lora_unet_output_blocks_5_1_transformer_blocks_1_ff_net_2":                      "unet.up_blocks.1.attentions.2.transformer_blocks.1.ff.net.2",
		"lora_unet_output_blocks_2_2_conv":                                               "unet.up_blocks.0.upsamplers.0.conv",
		"lora_transformer_single_transformer_blocks_0_proj_mlp":                          "transformer.single_transformer_blocks.0.proj_mlp",
		"unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.processor.to_q_lora": "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q",
		"transformer.transformer_blocks.0.attn.add_k_proj":                               "transformer.transformer_blocks.0.attn.add_k_proj",
		"lora_te_some_module_that_nobody_knows":                                          "some.module.that.nobody.knows",
		"lora_unet_input_blocks_99999999999999999999_0_in_layers_2":                      "unet.input_blocks.99999999999999999999.0.in_layers.2",
	} {
		require.Equal(t, want, moduleOf(name, nil), name)
	}
	// With the modules of the model there is nothing to guess.
	require.Equal(t, "some_module.that_nobody.knows", moduleOf("lora_te_some_module_that_nobody_knows", map[string]string{"some_module_that_nobody_knows": "some_module.that_nobody.knows"}))
	require.False(t, Readable("some_module.that_nobody.knows"))
	require.True(t, Readable("model.layers.0.self_attn.q_proj"))
}

func TestKohyaThereAndBack(t *testing.T) {
	src := tensortest.NewSource(t, nil,
		normal("lora_unet_mid_block_attentions_0_proj_in.lora_down.weight", 2, 6), normal("lora_unet_mid_block_attentions_0_proj_in.lora_up.weight", 4, 2),
		scalar("lora_unet_mid_block_attentions_0_proj_in.alpha", 3),
		normal("lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight", 4, 5), normal("lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_up.weight", 7, 4),
		scalar("lora_te1_text_model_encoder_layers_0_mlp_fc1.alpha", 0),
		normal("lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_down.weight", 4, 5), normal("lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_up.weight", 7, 4),
		normal("lora_unet_down_blocks_0_downsamplers_0_conv.lora_down.weight", 2, 3, 3, 3), normal("lora_unet_down_blocks_0_downsamplers_0_conv.lora_up.weight", 8, 2, 1, 1),
		scalar("lora_unet_down_blocks_0_downsamplers_0_conv.alpha", 2))
	require.True(t, IsSingle(src))
	a, err := FromSingle(src, "lora.safetensors", nil)
	require.NoError(t, err)
	scale, err := a.Config.Scales()
	require.NoError(t, err)
	want := map[string]struct {
		rank  int
		scale float64
	}{
		"unet.mid_block.attentions.0.proj_in":                {2, 1.5},
		"text_encoder.text_model.encoder.layers.0.mlp.fc1":   {4, 1}, // an alpha of 0 is none
		"text_encoder_2.text_model.encoder.layers.0.mlp.fc1": {4, 1},
		"unet.down_blocks.0.downsamplers.0.conv":             {2, 1},
	}
	var list []ModuleScale
	for module, x := range want {
		s, err := scale(module, x.rank)
		require.NoError(t, err)
		require.Equal(t, x.scale, s, module)
		list = append(list, ModuleScale{module, x.rank, s})
	}
	require.ElementsMatch(t, []string{"unet", "text_encoder", "text_encoder_2"}, Components([]string{list[0].Module, list[1].Module, list[2].Module, list[3].Module}))
	back, err := ToKohya(a, list, "")
	require.NoError(t, err)
	for info := range src.All() {
		if strings.HasSuffix(info.Name, ".alpha") {
			continue
		}
		require.Equal(t, tensortest.Bytes(t, src, info.Name), tensortest.Bytes(t, back, info.Name), info.Name)
	}
	require.Equal(t, []float32{3}, tensortest.Floats(t, back, "lora_unet_mid_block_attentions_0_proj_in.alpha"))
	require.Equal(t, []float32{4}, tensortest.Floats(t, back, "lora_te1_text_model_encoder_layers_0_mlp_fc1.alpha"))
	tensortest.TestSource(t, back)

	d, err := ToDiffusers(a, list, "")
	require.NoError(t, err)
	b := tensortest.Floats(t, d, "unet.mid_block.attentions.0.proj_in.lora_B.weight")
	for i, v := range tensortest.Floats(t, src, "lora_unet_mid_block_attentions_0_proj_in.lora_up.weight") {
		require.Equal(t, 1.5*v, b[i])
	}
	again, err := FromSingle(d, "d.safetensors", nil)
	require.NoError(t, err)
	scale, err = again.Config.Scales()
	require.NoError(t, err)
	s, err := scale("unet.mid_block.attentions.0.proj_in", 2)
	require.NoError(t, err)
	require.Equal(t, 1.0, s)
}

func TestSingleRefuses(t *testing.T) {
	down, up := normal("lora_te_model_x.lora_down.weight", 2, 3), normal("lora_te_model_x.lora_up.weight", 3, 2)
	for name, c := range map[string]struct {
		list []tensortest.Tensor
		kind error
		says string
	}{
		"LoHa":                {[]tensortest.Tensor{normal("lora_unet_x.hada_w1_a", 2, 2), down}, tensor.ErrUnsupported, "a LoHa"},
		"LoKr":                {[]tensortest.Tensor{normal("lora_unet_x.lokr_w1", 2, 2), down}, tensor.ErrUnsupported, "a LoKr"},
		"DoRA":                {[]tensortest.Tensor{down, up, normal("lora_te_model_x.dora_scale", 3)}, tensor.ErrUnsupported, "a DoRA"},
		"three matrices":      {[]tensortest.Tensor{down, up, normal("lora_te_model_x.lora_mid.weight", 2, 2, 3, 3)}, tensor.ErrUnsupported, "third matrix"},
		"something else":      {[]tensortest.Tensor{down, up, normal("lora_te_model_x.bias", 3)}, tensor.ErrUnsupported, "no part of a LoRA"},
		"alpha is a vector":   {[]tensortest.Tensor{down, up, normal("lora_te_model_x.alpha", 3)}, tensor.ErrMalformed, "want one number"},
		"alpha of nothing":    {[]tensortest.Tensor{down, up, scalar("lora_te_model_y.alpha", 3)}, tensor.ErrMalformed, "no matrices of model.y"},
		"two names, a module": {[]tensortest.Tensor{down, up, normal("model.x.lora_A.weight", 2, 3)}, tensor.ErrMalformed, "occurs twice"},
		"empty":               {[]tensortest.Tensor{normal("lora_te_model_x.lora_down.weight", 0, 3), up}, tensor.ErrMalformed, "want a matrix"},
		"a vector":            {[]tensortest.Tensor{normal("lora_te_model_x.lora_down.weight", 3), up}, tensor.ErrMalformed, "want a matrix"},
		"B alone":             {[]tensortest.Tensor{up}, tensor.ErrMalformed, "no lora_down"},
	} {
		_, err := FromSingle(tensortest.NewSource(t, nil, c.list...), "x", nil)
		require.ErrorIs(t, err, c.kind, name)
		require.ErrorContains(t, err, c.says, name)
	}
	require.False(t, IsSingle(tensortest.NewSource(t, nil, normal("model.norm.weight", 3))))
}

// FuzzFromSingle: whatever the file, what is read can be written in every format, or it is an
// error.
func FuzzFromSingle(f *testing.F) {
	seed := func(list ...tensortest.Tensor) {
		src := tensortest.NewSource(f, nil, list...)
		path := f.TempDir() + "/x.safetensors"
		w, err := safetensors.Create(path, false)
		require.NoError(f, err)
		tensortest.Copy(f, src, w)
		f.Add(read(f, path))
	}
	seed(normal("lora_unet_middle_block_1_proj_in.lora_down.weight", 2, 6), normal("lora_unet_middle_block_1_proj_in.lora_up.weight", 4, 2), scalar("lora_unet_middle_block_1_proj_in.alpha", 3))
	seed(normal("unet.a.conv.lora_A.weight", 2, 3, 3, 3), normal("unet.a.conv.lora_B.weight", 8, 2, 1, 1))
	seed(normal("model.embed_tokens.lora_a", 9, 2), normal("model.embed_tokens.lora_b", 2, 4), normal("model.layers.0.q.lora_a", 4, 3), normal("model.layers.0.q.lora_b", 3, 6), normal("model.layers.0.q.m", 6))
	f.Fuzz(func(t *testing.T, b []byte) {
		src, err := safetensors.Parse(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		two := 2.0
		for _, kind := range []string{"lora", "dora"} {
			if c, table, err := fromMLX(src, &mlxConfig{FineTuneType: kind, Parameters: &mlxParameters{Scale: &two}}); err == nil {
				check(t, NewAdapter(c, table, "x", io.NopCloser(nil)))
			}
		}
		if a, err := FromSingle(src, "x", nil); err == nil {
			check(t, a)
		}
	})
}

// check writes an adapter in all formats and reads what is written.
func check(t *testing.T, a *Adapter) {
	scale, err := a.Config.Scales()
	require.NoError(t, err)
	var list []ModuleScale
	for info := range a.All() {
		for _, s := range []string{suffixA, embeddingA} {
			if m, ok := strings.CutSuffix(info.Name, s); ok {
				v, err := scale(m, int(info.Shape[0]))
				require.NoError(t, err)
				list = append(list, ModuleScale{m, int(info.Shape[0]), v})
			}
		}
	}
	for _, to := range []func() (*tensor.Table, error){
		func() (*tensor.Table, error) { x, _, err := ToMLX(a, list); return x, err },
		func() (*tensor.Table, error) { return ToKohya(a, list, "unet") },
		func() (*tensor.Table, error) { return ToDiffusers(a, list, "unet") },
	} {
		x, err := to()
		if err != nil {
			continue
		}
		for info := range x.All() {
			_, _, _ = codecs().ReadAll(x, info.Name)
		}
	}
}
