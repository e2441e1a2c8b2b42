package jinja

// expr is an expression. Each node knows where it begins.
type expr interface{ pos() position }

func (p position) pos() position { return p }

type (
	literal struct {
		position
		value Value
	}
	name struct {
		position
		name string
	}
	sequence struct { // a list or a tuple
		position
		items []expr
		tuple bool
	}
	mapping struct {
		position
		keys, values []expr
	}
	unary struct {
		position
		op string // not, -, +
		x  expr
	}
	binary struct {
		position
		op   string
		x, y expr
	}
	logical struct {
		position
		or   bool
		x, y expr
	}
	comparison struct {
		position
		x   expr
		ops []string
		ys  []expr
	}
	concatenation struct {
		position
		items []expr
	}
	conditional struct {
		position
		test, then, other expr // other is nil without else
	}
	attribute struct {
		position
		x    expr
		name string
	}
	element struct {
		position
		x, key expr
	}
	slice struct {
		position
		x                 expr
		start, stop, step expr // nil where left out
	}
	invocation struct {
		position
		x expr
		arguments
	}
	filtered struct {
		position
		x      expr // nil in a filter block, whose text it takes
		name   string
		filter *builtin // nil if there is none of that name
		arguments
	}
	tested struct {
		position
		x    expr
		name string
		test *builtin
		arguments
	}
)

// arguments are those of a call as written.
type arguments struct {
	positional       []expr
	names            []string
	named            []expr
	star, doubleStar expr
}

type stmt interface{ pos() position }

type (
	text struct {
		position
		text string
	}
	output struct {
		position
		x expr
	}
	loopStmt struct {
		position
		target          expr
		iter, test      expr
		recursive       bool
		body, otherwise []stmt
	}
	ifStmt struct {
		position
		tests     []expr
		bodies    [][]stmt
		otherwise []stmt
	}
	assignment struct {
		position
		target, x expr
	}
	assignBlock struct {
		position
		target expr
		filter *filtered
		body   []stmt
	}
	macroStmt struct {
		position
		name string
		signature
		body []stmt
	}
	callStmt struct {
		position
		call *invocation
		signature
		body []stmt
	}
	filterStmt struct {
		position
		filter *filtered
		body   []stmt
	}
	scopeStmt struct { // with, block
		position
		targets, values []expr
		body            []stmt
	}
	generationStmt struct {
		position
		body []stmt
	}
	jumpStmt struct {
		position
		jump jump
	}
)

// signature is the parameters of a macro; the last len(defaults) of them have one.
type signature struct {
	params   []string
	defaults []expr
	// What the body mentions beyond its parameters.
	caller, varargs, kwargs bool
}

// jump is how a list of statements ended.
type jump int

const (
	onward jump = iota
	breaking
	continuing
)
