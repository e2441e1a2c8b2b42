package peft

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/tensor"
)

// Version is the PEFT version whose files this package writes.
const Version = "0.21.2"

// Config is the adapter_config.json of a LoRA adapter: LoraConfig in PEFT. The
// fields are what nibble has a use for; every other key of the file is kept as
// it is. Where PEFT has null, a string is empty.
type Config struct {
	PeftType    string // "LORA"
	TaskType    string // "CAUSAL_LM" ...
	PeftVersion string // of the PEFT that wrote the file

	BaseModel string // base_model_name_or_path
	Revision  string // of the base model

	R             int64   // rank, at least 1
	LoraAlpha     float64 // finite and not 0
	UseRSLoRA     bool    // scale by the root of the rank
	RankPattern   Pattern
	AlphaPattern  Pattern
	LoraDropout   float64
	Bias          string // "none", "all" or "lora_only"
	FanInFanOut   bool   // the base stores weights as [in, out]
	InferenceMode bool

	TargetModules     Modules
	ExcludeModules    Modules
	ModulesToSave     []string // trained whole and stored whole
	LayersToTransform Layers
	LayersPattern     Modules // what layers are called: names, or one
	InitLoraWeights   Init

	UseDoRA           bool
	LoRABias          bool          // lora_B has a bias, which is added to the base's
	TargetParameters  []string      // stacks of experts, and whatever is no layer's weight
	TrainableTokens   Tokens        // rows of embeddings that are stored
	EnsureWeightTying bool          // what is done to the embedding is done to the head too
	LayerReplication  []Replication // which layers of the base are those of the model

	other map[string]jsontext.Value // the keys without a field, compact

	// copied is a tensor that is stored a second time, and under which name.
	copied, as string
}

// NewConfig returns PEFT's defaults.
func NewConfig() *Config {
	c := &Config{other: make(map[string]jsontext.Value)}
	for _, k := range keys() {
		if k.field != nil {
			if err := json.Unmarshal([]byte(k.def), k.field(c)); err != nil {
				panic("peft: the default of " + k.name + ": " + err.Error())
			}
		}
	}
	c.PeftVersion = Version
	return c
}

// ParseConfig reads the text of an adapter_config.json. A missing key has PEFT's
// default, except three that must be there: peft_type, r and lora_alpha, without
// which nobody knows by what the adapter is scaled.
//
// Keys that change the arithmetic are read whether or not nibble follows them:
// see Unsupported. Errors wrap tensor.ErrMalformed, or tensor.ErrUnsupported if
// the file is of another kind of adapter.
func ParseConfig(text []byte) (*Config, error) {
	c := NewConfig()
	c.PeftVersion = ""
	if kind := jsontext.Value(text).Kind(); kind != '{' && kind != 0 {
		return nil, fmt.Errorf("%w: %v where there must be a JSON object", tensor.ErrMalformed, kind)
	}
	if err := json.Unmarshal(text, &c.other); err != nil {
		return nil, fmt.Errorf("%w: %w", tensor.ErrMalformed, err)
	}
	for name, value := range c.other {
		if err := value.Compact(); err != nil {
			return nil, fmt.Errorf("%s: %w: %w", name, tensor.ErrMalformed, err)
		}
		c.other[name] = value
	}
	if _, ok := c.other["peft_type"]; !ok {
		if _, mlx := c.other["lora_parameters"]; mlx {
			return nil, fmt.Errorf("%w: the configuration of an MLX adapter, not of a PEFT one", tensor.ErrUnsupported)
		}
		return nil, hint.Add(fmt.Errorf("%w: no peft_type", tensor.ErrMalformed), "give the adapter_config.json that PEFT's save_pretrained writes")
	}
	for _, name := range []string{"r", "lora_alpha"} {
		if _, ok := c.other[name]; !ok {
			return nil, hint.Add(fmt.Errorf("%w: no %s, so the scale of the adapter is unknown", tensor.ErrMalformed, name),
				"add the %s of the training; PEFT's default is 8", name)
		}
	}
	for _, k := range keys() {
		if value, ok := c.other[k.name]; ok && k.field != nil {
			if err := json.Unmarshal(value, k.field(c)); err != nil {
				return nil, fmt.Errorf("%s: %w: it cannot be %s", k.name, tensor.ErrMalformed, shorten(value))
			}
			delete(c.other, k.name)
		}
	}
	delete(c.other, runtimeConfig)
	if err := c.check(); err != nil {
		return nil, err
	}
	return c, nil
}

