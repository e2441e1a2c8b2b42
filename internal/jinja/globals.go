package jinja

// maxRange is how many values a range may have, as in Jinja's sandbox.
const maxRange = 100_000

// The functions that every template can call.
var globals = map[string]*builtin{
	"range":           {name: "range", raw: makeRange},
	"dict":            {name: "dict", raw: func(r *run, _ Value, a values) Value { return r.makeDict("dict", a) }},
	"namespace":       {name: "namespace", raw: makeNamespace},
	"cycler":          {name: "cycler", raw: makeCycler},
	"joiner":          {name: "joiner", params: []string{"sep"}, call: makeJoiner},
	"raise_exception": {name: "raise_exception", params: []string{"message"}, required: 1, call: raise},
	"strftime_now":    {name: "strftime_now", params: []string{"format"}, required: 1, call: strftimeNow},
}

func makeRange(r *run, _ Value, a values) Value {
	p := a.positional
	if len(p) < 1 || len(p) > 3 || len(a.named) > 0 {
		r.fail("range expected 1 to 3 arguments, got %d", len(p))
	}
	g := rangeOf{step: 1}
	stop := r.intOr(p[0], 0)
	if len(p) > 1 {
		g.start, stop = stop, r.intOr(p[1], 0)
	}
	if len(p) > 2 {
		g.step = r.intOr(p[2], 1)
	}
	g.stop = stop
	switch {
	case g.step > 0 && stop > g.start:
		g.n = int64((uint64(stop-g.start)-1)/uint64(g.step) + 1)
	case g.step < 0 && stop < g.start:
		g.n = int64((uint64(g.start-stop)-1)/uint64(-g.step) + 1)
	case g.step == 0:
		r.fail("range() arg 3 must not be zero")
	}
	if g.n > maxRange || g.n < 0 {
		r.fail("Range too big. The sandbox blocks ranges larger than MAX_RANGE (%d).", maxRange)
	}
	return g
}

// makeDict is dict(...): of a dict or of pairs, and of keyword arguments.
func (r *run) makeDict(name string, a values) *Dict {
	d := NewDict()
	if len(a.positional) > 1 {
		r.fail("%s expected at most 1 argument, got %d", name, len(a.positional))
	}
	for _, v := range a.positional {
		if from, ok := v.(*Dict); ok {
			for i, k := range from.keys {
				r.setKey(d, k, from.values[i])
			}
			continue
		}
		for i, pair := range r.collect(v) {
			two := r.collect(pair)
			if len(two) != 2 {
				r.fail("dictionary update sequence element #%d has length %d; 2 is required", i, len(two))
			}
			r.setKey(d, two[0], two[1])
		}
	}
	for _, k := range a.named {
		r.setKey(d, k.name, k.value)
	}
	return d
}

func makeNamespace(r *run, _ Value, a values) Value {
	ns := &namespace{NewDict()}
	d := r.makeDict("namespace", a)
	for k, v := range d.All {
		r.setAttribute(ns, k, v)
	}
	return ns
}

func makeCycler(r *run, _ Value, a values) Value {
	if len(a.positional) == 0 {
		r.fail("at least one item has to be provided")
	}
	return &cycler{items: a.positional}
}

func makeJoiner(r *run, _ Value, a []Value) Value {
	return &joiner{sep: r.textOr(a[0], ", ")}
}

func raise(r *run, _ Value, a []Value) Value {
	r.at.fail(Raised, "%s", r.str(a[0]))
	return nil
}
