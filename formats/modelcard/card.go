package modelcard

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/seed18967229/nibble/formats/hf"
	"github.com/seed18967229/nibble/internal/safeio"
)

// The names of the files beside config.json.
const (
	ReadmeName     = "README.md"
	GenerationName = "generation_config.json"
)

const (
	maxConfig     = 16 << 20
	maxGeneration = 1 << 20
)

// A Card is what a model directory says about the model.
type Card struct {
	// Notes list what could not be read, a line each.
	Notes []string

	// Override is what the user says; nil is nothing.
	Override *Override

	card       *value // the front matter of README.md, nil without one
	generation *value // generation_config.json, nil without one
	nameOrPath *string
}

// Read reads README.md, generation_config.json and config.json of a directory;
// all of them may be missing. What is wrong with their content is noted, and the
// rest of the file left out; only a file system that fails is an error.
func Read(dir string) (*Card, error) {
	c := new(Card)
	text, truncated, err := c.file(filepath.Join(dir, ReadmeName), maxFrontMatter)
	if err != nil {
		return nil, err
	}
	if c.card, err = frontMatter(string(text), truncated); err != nil {
		c.note("%s: the YAML at its beginning is ignored: %v", ReadmeName, err)
	}

	if text, truncated, err = c.file(filepath.Join(dir, GenerationName), maxGeneration); err != nil {
		return nil, err
	}
	if text != nil {
		v, err := parseJSON(text)
		switch {
		case truncated:
			c.note("%s is ignored: it has more than %d bytes", GenerationName, maxGeneration)
		case err != nil:
			c.note("%s is ignored: %v", GenerationName, err)
		case v.kind != mapping:
			c.note("%s is ignored: %v, where there must be an object", GenerationName, v.kind)
		default:
			c.generation = v
		}
	}

	if text, _, err = c.file(filepath.Join(dir, hf.ConfigName), maxConfig); err != nil {
		return nil, err
	}
	c.readConfig(text)
	return c, nil
}

// readConfig takes the one key that says what the model is called. That
// config.json is sound is for others to check.
func (c *Card) readConfig(text []byte) {
	var config struct {
		NameOrPath jsontext.Value `json:"_name_or_path"`
	}
	if json.Unmarshal(text, &config, jsontext.AllowDuplicateNames(true)) != nil || config.NameOrPath == nil {
		return
	}
	var name *string
	if json.Unmarshal(config.NameOrPath, &name) != nil {
		c.note("%s: _name_or_path is ignored: it is not text", hf.ConfigName)
	}
	c.nameOrPath = name
}

// file returns the first limit bytes of a file and whether there are more, nil
// if it is not there or no regular file.
func (c *Card) file(path string, limit int64) (text []byte, truncated bool, err error) {
	f, size, err := safeio.OpenFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, safeio.ErrRefused):
		return nil, false, nil
	case err != nil:
		return nil, false, err
	}
	defer f.Close()
	text, err = io.ReadAll(io.LimitReader(f, limit))
	if err != nil {
		return nil, false, safeio.WithPath(path, err)
	}
	return text, size > limit, nil
}

func (c *Card) note(format string, args ...any) {
	c.Notes = append(c.Notes, fmt.Sprintf(format, args...))
}
