package peft

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/onig"
	"github.com/seed18967229/nibble/tensor"
)

// allLinear stands for every linear layer but the output, whatever its case.
const allLinear = "all-linear"

// A pattern is a regular expression that a whole name must match, as Python's
// re.fullmatch has it. Those of PEFT's files look around, which Go's cannot.
type pattern struct{ re *onig.Regexp }

// compile returns the pattern of a text of the key.
func compile(key, text string) (pattern, error) {
	re, err := onig.Compile(`\A(?:` + text + `)\z`)
	switch {
	case errors.Is(err, onig.ErrUnsupported):
		err = fmt.Errorf("%s: %w: %w", key, tensor.ErrUnsupported, err)
	case err != nil:
		err = fmt.Errorf("%s: %w: %w", key, tensor.ErrMalformed, err)
	}
	return pattern{re}, err
}

func (p pattern) match(name string) bool {
	m := p.re.Matcher()
	m.Reset(name)
	_, _, ok := m.Next()
	return ok
}

// matcher returns what tells whether a module is among those meant, by the rules of
// target_modules (check_target_module_exists in PEFT's tuners/tuners_utils.py).
func (m Modules) matcher(key string) (func(module string) bool, error) {
	if m.Regex != "" {
		p, err := compile(key, m.Regex)
		return p.match, err
	}
	return func(module string) bool {
		return slices.ContainsFunc(m.Names, func(n string) bool { return module == n || strings.HasSuffix(module, "."+n) })
	}, nil
}

// firstNumber finds the number of the layer where its name is not given: the
// first that stands between dots, behind two other parts or more.
var firstNumber = regexp.MustCompile(`^.*?\.[^.]*\.(\d+)\.`)

// Targeted returns what tells which modules of a model the configuration means to
// have a pair of low-rank matrices; nil if it does not say so by their names.
func (c *Config) Targeted() (func(module string) bool, error) {
	if len(c.TargetModules.Names) == 0 && (c.TargetModules.Regex == "" || strings.EqualFold(c.TargetModules.Regex, allLinear)) {
		return nil, nil
	}
	target, err := c.TargetModules.matcher("target_modules")
	if err != nil {
		return nil, err
	}
	exclude, err := c.ExcludeModules.matcher("exclude_modules")
	if err != nil {
		return nil, err
	}
	var saved []pattern
	for _, s := range c.ModulesToSave {
		p, err := compile("modules_to_save", `(?:.*\.)?(?:`+s+`)(?:\..*)?`)
		if err != nil {
			return nil, err
		}
		saved = append(saved, p)
	}
	inLayer := func(string) bool { return true }
	if len(c.LayersToTransform) > 0 && c.TargetModules.Regex == "" {
		if inLayer, err = c.layerMatcher(); err != nil {
			return nil, err
		}
	}
	return func(module string) bool {
		if exclude(module) || slices.ContainsFunc(saved, func(p pattern) bool { return p.match(module) }) {
			return false
		}
		// A module that is named whole is meant in any layer.
		return slices.Contains(c.TargetModules.Names, module) || target(module) && inLayer(module)
	}, nil
}

// layerMatcher returns what tells whether a module is in one of the layers to
// transform.
func (c *Config) layerMatcher() (func(module string) bool, error) {
	names := c.LayersPattern.Names
	if c.LayersPattern.Regex != "" {
		names = []string{c.LayersPattern.Regex}
	}
	numbers := []*regexp.Regexp{firstNumber}
	if len(names) > 0 {
		numbers = nil
	}
	for _, n := range names {
		re, err := regexp.Compile(`^(?:|.*?\.)(?:` + n + `)\.(\d+)\.`)
		if err != nil {
			return nil, fmt.Errorf("layers_pattern: %w: %w", tensor.ErrUnsupported, err)
		}
		numbers = append(numbers, re)
	}
	return func(module string) bool {
		for _, re := range numbers {
			if found := re.FindStringSubmatch(module); found != nil {
				n, err := strconv.ParseInt(found[len(found)-1], 10, 64)
				return err == nil && slices.Contains(c.LayersToTransform, n)
			}
		}
		return false
	}, nil
}

// Patterns returns what gives the rank and the alpha of a module, or of a
// parameter, nil if they are r and lora_alpha everywhere. The first key that
// matches the end of a name counts (get_pattern_key in PEFT's utils/other.py).
func (c *Config) Patterns() (func(name string) (rank int64, alpha float64), error) {
	if len(c.RankPattern)+len(c.AlphaPattern) == 0 {
		return nil, nil
	}
	ranks, err := c.RankPattern.values("rank_pattern")
	if err != nil {
		return nil, err
	}
	alphas, err := c.AlphaPattern.values("alpha_pattern")
	if err != nil {
		return nil, err
	}
	for _, e := range c.RankPattern {
		if e.Value != float64(int64(e.Value)) || e.Value < 1 || e.Value > maxRank {
			return nil, fmt.Errorf("rank_pattern: %w: the rank of %q is %v", tensor.ErrMalformed, e.Key, e.Value)
		}
	}
	for _, e := range c.AlphaPattern {
		if e.Value == 0 || e.Value-e.Value != 0 {
			return nil, hint.Add(fmt.Errorf("alpha_pattern: %w: the alpha of %q is %v", tensor.ErrMalformed, e.Key, e.Value),
				"set it in adapter_config.json to that of the training")
		}
	}
	return func(name string) (int64, float64) {
		rank, alpha := c.R, c.LoraAlpha
		if v, ok := ranks(name); ok {
			rank = int64(v)
		}
		if v, ok := alphas(name); ok {
			alpha = v
		}
		return rank, alpha
	}, nil
}

// maxRank is more than any weight has.
const maxRank = 1 << 24

func (p Pattern) values(key string) (func(name string) (float64, bool), error) {
	var list []pattern
	for _, e := range p {
		one, err := compile(key, `(?:.*\.)?(?:`+e.Key+`)`)
		if err != nil {
			return nil, err
		}
		list = append(list, one)
	}
	return func(name string) (float64, bool) {
		for i, one := range list {
			if one.match(name) {
				return p[i].Value, true
			}
		}
		return 0, false
	}, nil
}

// SwapsExperts reports whether the PEFT that wrote the file exchanges the sides
// of the stacks of experts in target_parameters, as 0.19 and later do, and whether
// that is known.
func (c *Config) SwapsExperts() (swaps, known bool) {
	part := strings.SplitN(c.PeftVersion, ".", 3)
	if len(part) < 2 {
		return false, false
	}
	major, err := strconv.Atoi(part[0])
	if err != nil {
		return false, false
	}
	minor, err := strconv.Atoi(part[1])
	if err != nil {
		return false, false
	}
	return major > 0 || minor >= 19, true
}
