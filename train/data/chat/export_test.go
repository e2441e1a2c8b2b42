package chat

// Ways tells how many turns of a conversation that Spans can do are found by prefixes and how many by alignment.
func (t *Template) Ways(in Input) (prefixes, aligned int) {
	c, err := in.conversation()
	if err != nil {
		return 0, 0
	}
	text, _, _, err := t.render(c, c.messages, false, false)
	if err != nil {
		return 0, 0
	}
	f := finder{t: t, c: c, text: text, known: map[prefix]rendering{}}
	for i := range c.messages {
		if f.role(i) != "assistant" {
			continue
		}
		s, ok := f.byPrefixes(i)
		if ok && s.From >= f.end {
			prefixes++
		} else if s, ok = f.byAlignment(i); ok && s.From >= f.end && s.To > s.From {
			aligned++
		} else {
			continue
		}
		f.end = f.closed(i, s.To)
	}
	return prefixes, aligned
}