// check returns an error if the configuration cannot be anyone's.
func (c *Config) check() error {
	switch {
	case c.PeftType != "LORA":
		return fmt.Errorf("%w: peft_type %q; only LORA is known here", tensor.ErrUnsupported, c.PeftType)
	case c.R <= 0:
		return fmt.Errorf("%w: r is %d, the rank is at least 1", tensor.ErrMalformed, c.R)
	case math.IsNaN(c.LoraAlpha), math.IsInf(c.LoraAlpha, 0):
		return fmt.Errorf("%w: lora_alpha is %v", tensor.ErrMalformed, c.LoraAlpha)
	case c.LoraAlpha == 0:
		// verl, for one, writes 0 where it does not know.
		return hint.Add(fmt.Errorf("%w: lora_alpha is 0, so the adapter would change nothing", tensor.ErrMalformed),
			"set lora_alpha in adapter_config.json to that of the training")
	}
	return nil
}

// StoreTwice has Write store the tensor of that name, if there is one, under another name
// too: PEFT wants that of a head that is tied to embeddings which are trained whole.
func (c *Config) StoreTwice(name, as string) { c.copied, c.as = name, as }

// Scaling returns by what the product B*A is multiplied: lora_alpha / r, or with
// use_rslora lora_alpha / sqrt(r) (update_layer in PEFT's tuners/lora/layer.py).
func (c *Config) Scaling() float64 {
	if c.UseRSLoRA {
		return c.LoraAlpha / math.Sqrt(float64(c.R))
	}
	return c.LoraAlpha / float64(c.R)
}

// ChangedBase reports whether the base was changed when training began, so that
// the adapter alone does not fit the base as published (PiSSA, OLoRA, CorDA,
// LoRA-GA, LoftQ).
func (c *Config) ChangedBase() bool {
	for _, k := range keys() {
		if k.name == "init_lora_weights" {
			value, err := k.text(c)
			return err == nil && !k.plain(value)
		}
	}
	return false
}

// Unsupported returns an error that wraps tensor.ErrUnsupported and names every
// key by which the adapter asks for more than a product times one scale in each
// of its modules: those of PEFT with a value other than their default, and those
// that PEFT 0.21.2 does not have, for a newer version may mean something by them.
// Null, false and what is empty mean nothing anywhere.
func (c *Config) Unsupported() error { return c.unsupported(merged, refused) }

// Unmergeable is Unsupported for who can merge all that the fields of Config say:
// it names what is left.
func (c *Config) Unmergeable() error { return c.unsupported(refused) }

func (c *Config) unsupported(rules ...rule) error {
	var list []string
	why := reasons()
	known := make(map[string]bool)
	merges, never := true, false
	for _, k := range keys() {
		known[k.name] = true
		value, err := k.text(c)
		if err != nil {
			return err
		}
		if !slices.Contains(rules, k.rule) || k.plain(value) {
			continue
		}
		merges = merges && k.rule == merged
		text := k.name + " = " + shorten(value)
		if reason := why[k.name]; reason != "" {
			text += " (" + reason + ")"
			never = never || strings.HasPrefix(reason, "no ")
		}
		list = append(list, text)
	}
	strange := false
	for _, name := range slices.Sorted(maps.Keys(c.other)) {
		if value := c.other[name]; !known[name] && !off(value) && !c.repeats(name, value) {
			list = append(list, fmt.Sprintf("the unknown %s = %s", name, shorten(value)))
			strange = true
		}
	}
	if len(list) == 0 {
		return nil
	}
	err := fmt.Errorf("%w: the adapter's configuration has %s", tensor.ErrUnsupported, strings.Join(list, ", "))
	switch {
	case strange:
		return hint.Add(err, "remove an unknown key from adapter_config.json if you know that it has no effect on the weights")
	case merges:
		return hint.Add(err, "nibble merge makes a model of base and adapter")
	case !never:
		return hint.Add(err, "merge this adapter with PEFT's merge_and_unload")
	}
	return err
}

// plain reports whether a value of the key asks for nothing.
func (k key) plain(v jsontext.Value) bool {
	return off(v) || string(v) == k.def || slices.Contains(k.also, string(v))
}

// off reports whether a value, compact, says that what its key is about is not
// used.
func off(v jsontext.Value) bool {
	return slices.Contains([]string{`null`, `false`, `{}`, `[]`, `""`}, string(v))
}

func shorten(v jsontext.Value) string {
	const most = 60
	if len(v) > most {
		return string(v[:most]) + "..."
	}
	return string(v)
}
