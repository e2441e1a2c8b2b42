package jinja

import "strings"

// tuple reads an expression, or several with commas between, which are a tuple. ends are the words that may follow a last comma.
func (p *parser) tuple(parentheses, conditions bool, ends ...string) expr {
	at := p.now().position
	var items []expr
	commas := false
	for {
		if len(items) > 0 {
			p.expect(",")
		}
		if k := p.now().kind; k == tokenVariableEnd || k == tokenBlockEnd || p.is(")") || p.isName(ends...) {
			break
		}
		if conditions {
			items = append(items, p.expression())
		} else {
			items = append(items, p.or())
		}
		if !p.is(",") {
			break
		}
		commas = true
	}
	if !commas {
		if len(items) == 1 {
			return items[0]
		}
		if !parentheses {
			p.now().fail(Syntax, "Expected an expression, got '%s'", p.now())
		}
	}
	return &sequence{at, items, true}
}

func (p *parser) expression() expr {
	defer p.enter()()
	at := p.now().position
	unknown := len(p.unknown)
	x := p.or()
	for p.takeName("if") {
		c := &conditional{position: at, then: x, test: p.or()}
		if p.takeName("else") {
			c.other = p.expression()
		}
		x = c
		// What a condition guards may name a filter that is not there.
		p.unknown = p.unknown[:unknown]
	}
	return x
}

func (p *parser) or() expr {
	x := p.and()
	for p.isName("or") {
		at := p.next().position
		x = &logical{at, true, x, p.and()}
	}
	return x
}

func (p *parser) and() expr {
	x := p.not()
	for p.isName("and") {
		at := p.next().position
		x = &logical{at, false, x, p.not()}
	}
	return x
}

func (p *parser) not() expr {
	if p.isName("not") {
		defer p.enter()()
		at := p.next().position
		return &unary{at, "not", p.not()}
	}
	return p.compare()
}

func (p *parser) compare() expr {
	c := &comparison{position: p.now().position, x: p.sum()}
	for {
		op := ""
		switch t := p.now(); {
		case t.kind == tokenOperator && strings.Contains(" == != < <= > >= ", " "+t.text+" "):
			op = t.text
		case p.isName("in"):
			op = "in"
		case p.isName("not") && p.look().kind == tokenName && p.look().text == "in":
			p.next()
			op = "not in"
		}
		if op == "" {
			break
		}
		p.next()
		c.ops, c.ys = append(c.ops, op), append(c.ys, p.sum())
	}
	if len(c.ops) == 0 {
		return c.x
	}
	return c
}

// chain reads operands with operators of one rank between them.
func (p *parser) chain(ops string, operand func() expr) expr {
	x := operand()
	for p.now().kind == tokenOperator && strings.Contains(ops, " "+p.now().text+" ") {
		t := p.next()
		x = &binary{t.position, t.text, x, operand()}
	}
	return x
}

func (p *parser) sum() expr { return p.chain(" + - ", p.concat) }

func (p *parser) concat() expr {
	at := p.now().position
	items := []expr{p.product()}
	for p.take("~") {
		items = append(items, p.product())
	}
	if len(items) == 1 {
		return items[0]
	}
	return &concatenation{at, items}
}

func (p *parser) product() expr { return p.chain(" * / // % ", p.power) }

func (p *parser) power() expr { return p.chain(" ** ", func() expr { return p.unary(true) }) }

func (p *parser) unary(filters bool) expr {
	defer p.enter()()
	var x expr
	switch {
	case p.is("-"), p.is("+"):
		t := p.next()
		x = &unary{t.position, t.text, p.unary(false)}
	default:
		x = p.primary()
	}
	x = p.postfix(x)
	if filters {
		x = p.filters(x)
	}
	return x
}

func (p *parser) primary() expr {
	t := p.next()
	switch t.kind {
	case tokenName:
		switch t.text {
		case "true", "True":
			return &literal{t.position, true}
		case "false", "False":
			return &literal{t.position, false}
		case "none", "None":
			return &literal{t.position, nil}
		}
		p.mentions[t.text]++
		return &name{t.position, t.text}
	case tokenString:
		s := t.text
		for p.now().kind == tokenString {
			s += p.next().text
		}
		return &literal{t.position, s}
	case tokenInteger, tokenFloat:
		return &literal{t.position, t.value}
	case tokenOperator:
		switch t.text {
		case "(":
			x := p.tuple(true, true)
			p.expect(")")
			return x
		case "[":
			l := &sequence{position: t.position}
			for n := 0; !p.is("]"); n++ {
				if n > 0 {
					if p.expect(","); p.is("]") {
						break
					}
				}
				l.items = append(l.items, p.expression())
			}
			p.expect("]")
			return l
		case "{":
			return p.dict(t.position)
		}
	}
	t.fail(Syntax, "unexpected '%s'", t)
	return nil
}

