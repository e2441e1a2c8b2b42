package jinja

import (
	"slices"
	"strings"
)

// maxNesting bounds how deep tags and brackets nest in a source.
const maxNesting = 200

// Template is a parsed template.
type Template struct {
	body   []stmt
	marked bool
}

// Marked tells whether the template has {% generation %} blocks.
func (t *Template) Marked() bool { return t.marked }

// Parse reads a template.
func Parse(source string) (t *Template, err error) {
	defer recovered(&err)
	p := &parser{tokens: lex(source), mentions: map[string]int{}}
	t = &Template{body: p.statements()}
	t.marked = p.marked
	if len(p.unknown) > 0 {
		return nil, p.unknown[0]
	}
	return t, nil
}

type parser struct {
	tokens []token
	at     int
	depth  int
	loops  int  // for loops that break and continue would end
	soft   bool // within an if: an unknown filter is an error only when it is reached
	// The unknown filters and tests elsewhere.
	unknown []*Error
	marked  bool
	// How often each name was read, to tell which special variables a macro's body uses.
	mentions map[string]int
	// Which end tags are waited for, and the tags they end, innermost last.
	ends [][]string
	tags []string
}

func (p *parser) now() token { return p.tokens[p.at] }

func (p *parser) next() token {
	t := p.tokens[p.at]
	if t.kind != tokenEOF {
		p.at++
	}
	return t
}

func (p *parser) look() token { return p.tokens[min(p.at+1, len(p.tokens)-1)] }

func (p *parser) is(op string) bool { return p.now().kind == tokenOperator && p.now().text == op }

func (p *parser) isName(s ...string) bool {
	return p.now().kind == tokenName && slices.Contains(s, p.now().text)
}

func (p *parser) take(op string) bool {
	if p.is(op) {
		p.at++
		return true
	}
	return false
}

func (p *parser) takeName(s string) bool {
	if p.isName(s) {
		p.at++
		return true
	}
	return false
}

func (p *parser) want(ok bool, what string) token {
	t := p.now()
	if !ok {
		if t.kind == tokenEOF {
			t.fail(Syntax, "unexpected end of template, expected '%s'.", what)
		}
		t.fail(Syntax, "expected token '%s', got '%s'", what, t)
	}
	return p.next()
}

func (p *parser) expect(op string) token { return p.want(p.is(op), op) }

func (p *parser) expectKind(k tokenKind) token {
	return p.want(p.now().kind == k, token{kind: k, text: "name"}.String())
}

// enter counts a level of nesting in, and out when what it returns is called.
func (p *parser) enter() func() {
	if p.depth++; p.depth > maxNesting {
		p.now().fail(Limit, "nested more than %d deep", maxNesting)
	}
	return func() { p.depth-- }
}

// statements reads up to one of the end tags, whose name is then the current token; without any, up to the end.
func (p *parser) statements(ends ...string) []stmt {
	defer p.enter()()
	if len(ends) > 0 {
		p.ends = append(p.ends, ends)
		defer func() { p.ends = p.ends[:len(p.ends)-1] }()
	}
	var body []stmt
	for {
		switch t := p.next(); t.kind {
		case tokenEOF:
			if len(ends) > 0 {
				t.fail(Syntax, "Unexpected end of template.%s", p.awaited(len(p.tags)))
			}
			return body
		case tokenData:
			body = append(body, &text{t.position, t.text})
		case tokenVariableBegin:
			body = append(body, &output{t.position, p.tuple(false, true)})
			p.expectKind(tokenVariableEnd)
		default:
			if p.isName(ends...) {
				return body
			}
			body = append(body, p.statement()...)
			p.expectKind(tokenBlockEnd)
		}
	}
}

// body reads the statements of a tag, which begin behind its end, up to one of the end tags, and takes that too.
func (p *parser) body(ends ...string) ([]stmt, string) {
	p.take(":")
	p.expectKind(tokenBlockEnd)
	b := p.statements(ends...)
	return b, p.next().text
}

