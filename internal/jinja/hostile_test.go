package jinja_test

import (
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/internal/jinja"
)

// Templates that loop, double, recurse, pad or nest without end. Each is refused, soon and in little memory.
var hostile = map[string]string{
	"nested ranges":        strings.Repeat("{% for x in range(100000) %}", 4) + "{{ x }}" + strings.Repeat("{% endfor %}", 4),
	"nested empty loops":   strings.Repeat("{% for x in range(100000) %}", 4) + strings.Repeat("{% endfor %}", 4),
	"doubled string":       "{% set ns = namespace(s='x') %}{% for i in range(100) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
	"doubled by concat":    "{% set ns = namespace(s='x') %}{% for i in range(100) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
	"doubled list":         "{% set ns = namespace(s=[1]) %}{% for i in range(100) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
	"doubled by join":      "{% set ns = namespace(s='x') %}{% for i in range(100) %}{% set ns.s = [ns.s, ns.s] | join %}{% endfor %}",
	"doubled by replace":   "{% set ns = namespace(s='x') %}{% for i in range(100) %}{% set ns.s = ns.s.replace('x', 'xx') %}{% endfor %}",
	"doubled by format":    "{% set ns = namespace(s='x') %}{% for i in range(100) %}{% set ns.s = '{0}{0}'.format(ns.s) %}{% endfor %}",
	"doubled by percent":   "{% set ns = namespace(s='x') %}{% for i in range(100) %}{% set ns.s = '%s%s' % (ns.s, ns.s) %}{% endfor %}",
	"doubled by set block": "{% set ns = namespace(s='x') %}{% for i in range(100) %}{% set s %}{{ ns.s }}{{ ns.s }}{% endset %}{% set ns.s = s %}{% endfor %}",
	"doubled by macro":     "{% macro m(n) %}{{ m(n + 1) }}{{ m(n + 1) }}{% endmacro %}{{ m(0) }}",
	"doubled by escape":    "{% set ns = namespace(s='&') %}{% for i in range(100) %}{% set ns.s = ns.s | forceescape %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
	"doubled by repr":      "{% set ns = namespace(s=['\\\\']) %}{% for i in range(100) %}{% set ns.s = [ns.s | string] %}{% endfor %}",
	"shared by tojson":     "{% set ns = namespace(s=[1]) %}{% for i in range(100) %}{% set ns.s = [ns.s, ns.s] %}{% endfor %}{{ ns.s | tojson }}",
	"shared by str":        "{% set ns = namespace(s=[1]) %}{% for i in range(100) %}{% set ns.s = [ns.s, ns.s] %}{% endfor %}{{ ns.s }}",
	"shared by equality":   "{% set ns = namespace(s=[1], t=[1]) %}{% for i in range(100) %}{% set ns.s = [ns.s, ns.s] %}{% set ns.t = [ns.t, ns.t] %}{% endfor %}{{ ns.s == ns.t }}",
	"shared by order":      "{% set ns = namespace(s=[1], t=[1]) %}{% for i in range(100) %}{% set ns.s = [ns.s, ns.s] %}{% set ns.t = [ns.t, ns.t] %}{% endfor %}{{ ns.s < ns.t }}",
	"shared keys":          "{% set ns = namespace(s=(1,)) %}{% for i in range(100) %}{% set ns.s = (ns.s, ns.s) %}{% endfor %}{{ {ns.s: 1} }}",
	"recursive macro":      "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
	"mutual macros":        "{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}{{ a() }}{% endmacro %}{{ a() }}",
	"recursive default":    "{% macro m(x=m()) %}{% endmacro %}{{ m() }}",
	"recursive loop":       "{% set ns = namespace() %}{% set ns.l = [ns] %}{% for x in [[1]] recursive %}{{ loop([x]) }}{% endfor %}",
	"recursive caller":     "{% macro m() %}{% call m() %}{{ caller() }}{% endcall %}{% endmacro %}{{ m() }}",
	"namespace in itself":  "{% set ns = namespace() %}{% set ns.a = ns %}{{ ns }}",
	"namespace by tojson":  "{% set ns = namespace() %}{% set ns.a = [ns] %}{{ ns.a | string }}",
	"repeat":               "{{ 'x' * 10 ** 9 }}",
	"repeat 2":             "{{ 9223372036854775807 * 'xx' }}",
	"repeat list":          "{{ [1, 2, 3] * 10 ** 18 }}",
	"repeat empty lists":   "{{ ([[]] * 900000) | tojson(indent=1000000) }}",
	"percent width":        "{{ '%9999999999d' % 1 }}",
	"percent width 2":      "{{ '%99999999999999999999999d' % 1 }}",
	"percent star":         "{{ '%*d' % (1000000000, 1) }}",
	"percent precision":    "{{ '%.999999999d' % 1 }}",
	"percent float":        "{{ '%.999999999f' % 1.5 }}",
	"percent string":       "{{ '%999999999s' % 'x' }}",
	"format width":         "{{ '{:>9999999999}'.format(1) }}",
	"format float":         "{{ '{:.999999999f}'.format(1.5) }}",
	"format nested":        "{{ '{:{w}}'.format('x', w=10 ** 12) }}",
	"format braces":        "{{ ('{:' * 100001).format(1) }}",
	"center":               "{{ 'x'.center(10 ** 12) }}",
	"center filter":        "{{ 'x' | center(10 ** 12) }}",
	"ljust":                "{{ 'x'.ljust(10 ** 12) }}",
	"zfill":                "{{ 'x'.zfill(10 ** 12) }}",
	"expandtabs":           "{{ '\\t'.expandtabs(10 ** 12) }}",
	"indent":               "{{ 'a\\nb' | indent(10 ** 12) }}",
	"indent lines":         "{{ ('a\\n' * 100000) | indent(10000) }}",
	"tojson indent":        "{{ [1] | tojson(indent=10 ** 12) }}",
	"batch":                "{{ [1] | batch(10 ** 12, 0) | list }}",
	"slice filter":         "{{ [1] | slice(10 ** 12) | list }}",
	"power":                "{{ 10 ** 10 ** 10 }}",
	"power 2":              "{{ 2 ** 9223372036854775807 }}",
	"sum of products":      "{% set ns = namespace(n=3) %}{% for i in range(100) %}{% set ns.n = ns.n * ns.n %}{% endfor %}{{ ns.n }}",
	"huge integer":         "{{ " + strings.Repeat("9", 100000) + " }}",
	"negated":              "{{ -(-9223372036854775807 - 1) }}",
	"range":                "{{ range(10 ** 12) | list }}",
	"range 2":              "{{ range(-9223372036854775807, 9223372036854775807) | list }}",
	"ranges kept":          "{% set ns = namespace(l=[]) %}{% for i in range(100000) %}{% set ns.l = ns.l + [range(100000) | list] %}{% endfor %}",
	"deep parentheses":     "{{ " + strings.Repeat("(", 100000) + " }}",
	"deep lists":           "{{ " + strings.Repeat("[", 100000) + strings.Repeat("]", 100000) + " }}",
	"deep nots":            "{{ " + strings.Repeat("not ", 100000) + "1 }}",
	"deep signs":           "{{ " + strings.Repeat("-", 100000) + "1 }}",
	"deep ifs":             strings.Repeat("{% if 1 %}", 50000),
	"deep conditions":      "{{ " + strings.Repeat("(1 if ", 50000) + "1" + strings.Repeat(")", 50000) + " }}",
	"deep targets":         "{% set " + strings.Repeat("(", 50000) + "a" + strings.Repeat(")", 50000) + " = 1 %}",
	"long sums":            "{{ 1" + strings.Repeat("+1", 100000) + " }}",
	"long attributes":      "{{ d" + strings.Repeat(".a", 100000) + " }}",
	"long calls":           "{{ d" + strings.Repeat("()", 100000) + " }}",
	"long filters":         "{{ 1" + strings.Repeat("|string", 100000) + " }}",
	"long elses":           "{{ " + strings.Repeat("0 if 0 else ", 50000) + "1 }}",
	"braces":               strings.Repeat("{", 1000000),
	"comments":             strings.Repeat("{#", 500000),
	"signs in comments":    "{#" + strings.Repeat("-", 1000000),
	"raws":                 "{% raw %}" + strings.Repeat("{%", 400000),
	"quotes":               "{{ '" + strings.Repeat("\\", 900000) + " }}",
	"minus tags":           strings.Repeat(" ", 900000) + "{{-",
	"source":               strings.Repeat("x", 2<<20),
	"generator of itself":  "{% set ns = namespace(g=[1]) %}{% for i in range(100000) %}{% set ns.g = ns.g | map('string') %}{% endfor %}{{ ns.g | list }}",
	"loop over text":       "{% set s = 'x' * 1000000 %}{% for i in range(100000) %}{{ s in s }}{{ s.count('y') }}{% endfor %}",
	"characters of text":   "{% set s = 'é' * 1000000 %}{% for i in range(100000) %}{{ s[i] }}{% endfor %}",
	"slices of text":       "{% set s = 'é' * 1000000 %}{% for i in range(100000) %}{{ s[i:i+1] }}{% endfor %}",
	"strips of text":       "{% set s = ' ' * 1000000 %}{% for i in range(100000) %}{{ s.strip() }}{% endfor %}",
	"strip of many":        "{% set s = 'é' * 300000 %}{{ s.strip('a' * 300000 ~ 'é') }}",
	"find in text":         "{% set s = 'ab' * 500000 %}{% for i in range(100000) %}{{ s.find('ba' * 1000 ~ 'c') }}{% endfor %}",
	"upper of text":        "{% set s = 'x' * 1000000 %}{% for i in range(100000) %}{% set t = s.upper() %}{% endfor %}",
	"titles of text":       "{% set s = 'x' * 1000000 %}{% for i in range(100000) %}{{ (s | title)[:1] }}{% endfor %}",
	"splits of text":       "{% set s = 'x ' * 300000 %}{% for i in range(100000) %}{% set t = s.split() %}{% endfor %}",
	"lines of text":        "{% set s = 'x\\n' * 300000 %}{% for i in range(100000) %}{% set t = s.splitlines() %}{% endfor %}",
	"words of text":        "{% set s = 'x ' * 300000 %}{% for i in range(100000) %}{{ s | wordcount }}{% endfor %}",
	"lengths of text":      "{% set s = 'é' * 1000000 %}{% for i in range(100000) %}{{ s | length }}{% endfor %}",
	"equal texts":          "{% set s = 'x' * 1000000 %}{% set t = 'x' * 1000000 %}{% for i in range(100000) %}{{ s == t }}{% endfor %}",
	"ordered texts":        "{% set s = 'x' * 1000000 %}{% set t = 'x' * 1000000 %}{% for i in range(100000) %}{{ s < t }}{% endfor %}",
	"texts as keys":        "{% set s = 'x' * 1000000 %}{% set d = dict(a=1,b=1,c=1,d=1,e=1,f=1,g=1,h=1,i=1,j=1) %}{% for i in range(100000) %}{{ s in d }}{{ d[s] }}{{ {s: 1} | length }}{% endfor %}",
	"parsed texts":         "{% set s = '1' * 1000000 %}{% for i in range(100000) %}{{ s | float }}{{ s | int(base=16) }}{% endfor %}",
	"sorted":               "{% set l = range(100000) | list %}{% for i in range(100000) %}{% set m = l | sort %}{% endfor %}",
	"reversed":             "{% set l = range(100000) | list %}{% for i in range(100000) %}{% set m = l | reverse %}{% endfor %}",
	"contained":            "{% set l = range(100000) | list %}{% for i in range(100000) %}{{ -1 in l }}{% endfor %}",
	"variables":            "{% macro m() %}" + strings.Repeat("x", 10) + "{% endmacro %}{% for i in range(100000) %}{% for j in range(100000) %}{% set x = m() %}{% endfor %}{% endfor %}",
	"star arguments":       "{% for i in range(100000) %}{{ range(*(range(100000) | list)) }}{% endfor %}",
	"keyword arguments":    "{% macro m() %}{{ kwargs | length }}{% endmacro %}{% set d = dict() %}{% for i in range(100000) %}{{ m(**dict(a=1)) }}{% for j in range(100000) %}{% endfor %}{% endfor %}",
	"striptags":            "{% set s = '<' * 1000000 %}{% for i in range(100000) %}{{ s | striptags | length }}{% endfor %}",
	"strftime":             "{% set s = '%c' * 400000 %}{% for i in range(100000) %}{{ strftime_now(s) }}{% endfor %}",
	"output":               "{% for i in range(100000) %}{{ 'x' * 1000 }}{% endfor %}",
	"output of data":       "{% for i in range(100000) %}" + strings.Repeat("x", 1000) + "{% endfor %}",
}

