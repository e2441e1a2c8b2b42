// Package chat turns conversations into the text a model was trained on, as transformers' apply_chat_template does, and says which
// of that text the assistant wrote. Templates are Jinja and not trusted; internal/jinja bounds what they may do.
package chat