// apart reads a body that break and continue cannot leave.
func (p *parser) apart(end string) []stmt {
	loops, soft := p.loops, p.soft
	p.loops, p.soft = 0, false
	b, _ := p.body(end)
	p.loops, p.soft = loops, soft
	return b
}

func one(s stmt) []stmt { return []stmt{s} }

func (p *parser) statement() []stmt {
	t := p.now()
	if t.kind != tokenName {
		t.fail(Syntax, "tag name expected")
	}
	p.next()
	p.tags = append(p.tags, t.text)
	defer func() { p.tags = p.tags[:len(p.tags)-1] }()
	at := t.position
	switch t.text {
	case "for":
		return one(p.forTag(at))
	case "if":
		return one(p.ifTag(at))
	case "set":
		return one(p.setTag(at))
	case "macro":
		m := &macroStmt{position: at, name: p.expectKind(tokenName).text}
		m.body = p.macroBody(&m.signature, true, "endmacro")
		return one(m)
	case "call":
		c := &callStmt{position: at}
		if p.is("(") {
			p.parameters(&c.signature)
		}
		call, ok := p.expression().(*invocation)
		if !ok {
			at.fail(Syntax, "expected call")
		}
		c.call = call
		c.body = p.macroBody(&c.signature, false, "endcall")
		return one(c)
	case "filter":
		f := &filterStmt{position: at, filter: p.filters(p.filter(nil)).(*filtered)}
		f.body = p.apart("endfilter")
		return one(f)
	case "with":
		w := &scopeStmt{position: at}
		for p.now().kind != tokenBlockEnd {
			if len(w.targets) > 0 {
				p.expect(",")
			}
			w.targets = append(w.targets, p.target(false))
			p.expect("=")
			w.values = append(w.values, p.expression())
		}
		w.body, _ = p.body("endwith")
		return one(w)
	case "block":
		name := p.expectKind(tokenName).text
		for p.takeName("scoped") || p.takeName("required") {
		}
		b := &scopeStmt{position: at, body: p.apart("endblock")}
		p.takeName(name)
		return one(b)
	case "print":
		var all []stmt
		for p.now().kind != tokenBlockEnd {
			if len(all) > 0 {
				p.expect(",")
			}
			all = append(all, &output{p.now().position, p.expression()})
		}
		return all
	case "generation":
		p.marked = true
		return one(&generationStmt{at, p.apart("endgeneration")})
	case "break", "continue":
		if p.loops == 0 {
			at.fail(Syntax, "'%s' outside of a loop", t.text)
		}
		j := breaking
		if t.text == "continue" {
			j = continuing
		}
		return one(&jumpStmt{at, j})
	case "autoescape":
		if off, ok := p.expression().(*literal); ok && off.value == false {
			return one(&scopeStmt{position: at, body: p.apart("endautoescape")})
		}
		at.fail(Syntax, "{%% autoescape %%} is refused: a chat template makes no HTML")
	case "extends", "include", "import", "from":
		at.fail(Syntax, "{%% %s %%} is refused: a chat template has nothing to load", t.text)
	}
	at.fail(Syntax, "Encountered unknown tag '%s'.%s", t.text, p.awaited(len(p.tags)-1))
	return nil
}

// awaited says which tags could stand here, within the first n of those that are open.
func (p *parser) awaited(n int) string {
	if len(p.ends) == 0 || n == 0 {
		return ""
	}
	return " Jinja was looking for the following tags: '" + strings.Join(p.ends[len(p.ends)-1], "' or '") +
		"'. The innermost block that needs to be closed is '" + p.tags[n-1] + "'."
}

