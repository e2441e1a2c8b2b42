package data

import (
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// Chat is what a chat template makes text of.
type Chat struct {
	Messages jsontext.Value // a list of objects with a role and a content
	Tools    jsontext.Value // a list, or nil
	BOS, EOS string
	Vars     map[string]any
	Now      time.Time
}

// Template makes text of chats. It is safe for concurrent use.
type Template interface {
	Render(c Chat) (string, error)

	// Spans is Render and where in the text the assistant's turns are, in order.
	Spans(c Chat) (text string, assistant []Span, err error)
}

// Span is a part of a text in bytes.
type Span struct{ From, To int }
