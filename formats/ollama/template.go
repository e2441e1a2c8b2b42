package ollama

import (
	"strings"
	"text/template"
)

// Message is a part of a conversation.
type Message struct{ Role, Content string }

// The roles of messages.
const (
	System    = "system"
	User      = "user"
	Assistant = "assistant"
)

// Template is a chat template as Ollama has them.
type Template struct {
	// Name is what the format is called, Text what makes it.
	Name, Text string

	// System is what is said for the system where a conversation does not.
	System string

	// Stop are the texts that end an answer.
	Stop []string
}

// A format is a way of writing conversations. In its texts $BOS and $EOS stand for the
// model's tokens; the one that begins all of it is not in it, for Ollama adds that.
type format struct {
	name, text string
	stop       []string
}

// formats are those that are known. The first that makes the same of all conversations is
// taken.
var formats = []format{
	{"chatml", "{{ range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}<|im_start|>assistant\n", []string{"<|im_end|>", "<|im_start|>"}},
	{"chatml, thinking", "{{ range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}<|im_start|>assistant\n<think>\n", []string{"<|im_end|>", "<|im_start|>"}},
	{"chatml without roles of the system", `{{ range .Messages }}{{ if eq .Role "user" }}<|im_start|>user` + "\n{{ .Content }}<|im_end|>\n<|im_start|>assistant\n" +
		`{{ else if eq .Role "assistant" }}{{ .Content }}<|im_end|>` + "\n{{ else }}{{ .Content }}{{ end }}{{ end }}", []string{"<|im_end|>", "<|im_start|>"}},
	{"llama3-instruct", "{{ range .Messages }}<|start_header_id|>{{ .Role }}<|end_header_id|>\n\n{{ .Content }}<|eot_id|>{{ end }}<|start_header_id|>assistant<|end_header_id|>\n\n",
		[]string{"<|eot_id|>", "<|start_header_id|>"}},
	{"llama3.1-instruct", "<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n{{ .System }}<|eot_id|>" +
		`{{ range .Messages }}{{ if ne .Role "system" }}<|start_header_id|>{{ .Role }}<|end_header_id|>` + "\n\n{{ .Content }}<|eot_id|>{{ end }}{{ end }}<|start_header_id|>assistant<|end_header_id|>\n\n",
		[]string{"<|eot_id|>", "<|eom_id|>", "<|start_header_id|>"}},
	{"gemma-instruct", `{{ range .Messages }}<start_of_turn>{{ if eq .Role "assistant" }}model{{ else }}user{{ end }}` + "\n{{ .Content }}<end_of_turn>\n{{ end }}<start_of_turn>model\n",
		[]string{"<end_of_turn>", "<start_of_turn>"}},
	{"phi-3", "{{ range .Messages }}<|{{ .Role }}|>\n{{ .Content }}<|end|>\n{{ end }}<|assistant|>\n", []string{"<|end|>", "<|user|>", "<|assistant|>"}},
	{"phi-3 without a system", `{{ range .Messages }}{{ if ne .Role "system" }}<|{{ .Role }}|>` + "\n{{ .Content }}<|end|>\n{{ end }}{{ end }}<|assistant|>\n", []string{"<|end|>", "<|user|>", "<|assistant|>"}},
	{"zephyr", "{{ range .Messages }}<|{{ .Role }}|>\n{{ .Content }}$EOS\n{{ end }}<|assistant|>\n", []string{"<|user|>", "<|system|>", "<|assistant|>"}},
	{"zephyr without ends of the user", `{{ range .Messages }}{{ if eq .Role "user" }}<|user|>` + "\n{{ .Content }}\n" + `{{ else if eq .Role "assistant" }}<|assistant|>` + "\n{{ .Content }}$EOS\n{{ end }}{{ end }}<|assistant|>\n",
		[]string{"<|user|>", "<|assistant|>"}},
	{"mistral-instruct", `{{ range .Messages }}{{ if eq .Role "assistant" }}{{ .Content }}$EOS{{ else }}[INST] {{ .Content }} [/INST]{{ end }}{{ end }}`, []string{"[INST]", "[/INST]"}},
	{"mistral-instruct, spaced", `{{ range .Messages }}{{ if eq .Role "assistant" }}{{ .Content }}$EOS {{ else }}[INST] {{ .Content }} [/INST]{{ end }}{{ end }}`, []string{"[INST]", "[/INST]"}},
	{"mistral-instruct with a system prompt", `{{ range .Messages }}{{ if eq .Role "system" }}[SYSTEM_PROMPT]{{ .Content }}[/SYSTEM_PROMPT]{{ else if eq .Role "assistant" }}{{ .Content }}$EOS{{ else }}[INST]{{ .Content }}[/INST]{{ end }}{{ end }}`,
		[]string{"[INST]", "[/INST]"}},
	{"llama2-chat", `{{ $first := true }}{{ range .Messages }}{{ if eq .Role "user" }}{{ if not $first }}$BOS{{ end }}[INST] ` +
		"{{ if and $first $.System }}<<SYS>>\n{{ $.System }}\n<</SYS>>\n\n{{ end }}{{ $first = false }}{{ .Content }} [/INST]" +
		`{{ else if eq .Role "assistant" }} {{ .Content }} $EOS{{ end }}{{ end }}`, []string{"[INST]", "<<SYS>>"}},
	{"openchat", `{{ range .Messages }}GPT4 Correct {{ if eq .Role "user" }}User{{ else if eq .Role "assistant" }}Assistant{{ else }}System{{ end }}: {{ .Content }}<|end_of_turn|>{{ end }}GPT4 Correct Assistant:`,
		[]string{"<|end_of_turn|>"}},
	{"solar-instruct", `{{ range .Messages }}{{ if eq .Role "user" }}### User:` + "\n{{ .Content }}\n\n" + `{{ else if eq .Role "assistant" }}### Assistant:` + "\n{{ .Content }}{{ else }}### System:\n{{ .Content }}\n\n{{ end }}{{ end }}### Assistant:\n",
		[]string{"### User:", "### System:", "### Assistant:"}},
	{"granite-instruct", `{{ range .Messages }}{{ if eq .Role "user" }}Question:{{ else if eq .Role "assistant" }}Answer:{{ else }}System:{{ end }}` + "\n{{ .Content }}\n\n{{ end }}Answer:\n", []string{"Question:", "System:", "Answer:"}},
	{"granite-3-instruct", "{{ range .Messages }}<|start_of_role|>{{ .Role }}<|end_of_role|>{{ .Content }}<|end_of_text|>\n{{ end }}<|start_of_role|>assistant<|end_of_role|>", []string{"<|end_of_text|>", "<|start_of_role|>"}},
	{"chatqa", `{{ range .Messages }}{{ if eq .Role "user" }}User: {{ .Content }}` + "\n\n" + `{{ else if eq .Role "assistant" }}Assistant: {{ .Content }}$EOS{{ else }}{{ .Content }}` + "\n\n{{ end }}{{ end }}Assistant:", []string{"User:", "Assistant:"}},
	{"rwkv-world", `{{ range .Messages }}{{ if eq .Role "user" }}User: {{ else if eq .Role "assistant" }}Assistant: {{ else }}System: {{ end }}{{ .Content }}` + "\n\n{{ end }}Assistant:", []string{"User:", "Assistant:"}},
	{"falcon-instruct", `{{ range .Messages }}{{ if eq .Role "user" }}User: ` + "\n" + `{{ else if eq .Role "assistant" }}Falcon:` + "\n{{ else }}System: {{ end }}{{ .Content }}\n{{ end }}Falcon:\n", []string{"User:", "Falcon:"}},
	{"falcon-instruct, in lines", `{{ range .Messages }}{{ if eq .Role "user" }}User: {{ else if eq .Role "assistant" }}Falcon: {{ else }}System: {{ end }}{{ .Content }}` + "\n{{ end }}Falcon:", []string{"User:", "Falcon:"}},
	{"alfred", "{{ range .Messages }}<start_{{ .Role }}>{{ .Content }}<end_message>{{ end }}<start_assistant>", []string{"<end_message>"}},
	{"magicoder", coding + `{{ range .Messages }}{{ if eq .Role "assistant" }}@@ Response` + "\n{{ .Content }}$EOS\n\n{{ else }}@@ Instruction\n{{ .Content }}\n\n{{ end }}{{ end }}@@ Response\n", []string{"@@ Instruction", "@@ Response"}},
	{"starcoder2-instruct", coding + `{{ range .Messages }}{{ if eq .Role "assistant" }}### Response` + "\n{{ .Content }}$EOS\n\n{{ else }}### Instruction\n{{ .Content }}\n\n{{ end }}{{ end }}### Response\n", []string{"### Instruction", "### Response"}},
	{"deepseek-r1", `{{ range .Messages }}{{ if eq .Role "user" }}<｜User｜>{{ .Content }}{{ else if eq .Role "assistant" }}<｜Assistant｜>{{ .Content }}<｜end▁of▁sentence｜>{{ else }}{{ .Content }}{{ end }}{{ end }}<｜Assistant｜><think>` + "\n",
		[]string{"<｜User｜>", "<｜end▁of▁sentence｜>"}},
	{"kimi", "{{ range .Messages }}<|im_{{ .Role }}|>{{ .Role }}<|im_middle|>{{ .Content }}<|im_end|>{{ end }}<|im_assistant|>assistant<|im_middle|>", []string{"<|im_end|>"}},
	{"seed-oss", "{{ range .Messages }}<seed:bos>{{ .Role }}\n{{ .Content }}<seed:eos>{{ end }}<seed:bos>assistant\n", []string{"<seed:eos>"}},
}