func (p *parser) forTag(at position) stmt {
	f := &loopStmt{position: at, target: p.targets("in")}
	p.want(p.isName("in"), "in")
	f.iter = p.tuple(false, false, "recursive")
	if p.takeName("if") {
		f.test = p.expression()
	}
	f.recursive = p.takeName("recursive")
	soft := p.soft
	p.soft = false
	p.loops++
	body, end := p.body("endfor", "else")
	p.loops--
	f.body = body
	if end == "else" {
		f.otherwise, _ = p.body("endfor")
	}
	p.soft = soft
	return f
}

func (p *parser) ifTag(at position) stmt {
	soft := p.soft
	p.soft = true
	defer func() { p.soft = soft }()
	f := &ifStmt{position: at}
	for {
		f.tests = append(f.tests, p.tuple(false, false))
		body, end := p.body("elif", "else", "endif")
		f.bodies = append(f.bodies, body)
		switch end {
		case "elif":
			continue
		case "else":
			f.otherwise, _ = p.body("endif")
		}
		return f
	}
}

func (p *parser) setTag(at position) stmt {
	target := p.targets("")
	if p.take("=") {
		return &assignment{at, target, p.tuple(false, true)}
	}
	s := &assignBlock{position: at, target: target}
	if p.is("|") {
		s.filter = p.filters(nil).(*filtered)
	}
	s.body = p.apart("endset")
	return s
}

func (p *parser) macroBody(s *signature, params bool, end string) []stmt {
	before := [3]int{p.mentions["caller"], p.mentions["varargs"], p.mentions["kwargs"]}
	if params {
		p.parameters(s)
	}
	b := p.apart(end)
	has := func(i int, name string) bool {
		return p.mentions[name] > before[i] && !slices.Contains(s.params, name)
	}
	s.caller, s.varargs, s.kwargs = has(0, "caller"), has(1, "varargs"), has(2, "kwargs")
	return b
}

func (p *parser) parameters(s *signature) {
	p.expect("(")
	for n := 0; !p.is(")"); n++ {
		if n > 0 {
			p.expect(",")
		}
		t := p.expectKind(tokenName)
		if p.take("=") {
			s.defaults = append(s.defaults, p.expression())
		} else if len(s.defaults) > 0 {
			t.fail(Syntax, "non-default argument follows default argument")
		}
		s.params = append(s.params, t.text)
	}
	p.expect(")")
}

// target reads one thing that is assigned to: a name, an attribute of a namespace, or several in parentheses.
func (p *parser) target(attributes bool) expr {
	defer p.enter()()
	t := p.next()
	switch {
	case t.kind == tokenName:
		if slices.Contains([]string{"true", "false", "none", "True", "False", "None"}, t.text) {
			t.fail(Syntax, "can't assign to 'const'")
		}
		if t.text == "loop" && (p.loops > 0 || !attributes) {
			t.fail(Syntax, "Can't assign to special loop variable in for-loop target")
		}
		if attributes && p.take(".") {
			return &attribute{t.position, &name{t.position, t.text}, p.expectKind(tokenName).text}
		}
		return &name{t.position, t.text}
	case t.kind == tokenOperator && t.text == "(":
		x := p.targets(")")
		p.expect(")")
		return x
	}
	switch t.kind {
	case tokenString, tokenInteger, tokenFloat:
		t.fail(Syntax, "can't assign to 'const'")
	case tokenBlockEnd:
		t.fail(Syntax, "Expected an expression, got '%s'", t)
	}
	t.fail(Syntax, "unexpected '%s'", t)
	return nil
}

// targets reads what a for or a set assigns to; end is the word or the bracket behind.
func (p *parser) targets(end string) expr {
	at := p.now().position
	first := p.target(end != "in")
	if !p.is(",") {
		return first
	}
	s := &sequence{at, []expr{first}, true}
	for p.take(",") {
		if p.isName(end) || p.is(")") || p.is("=") || p.now().kind == tokenBlockEnd {
			break
		}
		s.items = append(s.items, p.target(end != "in"))
	}
	return s
}
