package peft

// A rule says what a key of adapter_config.json means to whoever merges the
// adapter.
type rule uint8

const (
	// harmless keys say nothing that the tensors do not say: how training went,
	// or which modules have tensors.
	harmless rule = iota

	// handled keys are obeyed.
	handled

	// merged keys are obeyed by whoever merges. Whoever only multiplies all pairs
	// by one scale must refuse another value than the default.
	merged

	// refused keys change what a merge must compute in a way that is not done.
	// Only their default will do.
	refused
)

// A key is one of those that LoraConfig has.
type key struct {
	name string
	def  string // the default, as JSON
	rule rule

	// field returns where Config holds the value; nil if it keeps it as text.
	field func(*Config) any

	// also holds other values of a merged or refused key that will do, as JSON.
	also []string
}

// reasons says why adapters with a refused key are not merged. What nobody can
// merge, PEFT included, has a reason that begins with "no".
func reasons() map[string]string {
	return map[string]string{
		"alora_invocation_tokens": "no weights take effect from some token on",
		"arrow_config":            "no weights choose among adapters by the token",
		"kasa_config":             "the base lost its smallest singular values when training began",
		"use_bdlora":              "its matrices are block-diagonal",
		"use_qalora":              "no weight of the base has the groups that its input is pooled by",
	}
}

// keys returns the keys that PEFT 0.21.2 writes for LoRA, sorted, as in the
// file. What each does to a merge is in tuners/lora of PEFT: layer.py,
// variants.py, model.py.
func keys() []key {
	return []key{
		{"alora_invocation_tokens", `null`, refused, nil, nil},
		{"alpha_pattern", `{}`, merged, func(c *Config) any { return &c.AlphaPattern }, nil},
		{"arrow_config", `null`, refused, nil, nil},
		{"auto_mapping", `null`, harmless, nil, nil},
		{"base_model_name_or_path", `null`, harmless, func(c *Config) any { return &c.BaseModel }, nil},
		{"bias", `"none"`, merged, func(c *Config) any { return &c.Bias }, nil},
		{"corda_config", `null`, harmless, nil, nil},
		{"ensure_weight_tying", `false`, merged, func(c *Config) any { return &c.EnsureWeightTying }, nil},
		{"eva_config", `null`, harmless, nil, nil},
		{"exclude_modules", `null`, harmless, func(c *Config) any { return &c.ExcludeModules }, nil},
		{"fan_in_fan_out", `false`, handled, func(c *Config) any { return &c.FanInFanOut }, nil},
		{"inference_mode", `false`, harmless, func(c *Config) any { return &c.InferenceMode }, nil},
		// Those left out here (pissa, olora, corda, loftq, lora_ga) change the base
		// when training begins, so the adapter does not fit the base as published:
		// see ChangedBase.
		{"init_lora_weights", `true`, merged, func(c *Config) any { return &c.InitLoraWeights },
			[]string{`"gaussian"`, `"eva"`, `"orthogonal"`, `"mica"`}},
		{"kasa_config", `null`, refused, nil, nil},
		{"layer_replication", `null`, merged, func(c *Config) any { return &c.LayerReplication }, nil},
		{"layers_pattern", `null`, harmless, func(c *Config) any { return &c.LayersPattern }, nil},
		{"layers_to_transform", `null`, harmless, func(c *Config) any { return &c.LayersToTransform }, nil},
		{"loftq_config", `{}`, harmless, nil, nil},
		{"lora_alpha", `8`, handled, func(c *Config) any { return &c.LoraAlpha }, nil},
		{"lora_bias", `false`, merged, func(c *Config) any { return &c.LoRABias }, nil},
		{"lora_dropout", `0.0`, harmless, func(c *Config) any { return &c.LoraDropout }, nil},
		{"lora_ga_config", `null`, harmless, nil, nil},
		{"megatron_config", `null`, refused, nil, nil},
		{"megatron_core", `"megatron.core"`, harmless, nil, nil},
		{"modules_to_save", `null`, merged, func(c *Config) any { return &c.ModulesToSave }, nil},
		{"monteclora_config", `null`, harmless, nil, nil},
		{"peft_type", `"LORA"`, handled, func(c *Config) any { return &c.PeftType }, nil},
		{"peft_version", `null`, harmless, func(c *Config) any { return &c.PeftVersion }, nil},
		{"qalora_group_size", `16`, harmless, nil, nil},
		{"r", `8`, handled, func(c *Config) any { return &c.R }, nil},
		{"rank_pattern", `{}`, merged, func(c *Config) any { return &c.RankPattern }, nil},
		{"revision", `null`, harmless, func(c *Config) any { return &c.Revision }, nil},
		{"target_modules", `null`, harmless, func(c *Config) any { return &c.TargetModules }, nil},
		{"target_parameters", `null`, merged, func(c *Config) any { return &c.TargetParameters }, nil},
		{"task_type", `null`, harmless, func(c *Config) any { return &c.TaskType }, nil},
		{"trainable_token_indices", `null`, merged, func(c *Config) any { return &c.TrainableTokens }, nil},
		{"use_bdlora", `null`, refused, nil, nil},
		{"use_dora", `false`, merged, func(c *Config) any { return &c.UseDoRA }, nil},
		{"use_qalora", `false`, refused, nil, nil},
		{"use_rslora", `false`, handled, func(c *Config) any { return &c.UseRSLoRA }, nil},
		{"velora_config", `null`, harmless, nil, nil},
	}
}

// runtimeConfig is a key that older versions wrote and every version drops when
// it reads.
const runtimeConfig = "runtime_config"
