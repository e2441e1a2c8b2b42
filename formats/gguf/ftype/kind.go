package ftype

import (
	"strings"

	"github.com/seed18967229/nibble/tensor"
)

// kind is what a tensor is to the rules.
type kind int

const (
	other kind = iota
	head       // output.weight
	embedding
	value
	key
	attnOutput
	up
	gate
	down
)

const perLayerEmbedding = "per_layer_token_embd.weight"

// whole are the kinds of names, parts those of what is in names: the first
// counts.
var whole = map[string]kind{"output.weight": head, "token_embd.weight": embedding, perLayerEmbedding: embedding}

var parts = []struct {
	in   string
	kind kind
}{
	{"attn_qkv.weight", value},
	{"attn_kv_b.weight", value},
	{"attn_v.weight", value},
	{"attn_k.weight", key},
	{"attn_q.weight", other},
	{"attn_output.weight", attnOutput},
	{"ffn_up", up},
	{"ffn_gate", gate},
	{"ffn_down", down},
}

func kindOf(name string) kind {
	if k, ok := whole[name]; ok {
		return k
	}
	for _, p := range parts {
		if strings.Contains(name, p.in) {
			return p.kind
		}
	}
	return other
}

// keptNames are the matrices that are never quantized: they have one of these in
// their name.
var keptNames = []struct{ in, why string }{
	{"_norm.weight", "a norm"},
	{"ffn_gate_inp.weight", "a router"},
	{"ffn_gate_tid2eid.weight", "a router"},
	{"altup", "small"},
	{"laurel", "small"},
	{"per_layer_model_proj", "small"},
	{"ssm_conv1d", "small"},
	{"shortconv.conv.weight", "small"},
	{"indexer.k_proj.weight", "small"},
	{"indexer.q_proj.weight", "small"},
	{"time_mix_first.weight", "small"},
	{"time_mix_w0.weight", "small"},
	{"time_mix_w1.weight", "small"},
	{"time_mix_w2.weight", "small"},
	{"time_mix_v0.weight", "small"},
	{"time_mix_v1.weight", "small"},
	{"time_mix_v2.weight", "small"},
	{"time_mix_a0.weight", "small"},
	{"time_mix_a1.weight", "small"},
	{"time_mix_a2.weight", "small"},
	{"time_mix_g1.weight", "small"},
	{"time_mix_g2.weight", "small"},
	{"time_mix_decay_w1.weight", "small"},
	{"time_mix_decay_w2.weight", "small"},
	{"time_mix_lerp_fused.weight", "small"},
	{"attn_rel_b.weight", "positions"},
	{".position_embd", "positions"},
	{"sam.pos_embd", "of the vision tower"},
	{"sam.neck.", "of the vision tower"},
	{"sam.net_", "of the vision tower"},
	{".rel_pos", "positions"},
	{".patch_embd", "of the vision tower"},
	{".patch_merger", "of the vision tower"},
	{"a.rvq.codebook", "a codebook"},
	{"mm.a.code_embd", "a codebook"},
}

// kept says why a tensor is stored as it is, "" if it is not.
func kept(t tensor.Info, leaveOutput bool) string {
	switch {
	case len(t.Shape) < 2:
		return "a vector"
	case !strings.HasSuffix(t.Name, "weight"):
		return "not a weight"
	case t.Name == "output.weight" && leaveOutput:
		return "--leave-output-tensor"
	case t.Name == "position_embd.weight":
		return "positions"
	case t.Name == "token_types.weight":
		return "kinds of tokens"
	}
	for _, k := range keptNames {
		if strings.Contains(t.Name, k.in) {
			return k.why
		}
	}
	return ""
}