// What each may take: a time that holds on a machine with much else to do (alone it takes a tenth), and memory over all, of which most is garbage.
const (
	soon   = 5 * time.Second
	little = 64 << 20
)

func TestHostileTemplatesAreRefusedSoon(t *testing.T) {
	vars := jinja.NewDict()
	vars.Set("d", jinja.NewDict())
	var before, after runtime.MemStats
	for name, source := range hostile {
		begin := time.Now()
		runtime.ReadMemStats(&before)
		_, err := render(source, vars)
		runtime.ReadMemStats(&after)
		var e *jinja.Error
		require.ErrorAs(t, err, &e, name)
		require.Less(t, time.Since(begin), soon, name)
		require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(little), name)
	}
}

func TestNothingButDataIsReached(t *testing.T) {
	vars := jinja.NewDict()
	vars.Set("d", jinja.NewDict())
	for _, source := range []string{
		"{{ d.__class__.__base__ }}", "{{ ''.__class__.__mro__[1].__subclasses__() }}", "{{ d['__class__']['__init__'] }}", "{{ d | attr('__class__') | attr('x') }}",
		"{{ '{0.__class__.__init__}'.format(d) }}", "{{ range.__globals__.x }}", "{{ namespace.__init__.__globals__ }}", "{{ cycler.__init__.__globals__.os }}",
		"{{ self.__init__.__globals__ }}", "{{ lipsum.__globals__ }}", "{{ config.items() }}", "{{ d.clear() }}", "{{ [].append(1) }}", "{{ [d] | map(attribute='__class__.x') | list }}",
		"{% include '/etc/passwd' %}", "{% import 'x' as y %}", "{% from 'x' import y %}", "{% extends 'x' %}", "{{ open('/etc/passwd') }}", "{{ __import__('os') }}",
	} {
		got, err := render(source, vars)
		require.Error(t, err, "%s: %s", source, got)
	}
}

