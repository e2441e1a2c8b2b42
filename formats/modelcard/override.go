package modelcard

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/safeio"
	"github.com/seed18967229/nibble/tensor"
)

// Override is what a user says in place of what the directory says.
type Override struct {
	// Name is the model's name; "" says nothing.
	Name string

	file *value // of ReadOverride
	path string
}

// The keys of an override's lists of entries, which are not those of GGUF.
const (
	overrideModels   = prefix + "base_models"
	overrideDatasets = prefix + "datasets"
)

// ReadOverride reads a JSON file that says what to write in place of what the
// directory says, by the keys of GGUF ("general.name"); null leaves a key out.
// general.base_models and general.datasets are lists of objects with the names
// that follow "general.base_model.0." in GGUF. It is the file that the
// reference takes with --metadata. A key that it would ignore is an error, and so
// is a value that it cannot write.
func ReadOverride(path string) (*Override, error) {
	text, err := safeio.ReadFile(path, maxGeneration)
	if errors.Is(err, safeio.ErrRefused) {
		err = fmt.Errorf("%w: %w", tensor.ErrMalformed, err)
	}
	if err != nil {
		return nil, err
	}
	return parseOverride(path, text)
}

func parseOverride(path string, text []byte) (*Override, error) {
	v, err := parseJSON(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w: not JSON: %w", path, tensor.ErrMalformed, err)
	}
	if v.kind != mapping {
		return nil, fmt.Errorf("%s: %w: %v, where there must be an object", path, tensor.ErrMalformed, v.kind)
	}
	o := &Override{file: v, path: path}
	for _, key := range slices.Sorted(maps.Keys(v.fields)) {
		if err := o.check(key, v.fields[key]); err != nil {
			return nil, err
		}
	}
	return o, nil
}

// targets are the fields that an override can set, by key. The licence is not
// among them in the reference.
var targets = func() map[string]string {
	out := make(map[string]string)
	for _, s := range sampling {
		out[prefix+s.field] = s.field
	}
	for _, t := range texts {
		if t.field != "license" {
			out[prefix+t.key] = t.field
		}
	}
	for _, l := range lists {
		out[prefix+l.key] = l.field
	}
	return out
}()

// check applies one key alone and refuses what would be noted.
func (o *Override) check(key string, v *value) error {
	f := &facts{fields: make(map[string]*value)}
	field, known := targets[key]
	switch {
	case key == overrideModels || key == overrideDatasets:
		entries, err := overrideEntries(v)
		if err != nil {
			return fmt.Errorf("%s: %w: %q is %w", o.path, tensor.ErrMalformed, key, err)
		}
		f.models = entries
	case !known:
		names := append(slices.Collect(maps.Keys(targets)), overrideModels, overrideDatasets)
		slices.Sort(names)
		return hint.Add(fmt.Errorf("%s: %w: %q is no key that can be set", o.path, tensor.ErrUnsupported, key), "there are: %s", strings.Join(names, ", "))
	case (field == "tags" || field == "languages") && v.kind != list && v.kind != null:
		return fmt.Errorf("%s: %w: %q is %v, where there must be a list", o.path, tensor.ErrMalformed, key, v.kind)
	default:
		f.fields[field] = v
	}
	f.meta()
	if len(f.notes) > 0 {
		return fmt.Errorf("%s: %w: %s", o.path, tensor.ErrMalformed, f.notes[0])
	}
	return nil
}

// overrideEntries returns the entries of a list, nil of null.
func overrideEntries(v *value) ([]entry, error) {
	if v.kind == null {
		return nil, nil
	}
	if v.kind != list {
		return nil, fmt.Errorf("%v, where there must be a list", v.kind)
	}
	entries := []entry{}
	for _, e := range v.list {
		if e.kind != mapping {
			return nil, fmt.Errorf("a list in which there is %v, where there must be an object", e.kind)
		}
		entries = append(entries, e.fields)
	}
	return entries, nil
}

// apply sets what the override says.
func (o *Override) apply(f *facts) {
	for key, field := range targets {
		if v, ok := o.file.get(key); ok {
			f.fields[field] = v
		}
	}
	if v, ok := o.file.get(overrideModels); ok {
		f.models, _ = overrideEntries(v) // checked
	}
	if v, ok := o.file.get(overrideDatasets); ok {
		f.datasets, _ = overrideEntries(v)
	}
	if o.Name != "" {
		f.fields["name"] = text(o.Name)
	}
}
