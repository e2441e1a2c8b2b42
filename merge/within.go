package merge

// Within returns the deltas that a change is made of, whatever else it does with
// them: of DoRA what it adds before it scales. added says that it adds them and
// rounds, and nothing else.
func Within(c Change) (list []Delta, added bool) {
	added = true
	each(c, func(one Change) {
		switch one.(type) {
		case *sum, *rounded:
		default:
			added = false
		}
	})
	return deltasIn(c), added
}

// each calls f with the changes of which one consists.
func each(c Change, f func(Change)) {
	if list, ok := c.(chain); ok {
		for _, one := range list {
			each(one, f)
		}
		return
	}
	f(c)
}