const coding = "You are an exceptionally intelligent coding assistant that consistently delivers accurate and reliable responses to user instructions.\n\n"

// talks are the conversations that a template is told by: with and without the system,
// the first answer and a later one.
var talks = [][]Message{
	{{User, "How are you?"}},
	{{User, "How are you?"}, {Assistant, "Fine."}, {User, "Good to hear.\n\nWhy?"}},
	{{System, "Be short."}, {User, "How are you?"}},
	{{System, "Be short."}, {User, "How are you?"}, {Assistant, "Fine."}, {User, "Why?"}, {Assistant, "I slept."}, {User, "So did I."}},
}

// Match returns the template that makes of conversations what render does, which is the
// model's own; bos and eos are its tokens, "" for none. A conversation with a system, but
// not another, may be one that render refuses. It is false if there is no such template.
func Match(render func(talk []Message) (string, error), bos, eos string) (Template, bool) {
	want := make([]*string, len(talks))
	for i, talk := range talks {
		text, err := render(talk)
		switch {
		case err == nil:
			text = strings.TrimPrefix(text, bos)
			want[i] = &text
		case talk[0].Role != System:
			return Template{}, false
		}
	}
	for _, f := range formats {
		text := strings.NewReplacer("$BOS", bos, "$EOS", eos).Replace(f.text)
		t, err := template.New(f.name).Parse(text)
		if err != nil {
			continue // a token that is no text for a template
		}
		if system, ok := same(t, want); ok {
			return Template{Name: f.name, Text: text, System: system, Stop: f.stop}, true
		}
	}
	return Template{}, false
}

