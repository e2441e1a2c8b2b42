package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/spf13/pflag"

	"github.com/seed18967229/nibble/internal/hint"
)

// applyConfig sets flags from a YAML file: a mapping of flag names, with dashes
// or underscores, and returns which it set. A flag that stands on the command line wins
// over the file. A key that is no flag is an error that names the nearest one.
func applyConfig(path string, flags *pflag.FlagSet) (set []string, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, badUsage(err)
	}
	var entries yaml.MapSlice
	if err := yaml.UnmarshalWithOptions(text, &entries, yaml.UseOrderedMap()); err != nil {
		return nil, badUsage(fmt.Errorf("%s: %s", path, firstLine(yaml.FormatError(err, false, false))))
	}
	for _, e := range entries {
		key := fmt.Sprint(e.Key)
		f := flags.Lookup(strings.ReplaceAll(key, "_", "-"))
		if f == nil || f.Name == "config" || f.Name == "help" {
			return nil, badUsage(unknownKey(path, key, flags))
		}
		if f.Changed {
			continue
		}
		err := setFlag(f, e.Value)
		if err != nil {
			return nil, badUsage(fmt.Errorf("%s: %s: %w", path, key, err))
		}
		set = append(set, f.Name)
	}
	return set, nil
}

// setFlag sets a flag to a YAML value. A list becomes a list, whatever is in its elements.
func setFlag(f *pflag.Flag, v any) error {
	if paths, ok := f.Value.(*pathsFlag); ok {
		return paths.setAll(v)
	}
	items, ok := v.([]any)
	list, takes := f.Value.(pflag.SliceValue)
	if !ok || !takes {
		text, err := flagText(v)
		if err != nil {
			return err
		}
		return f.Value.Set(text)
	}
	var texts []string
	for _, x := range items {
		text, err := flagText(x)
		if err != nil {
			return err
		}
		texts = append(texts, text)
	}
	return list.Replace(texts)
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
	best, distance := "", len(key)+1
	flags.VisitAll(func(f *pflag.Flag) {
		if d := editDistance(strings.ReplaceAll(key, "_", "-"), f.Name); d < distance {
			best, distance = f.Name, d
		}
	})
	return hint.Add(fmt.Errorf("%s: unknown key %q", path, key), "did you mean %q?", strings.ReplaceAll(best, "-", "_"))
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
