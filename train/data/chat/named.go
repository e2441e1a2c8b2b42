package chat

import (
	"embed"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"
)

//go:embed named/*.jinja
var named embed.FS

// templates are the well-known templates by name, with {% generation %} markers, for models that come without one.
var templates = sync.OnceValue(func() map[string]*Template {
	prelude := namedSource("prelude")
	all := map[string]*Template{}
	files, err := named.ReadDir("named")
	if err != nil {
		panic(err) // embedded
	}
	for _, f := range files {
		name := strings.TrimSuffix(f.Name(), ".jinja")
		if name == "prelude" {
			continue
		}
		t, err := Parse(prelude + namedSource(name))
		if err != nil {
			panic(name + ": " + err.Error())
		}
		all[name] = t
	}
	return all
})

func namedSource(name string) string {
	b, err := named.ReadFile(path.Join("named", name+".jinja"))
	if err != nil {
		panic(err) // embedded
	}
	return strings.TrimSuffix(string(b), "\n")
}

// Named is a well-known template, such as chatml.
func Named(name string) (*Template, bool) {
	t, ok := templates()[name]
	return t, ok
}

// Names are the templates that Named knows, sorted.
func Names() []string { return slices.Sorted(maps.Keys(templates())) }

// Source is the template as it was written, to be stored with a model.
func (t *Template) Source() string { return t.source }