func (p *parser) dict(at position) expr {
	d := &mapping{position: at}
	for n := 0; !p.is("}"); n++ {
		if n > 0 {
			if p.expect(","); p.is("}") {
				break
			}
		}
		d.keys = append(d.keys, p.expression())
		p.expect(":")
		d.values = append(d.values, p.expression())
	}
	p.expect("}")
	return d
}

func (p *parser) postfix(x expr) expr {
	for {
		switch {
		case p.is("."):
			at := p.next().position
			switch t := p.next(); t.kind {
			case tokenName:
				x = &attribute{at, x, t.text}
			case tokenInteger:
				x = &element{at, x, &literal{t.position, t.value}}
			default:
				t.fail(Syntax, "expected name or number")
			}
		case p.is("["):
			x = p.subscript(x)
		case p.is("("):
			x = &invocation{p.now().position, x, p.arguments()}
		default:
			return x
		}
	}
}

func (p *parser) subscript(x expr) expr {
	at := p.expect("[").position
	s := &slice{position: at, x: x}
	part := func() expr {
		if p.is(":") || p.is("]") || p.is(",") {
			return nil
		}
		return p.expression()
	}
	s.start = part()
	if !p.is(":") {
		if s.start == nil {
			p.now().fail(Syntax, "Expected an expression, got '%s'", p.now())
		}
		key := s.start
		if p.is(",") {
			t := &sequence{at, []expr{key}, true}
			for p.take(",") {
				t.items = append(t.items, p.expression())
			}
			key = t
		}
		p.expect("]")
		return &element{at, x, key}
	}
	p.next()
	s.stop = part()
	if p.take(":") {
		s.step = part()
	}
	p.expect("]")
	return s
}

func (p *parser) arguments() arguments {
	at := p.expect("(").position
	var a arguments
	valid := func(ok bool) {
		if !ok {
			at.fail(Syntax, "invalid syntax for function call expression")
		}
	}
	for n := 0; !p.is(")"); n++ {
		if n > 0 {
			if p.expect(","); p.is(")") {
				break
			}
		}
		switch {
		case p.take("*"):
			valid(a.star == nil && a.doubleStar == nil)
			a.star = p.expression()
		case p.take("**"):
			valid(a.doubleStar == nil)
			a.doubleStar = p.expression()
		case p.now().kind == tokenName && p.look().kind == tokenOperator && p.look().text == "=":
			valid(a.doubleStar == nil)
			a.names = append(a.names, p.next().text)
			p.next()
			a.named = append(a.named, p.expression())
		default:
			valid(a.star == nil && a.doubleStar == nil && len(a.names) == 0)
			a.positional = append(a.positional, p.expression())
		}
	}
	p.expect(")")
	return a
}

// filters reads what may follow an expression: filters, tests, and calls of what they give.
func (p *parser) filters(x expr) expr {
	for {
		switch {
		case p.take("|"):
			x = p.filter(x)
		case p.isName("is") && x != nil:
			x = p.test(x)
		case p.is("(") && x != nil:
			x = &invocation{p.now().position, x, p.arguments()}
		default:
			return x
		}
	}
}

func (p *parser) dotted() token {
	t := p.expectKind(tokenName)
	for p.take(".") {
		t.text += "." + p.expectKind(tokenName).text
	}
	return t
}

func (p *parser) filter(x expr) expr {
	t := p.dotted()
	f := &filtered{position: t.position, x: x, name: t.text, filter: filters[t.text]}
	if f.filter == nil && !p.soft {
		p.unknown = append(p.unknown, &Error{Syntax, t.line, t.column, "No filter named '" + t.text + "'."})
	}
	if p.is("(") {
		f.arguments = p.arguments()
	}
	return f
}

func (p *parser) test(x expr) expr {
	at := p.next().position
	negated := p.takeName("not")
	t := p.dotted()
	test := &tested{position: at, x: x, name: t.text, test: tests[t.text]}
	if test.test == nil && !p.soft {
		p.unknown = append(p.unknown, &Error{Syntax, t.line, t.column, "No test named '" + t.text + "'."})
	}
	switch n := p.now(); {
	case p.is("("):
		test.arguments = p.arguments()
	case n.kind == tokenName && !p.isName("else", "or", "and") || n.kind == tokenString || n.kind == tokenInteger || n.kind == tokenFloat ||
		p.is("[") || p.is("{"):
		if p.isName("is") {
			n.fail(Syntax, "You cannot chain multiple tests with is")
		}
		test.positional = []expr{p.postfix(p.primary())}
	}
	if negated {
		return &unary{at, "not", test}
	}
	return test
}
