package jinja

import "unicode"

var tests = func() map[string]*builtin {
	all := testTable.builtins()
	for name, same := range map[string]string{
		"equalto": "eq", "==": "eq", "!=": "ne", ">": "gt", "greaterthan": "gt", ">=": "ge", "<": "lt", "lessthan": "lt", "<=": "le",
	} {
		all[name] = all[same]
	}
	return all
}()

func comparing(op string) func(r *run, self Value, a []Value) Value {
	return func(r *run, self Value, a []Value) Value { return r.compare(op, self, a[0]) }
}

func isBool(b bool) func(r *run, self Value, a []Value) Value {
	return func(r *run, self Value, _ []Value) Value { return self == b }
}

func remainder(r *run, v Value, by int64) Value {
	return r.binary("%", v, by)
}

var testTable = table{
	"eq other": comparing("=="),
	"ne other": comparing("!="),
	"lt other": comparing("<"),
	"le other": comparing("<="),
	"gt other": comparing(">"),
	"ge other": comparing(">="),
	"in seq":   comparing("in"),
	"true":     isBool(true),
	"false":    isBool(false),
	"none":     func(r *run, self Value, _ []Value) Value { return self == nil },
	"boolean": func(r *run, self Value, _ []Value) Value {
		_, ok := self.(bool)
		return ok
	},
	"defined": func(r *run, self Value, _ []Value) Value {
		_, ok := self.(*undefined)
		return !ok
	},
	"undefined": func(r *run, self Value, _ []Value) Value {
		_, ok := self.(*undefined)
		return ok
	},
	"integer": func(r *run, self Value, _ []Value) Value {
		_, ok := self.(int64)
		return ok
	},
	"float": func(r *run, self Value, _ []Value) Value {
		_, ok := self.(float64)
		return ok
	},
	"number": func(r *run, self Value, _ []Value) Value {
		_, ok := number(self)
		return ok
	},
	"string": func(r *run, self Value, _ []Value) Value {
		_, ok := stringOf(self)
		return ok
	},
	"mapping": func(r *run, self Value, _ []Value) Value {
		_, ok := self.(*Dict)
		return ok
	},
	"sequence": func(r *run, self Value, _ []Value) Value {
		switch self.(type) {
		case string, markup, *List, *Tuple, *Dict, rangeOf, *undefined:
			return true
		}
		return false
	},
	"iterable": func(r *run, self Value, _ []Value) Value {
		switch self.(type) {
		case string, markup, *List, *Tuple, *Dict, rangeOf, *view, *iterator, *undefined, *loop:
			return true
		}
		return false
	},
	"callable": func(r *run, self Value, _ []Value) Value {
		switch self.(type) {
		case function, *macro, *joiner, *loop, *undefined:
			return true
		}
		return false
	},
	"escaped": func(r *run, self Value, _ []Value) Value {
		_, ok := self.(markup)
		return ok
	},
	"sameas other": func(r *run, self Value, a []Value) Value { return typeName(self) == typeName(a[0]) && same(self, a[0]) },
	"odd":          func(r *run, self Value, _ []Value) Value { return r.equal(remainder(r, self, 2), int64(1)) },
	"even":         func(r *run, self Value, _ []Value) Value { return r.equal(remainder(r, self, 2), int64(0)) },
	"divisibleby num": func(r *run, self Value, a []Value) Value {
		return r.equal(r.binary("%", self, a[0]), int64(0))
	},
	"upper": func(r *run, self Value, _ []Value) Value { return cased(r.str(self), unicode.IsUpper) },
	"lower": func(r *run, self Value, _ []Value) Value { return cased(r.str(self), unicode.IsLower) },
	"filter": func(r *run, self Value, _ []Value) Value {
		s, _ := stringOf(self)
		return r.filters[s] != nil
	},
	"test": func(r *run, self Value, _ []Value) Value {
		s, _ := stringOf(self)
		return r.tests[s] != nil
	},
}