// same reports whether a template makes what is wanted of all conversations, and what it
// must say for the system to do so.
func same(t *template.Template, want []*string) (system string, ok bool) {
	first, err := Render(t, talks[0], "")
	if err != nil {
		return "", false
	}
	if first != *want[0] {
		// What a template says for the system stands where another one would.
		const here = "\x00"
		with, err := Render(t, talks[0], here)
		before, after, found := strings.Cut(with, here)
		if err != nil || !found || !strings.HasPrefix(*want[0], before) || !strings.HasSuffix(*want[0], after) || len(*want[0]) <= len(before)+len(after) {
			return "", false
		}
		system = (*want[0])[len(before) : len(*want[0])-len(after)]
	}
	for i, talk := range talks {
		if want[i] == nil {
			continue
		}
		if got, err := Render(t, talk, system); err != nil || got != *want[i] {
			return "", false
		}
	}
	return system, true
}

// Render makes the text of a conversation as Ollama does: what is said for the system is
// its first message unless the conversation has one.
func Render(t *template.Template, talk []Message, system string) (string, error) {
	if talk[0].Role == System {
		system = talk[0].Content
	} else if system != "" {
		talk = append([]Message{{System, system}}, talk...)
	}
	var b strings.Builder
	err := t.Execute(&b, struct {
		Messages []Message
		System   string
	}{talk, system})
	return b.String(), err
}
