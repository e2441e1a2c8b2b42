package main

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/spf13/pflag"

	"github.com/seed18967229/nibble/internal/hint"
)

// applyConfig sets flags from a YAML file: a mapping of flag names, with dashes or
// underscores, or as the peers spell them, and returns which it set and what is worth
// knowing about it. A flag that stands on the command line wins over the file. A key
// that is no flag is an error that names the nearest one.
func applyConfig(path string, flags *pflag.FlagSet) (set, notes []string, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, badUsage(err)
	}
	var entries yaml.MapSlice
	if err := yaml.UnmarshalWithOptions(text, &entries, yaml.UseOrderedMap()); err != nil {
		return nil, nil, badUsage(fmt.Errorf("%s: %s", path, firstLine(yaml.FormatError(err, false, false))))
	}
	by := make(map[string]string) // flags that are set, with the key that did
	slices.SortStableFunc(entries, func(a, b yaml.MapItem) int { return isMapping(a) - isMapping(b) })
	for _, e := range entries {
		key := fmt.Sprint(e.Key)
		name := string(spelled(flags, key))
		list, more, err := entriesOf(name, e)
		if err != nil {
			return nil, nil, badUsage(fmt.Errorf("%s: %s: %w", path, key, err))
		}
		notes = append(notes, more...)
		for _, e := range list {
			f := flags.Lookup(fmt.Sprint(e.Key))
			if f == nil || f.Name == "config" || f.Name == "help" {
				return nil, nil, badUsage(unknownKey(path, key, flags))
			}
			switch {
			case by[f.Name] != "" && mappings[name] == nil: // which says more than a key of its own
				return nil, nil, badUsage(hint.Add(fmt.Errorf("%s: %s and %s both set --%s", path, by[f.Name], key, f.Name), "keep one of them"))
			case f.Changed || e.Value == nil: // null leaves it as it is
				continue
			}
			if err := setValue(f, e.Value); err != nil {
				return nil, nil, badUsage(fmt.Errorf("%s: %s: %w", path, key, err))
			}
			by[f.Name] = key
			set = append(set, f.Name)
		}
	}
	return set, notes, nil
}

// isMapping is 1 if an entry stands for several flags: it comes after the others.
func isMapping(e yaml.MapItem) int {
	if mappings[string(spelled(nil, fmt.Sprint(e.Key)))] != nil {
		return 1
	}
	return 0
}

// entriesOf returns the flags that an entry stands for: most for one, mappings of mlx-lm
// for several, and what asks for nothing here for none.
func entriesOf(name string, e yaml.MapItem) (list []yaml.MapItem, notes []string, err error) {
	m, mapping := e.Value.(yaml.MapSlice)
	read, known := mappings[name]
	switch {
	case known && mapping:
		return read(m)
	case known && e.Value == nil:
		return nil, nil, nil
	case known:
		return nil, nil, fmt.Errorf("%v, where a mapping is wanted", e.Value)
	case name == "datasets":
		return datasets(e.Value)
	case name == "adapter" && (e.Value == "lora" || e.Value == "qlora"): // axolotl's way to say what is trained
		return []yaml.MapItem{{Key: "fine-tune-type", Value: "lora"}}, nil, nil
	case moot[name] != "":
		return nil, []string{fmt.Sprintf("%v: not used: %s", e.Key, moot[name])}, nil
	}
	if list, ok, err := switched(name, e.Value); ok {
		return list, nil, err
	}
	return []yaml.MapItem{{Key: name, Value: e.Value}}, nil, nil
}

// setValue sets a flag to a YAML value.
func setValue(f *pflag.Flag, v any) error {
	parts, isList := v.([]any)
	if list, ok := f.Value.(pflag.SliceValue); ok && isList {
		texts := make([]string, len(parts))
		for i, x := range parts {
			var err error
			if texts[i], err = flagText(x); err != nil {
				return err
			}
		}
		return list.Replace(texts)
	}
	text, err := flagText(v)
	if err != nil {
		return err
	}
	if other, ok := valuesElsewhere[f.Name][text]; ok {
		text = other
	}
	return f.Value.Set(text)
}

// flagText writes a YAML value as the command line would.
func flagText(v any) (string, error) {
	switch v := v.(type) {
	case nil:
		return "", errors.New("the value is missing")
	case []any:
		var parts []string
		for _, x := range v {
			s, err := flagText(x)
			if err != nil {
				return "", err
			}
			parts = append(parts, s)
		}
		return strings.Join(parts, ","), nil
	case yaml.MapSlice:
		var parts []string
		for _, e := range v {
			switch e.Value.(type) {
			case nil, []any, yaml.MapSlice, map[string]any:
				return "", fmt.Errorf("%v: not a value", e.Key)
			}
			parts = append(parts, fmt.Sprintf("%v=%v", e.Key, e.Value))
		}
		return strings.Join(parts, ","), nil
	case map[string]any:
		return "", errors.New("a mapping, where a value or a list is wanted")
	}
	return fmt.Sprint(v), nil
}

func unknownKey(path, key string, flags *pflag.FlagSet) error {
	err := fmt.Errorf("%s: unknown key %q", path, key)
	if near := nearest(strings.ReplaceAll(key, "_", "-"), flags); near != "" {
		return hint.Add(err, "did you mean %q?", strings.ReplaceAll(near, "-", "_"))
	}
	return hint.Add(err, "nibble train --print-config lists the keys; take this one out if it asks for nothing")
}

// nearest returns the flag, or what it is called elsewhere, whose name is most like a name,
// "" if none is much like it.
func nearest(name string, flags *pflag.FlagSet) string {
	best, distance := "", 1+len(name)/3
	near := func(other string) {
		if d := editDistance(name, other); d < distance {
			best, distance = other, d
		}
	}
	flags.VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			near(f.Name)
		}
	})
	if flags.Lookup("grad-accumulation-steps") != nil { // train, whose flags have other names too
		for _, other := range slices.Sorted(maps.Keys(spellings)) {
			near(other)
		}
	}
	return best
}

// editDistance is Levenshtein's.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		last := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := last
			if a[i] != b[j] {
				cost = 1 + min(last, row[j], row[j+1])
			}
			last, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}