func FuzzRender(f *testing.F) {
	vars, all := snippets(f)
	for _, s := range all {
		f.Add(s.Source)
	}
	for _, s := range hostile {
		if len(s) < 1000 {
			f.Add(s)
		}
	}
	f.Fuzz(func(t *testing.T, source string) {
		tm, err := jinja.Parse(source)
		if err != nil {
			return
		}
		r, err := tm.Render(vars, jinja.Options{Now: now, Limits: jinja.Limits{Steps: 20000, Memory: 1 << 20, Output: 1 << 18, Depth: 200}})
		if err != nil {
			require.IsType(t, &jinja.Error{}, err)
			return
		}
		require.LessOrEqual(t, len(r.Text), 1<<18)
		for _, s := range r.Marked {
			require.Less(t, s.From, s.To)
			require.LessOrEqual(t, s.To, len(r.Text))
		}
	})
}

func FuzzParse(f *testing.F) {
	_, all := snippets(f)
	for _, s := range all {
		f.Add(s.Source)
	}
	f.Add("{%- raw -%}{{ x }}{% endraw +%}\n{#- c +#}\n")
	f.Fuzz(func(t *testing.T, source string) {
		_, err := jinja.Parse(source)
		if err == nil {
			return
		}
		var e *jinja.Error
		require.ErrorAs(t, err, &e)
		require.Contains(t, []jinja.Kind{jinja.Syntax, jinja.Limit}, e.Kind)
		require.Positive(t, e.Column)
		require.LessOrEqual(t, e.Line, 1+strings.Count(source, "\n")+strings.Count(source, "\r"))
	})
}
