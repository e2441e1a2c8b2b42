package main

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/seed18967229/nibble/formats/ollama"
	"github.com/seed18967229/nibble/formats/vocab"
	"github.com/seed18967229/nibble/internal/fsx"
)

// modelfile is what is said to Ollama of the GGUF files that a run exports.
type modelfile struct {
	ollama.Modelfile
	notes []string
}

// ollamaContext is the length of the context that Ollama gives a model of which nothing is
// said, unless it is that of the training that was longer.
const ollamaContext = 4096

// newModelfile finds out what there is to say of a model.
func newModelfile(m *model, v *vocab.Vocab, talk *talk, o *trainOptions) *modelfile {
	f := &modelfile{}
	f.NumCtx = max(ollamaContext, o.MaxSeqLength)
	if context := int(m.arch.MaxPositionEmbeddings); context > 0 {
		f.NumCtx = min(f.NumCtx, context)
	}
	t, known := talk.ollama()
	switch {
	case known:
		f.Template, f.System, f.Stop = t.Text, t.System, t.Stop
		f.Comments = append(f.Comments, fmt.Sprintf("The template is that of the model for conversations without tools (%s).", t.Name))
	case talk.template != nil:
		if talk.eos != "" {
			f.Stop = []string{talk.eos}
		}
		f.notes = append(f.notes, "the Modelfile has no TEMPLATE: the model's chat template is none of those that nibble knows in Ollama's language, and Ollama looks at the one in the GGUF file itself")
	default:
		// Without a template Ollama hands on the prompt as it is.
		f.notes = append(f.notes, "the model has no chat template: in Ollama it continues texts, and does not chat")
	}
	return f
}

// ollama returns the chat template in Ollama's language, false if there is none or one that
// is not known.
func (t *talk) ollama() (ollama.Template, bool) {
	if t.template == nil {
		return ollama.Template{}, false
	}
	return ollama.Match(func(list []ollama.Message) (string, error) { return t.render(nil, list...) }, t.bos, t.eos)
}

// pieceOf returns the text of a special token, "" for none.
func pieceOf(v *vocab.Vocab, id int32) string {
	if id < 0 || int(id) >= len(v.Pieces) {
		return ""
	}
	return v.Pieces[id].Text
}

// write writes the Modelfile beside a GGUF file that was exported, and returns its name.
func (f *modelfile) write(e *export, o *trainOptions) (string, error) {
	m := f.Modelfile
	beside := "./" + filepath.Base(e.Out)
	if e.kind.name == "adapter-gguf" {
		base, err := filepath.Abs(o.model)
		if err != nil {
			return "", err
		}
		m.From, m.Adapter = base, beside
		m.Comments = append([]string{"FROM is the model that the adapter was trained on. Ollama takes a .gguf file, or a directory of plain safetensors of the families that it knows."}, m.Comments...)
	} else {
		m.From = beside
	}
	m.Comments = append([]string{fmt.Sprintf("Written by nibble %s: ollama create NAME -f %s", version, filepath.Base(modelfileName(e)))}, m.Comments...)
	text, err := m.Encode()
	if err != nil {
		return "", err
	}
	return modelfileName(e), fsx.WriteFile(modelfileName(e), text, true)
}

func modelfileName(e *export) string { return strings.TrimSuffix(e.Out, e.kind.end) + ".Modelfile" }
