package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/spf13/pflag"
)

// about are the flags of train that say what is to be done with its settings, and those
// that say how it is told: none is a setting.
var about = []string{"config", "dry-run", "print-config", "print-schema", "help", "json", "quiet", "verbose"}

// settings returns the flags that a file of settings may have, in the order of --help.
func settings(flags *pflag.FlagSet) (list []*pflag.Flag) {
	flags.VisitAll(func(f *pflag.Flag) {
		if !f.Hidden && !slices.Contains(about, f.Name) {
			list = append(list, f)
		}
	})
	return list
}

// settingName is what a flag is called in a file of settings.
func settingName(f *pflag.Flag) string { return strings.ReplaceAll(f.Name, "-", "_") }

// printConfig writes every setting as YAML that --config reads: what it is, what set it if
// that was not the program, and its value. One without a value is a comment.
func printConfig(w io.Writer, flags *pflag.FlagSet, setBy map[string]string) error {
	for _, f := range settings(flags) {
		fmt.Fprintf(w, "# %s", f.Usage)
		if by := setBy[f.Name]; by != "" {
			fmt.Fprintf(w, " [from %s]", by)
		}
		fmt.Fprintln(w)
		value, err := yaml.MarshalWithOptions(settingValue(f), yaml.Flow(true))
		if err != nil {
			return fmt.Errorf("--%s: %w", f.Name, err)
		}
		if text := f.Value.String(); text == "" || text == "[]" || f.DefValue == "" && setBy[f.Name] == "" {
			fmt.Fprintf(w, "# %s:\n\n", settingName(f))
			continue
		}
		fmt.Fprintf(w, "%s: %s\n\n", settingName(f), strings.TrimSpace(string(value)))
	}
	return nil
}

// settingValue returns the value of a flag as YAML and JSON have it.
func settingValue(f *pflag.Flag) any {
	text := f.Value.String()
	switch v := f.Value.(type) {
	case pflag.SliceValue:
		return v.GetSlice()
	case *modulesFlag:
		return *v.list
	}
	switch schemaTypes[f.Value.Type()] {
	case "boolean":
		return text == "true"
	case "integer", "number":
		return yamlNumber(text)
	}
	return text
}

// yamlNumber is a number as YAML 1.1 and 1.2 both read it: with a point if it has an exponent.
type yamlNumber string

// MarshalYAML implements yaml.BytesMarshaler.
func (p yamlNumber) MarshalYAML() ([]byte, error) {
	text := string(p)
	if head, exp, ok := strings.Cut(text, "e"); ok && !strings.Contains(head, ".") {
		text = head + ".0e" + exp
	}
	return []byte(text), nil
}

// schemaTypes are JSON Schema's names for the types of flags; of the others the value is
// text.
var schemaTypes = map[string]string{
	"bool": "boolean", "int": "integer", "int64": "integer", "uint64": "integer", "float64": "number",
	"int64Slice": "array", "stringSlice": "array", "stringArray": "array", "names": "array",
}

// schema is a JSON Schema, as far as it is needed here.
type schema struct {
	Schema               string             `json:"$schema,omitempty"`
	Title                string             `json:"title,omitempty"`
	Description          string             `json:"description,omitempty"`
	Type                 any                `json:"type,omitempty"`
	Enum                 []string           `json:"enum,omitempty"`
	Items                *schema            `json:"items,omitempty"`
	Default              any                `json:"default,omitempty"`
	Properties           map[string]*schema `json:"properties,omitempty"`
	AdditionalProperties any                `json:"additionalProperties,omitempty"`
}

// printSchema writes the JSON Schema of train's files of settings, for editors.
func printSchema(w io.Writer, flags *pflag.FlagSet) error {
	s := &schema{
		Schema: "https://json-schema.org/draft/2020-12/schema", Title: "nibble train --config", Type: "object",
		Properties: make(map[string]*schema), AdditionalProperties: false,
	}
	for _, f := range settings(flags) {
		p := &schema{Description: f.Usage, Type: "string", Enum: f.Annotations[oneOf]}
		switch t := schemaTypes[f.Value.Type()]; {
		case t == "array":
			p.Type, p.Items = []string{"array", "string", "integer", "null"}, &schema{Type: []string{"string", "integer"}}
		case t != "":
			p.Type = []string{t, "null"}
		case f.Value.Type() == "size":
			p.Type = []string{"string", "integer", "null"}
		case f.Value.Type() == "pattern":
			p.Type, p.AdditionalProperties = []string{"object", "string", "null"}, &schema{Type: "number"}
		case p.Enum == nil:
			p.Type = []string{"string", "null"}
		}
		if f.DefValue != "" && f.DefValue != "[]" {
			p.Default = schemaDefault(p.Type, f.DefValue)
		}
		s.Properties[settingName(f)] = p
	}
	for _, other := range otherNames() {
		if p := s.Properties[strings.ReplaceAll(other.own, "-", "_")]; p != nil {
			alias := *p
			alias.Description, alias.Default = "the same as "+strings.ReplaceAll(other.own, "-", "_"), nil
			s.Properties[strings.ReplaceAll(other.name, "-", "_")] = &alias
		}
	}
	for name, says := range switchNames() {
		s.Properties[strings.ReplaceAll(name, "-", "_")] = &schema{Type: "boolean", Description: strings.ReplaceAll(says, "-", "_")}
	}
	s.Properties["datasets"] = &schema{Type: "array", Description: "as axolotl has it: the path of each is data"}
	for name, why := range moot {
		s.Properties[strings.ReplaceAll(name, "-", "_")] = &schema{Description: "not used: " + why}
	}
	for name := range mappings {
		s.Properties[strings.ReplaceAll(name, "-", "_")] = &schema{Type: []string{"object", "null"}, Description: "as mlx-lm has it"}
	}
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(s)
}

// schemaDefault returns the default of a flag as JSON.
func schemaDefault(types any, text string) any {
	list, _ := types.([]string)
	if slices.Contains(list, "array") {
		return strings.Split(strings.Trim(text, "[]"), ",")
	}
	if slices.Contains(list, "boolean") || slices.Contains(list, "integer") || slices.Contains(list, "number") {
		if b, err := strconv.ParseBool(text); err == nil && slices.Contains(list, "boolean") {
			return b
		}
		if n, err := strconv.ParseFloat(text, 64); err == nil {
			return n
		}
	}
	return text
}

// oneOf annotates a flag that takes one of a list of values.
const oneOf = "one of"

// enumerate says that a flag takes one of the values.
func enumerate(f *pflag.FlagSet, name string, values []string) {
	if err := f.SetAnnotation(name, oneOf, values); err != nil {
		panic(err) // there is no such flag
	}
}
