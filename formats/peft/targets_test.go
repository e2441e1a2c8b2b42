package peft

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/tensor"
)

// TestMatchesAreThoseOfPEFT compares which modules are meant, and which key of a
// pattern each has, with PEFT's own answers.
func TestMatchesAreThoseOfPEFT(t *testing.T) {
	var f struct {
		Names   []string
		Targets []struct {
			Config json.RawMessage
			Means  []string
		}
		Patterns []struct {
			Keys  []string
			Match map[string]string
		}
	}
	require.NoError(t, json.Unmarshal(read(t, "testdata/matches.json"), &f))
	require.NotEmpty(t, f.Targets)
	for _, c := range f.Targets {
		config := NewConfig()
		text, err := config.Encode()
		require.NoError(t, err)
		var def, own object
		require.NoError(t, json.Unmarshal(text, &def))
		require.NoError(t, json.Unmarshal(c.Config, &own))
		config, err = ParseConfig(def.with(t, own))
		require.NoError(t, err)
		means, err := config.Targeted()
		require.NoError(t, err)
		for _, n := range f.Names {
			require.Equal(t, slices.Contains(c.Means, n), means(n), "%s of %s", n, c.Config)
		}
	}
	for _, c := range f.Patterns {
		config := NewConfig()
		for i, key := range c.Keys {
			config.RankPattern = append(config.RankPattern, PatternEntry{key, float64(100 + i)})
			config.AlphaPattern = append(config.AlphaPattern, PatternEntry{key, 0.5 + float64(i)})
		}
		of, err := config.Patterns()
		require.NoError(t, err)
		for _, n := range f.Names {
			rank, alpha := of(n)
			key, ok := c.Match[n]
			if !ok {
				require.EqualValues(t, 8, rank, "%s by %q", n, c.Keys)
				require.Equal(t, 8.0, alpha)
				continue
			}
			require.EqualValues(t, 100+slices.Index(c.Keys, key), rank, "%s by %q", n, c.Keys)
			require.Equal(t, 0.5+float64(slices.Index(c.Keys, key)), alpha)
		}
	}
}

func TestMatchingErrors(t *testing.T) {
	for _, c := range []struct {
		set  func(c *Config)
		is   error
		want string
	}{
		{func(c *Config) { c.TargetModules.Regex = "(" }, tensor.ErrMalformed, "target_modules"},
		{func(c *Config) { c.TargetModules.Regex = `(a)\1` }, tensor.ErrUnsupported, "target_modules"},
		{func(c *Config) { c.TargetModules.Regex, c.ExcludeModules.Regex = "a", "[" }, tensor.ErrMalformed, "exclude_modules"},
		{func(c *Config) { c.TargetModules.Regex, c.ModulesToSave = "a", []string{"*"} }, tensor.ErrMalformed, "modules_to_save"},
		{func(c *Config) {
			c.TargetModules.Names, c.LayersToTransform, c.LayersPattern.Names = []string{"a"}, Layers{1}, []string{"("}
		}, tensor.ErrUnsupported, "layers_pattern"},
		{func(c *Config) { c.RankPattern = Pattern{{"(", 1}} }, tensor.ErrMalformed, "rank_pattern"},
		{func(c *Config) { c.RankPattern = Pattern{{"a", 1.5}} }, tensor.ErrMalformed, "1.5"},
		{func(c *Config) { c.RankPattern = Pattern{{"a", 0}} }, tensor.ErrMalformed, "the rank"},
		{func(c *Config) { c.AlphaPattern = Pattern{{"a", 0}} }, tensor.ErrMalformed, "the alpha"},
		{func(c *Config) { c.AlphaPattern = Pattern{{"[", 1}} }, tensor.ErrMalformed, "alpha_pattern"},
	} {
		config := NewConfig()
		c.set(config)
		_, err := config.Targeted()
		if err == nil {
			_, err = config.Patterns()
		}
		require.ErrorIs(t, err, c.is, "%s", c.want)
		require.ErrorContains(t, err, c.want)
	}
	config := NewConfig()
	for _, any := range []string{"", "all-linear", "All-Linear"} {
		config.TargetModules.Regex = any
		means, err := config.Targeted()
		require.NoError(t, err)
		require.Nil(t, means)
	}
}

func TestSwapsExperts(t *testing.T) {
	for version, want := range map[string][2]bool{
		"0.18.1": {false, true}, "0.19.0": {true, true}, "0.21.2": {true, true}, "1.0": {true, true},
		"0.20.1.dev0@5d602fd": {true, true}, "": {}, "main": {}, "x.y": {}, "1.x": {},
	} {
		swaps, known := (&Config{PeftVersion: version}).SwapsExperts()
		require.Equal(t, want, [2]bool{swaps, known}, "%q", version)
	}
}

// TestTokens reads and writes the forms of trainable_token_indices.
func TestTokens(t *testing.T) {
	for text, want := range map[string]Tokens{
		`null`: nil, `[3,1]`: {{"", []int64{3, 1}}}, `{"b":[1],"a":[]}`: {{"b", []int64{1}}, {"a", []int64{}}},
	} {
		var got Tokens
		require.NoError(t, got.UnmarshalJSON([]byte(text)))
		require.Equal(t, want, got)
		back, err := got.MarshalJSON()
		require.NoError(t, err)
		require.Equal(t, text, string(back))
	}
	for _, text := range []string{`3`, `"x"`, `[1.5]`, `{"a":1}`, `{"a":[1]`, `[`} {
		require.Error(t, new(Tokens).UnmarshalJSON([]byte(text)), "%s", text)
	}
}
