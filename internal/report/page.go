package report

import (
	"bytes"
	"cmp"
	_ "embed"
	"fmt"
	"html/template"
	"math"
	"slices"
	"strings"

	"github.com/seed18967229/nibble/internal/memory"
)

//go:embed page.tmpl
var pageText string

//go:embed page.css
var styleText string

//go:embed page.js
var scriptText string

var pageTemplate = template.Must(template.New("report").Funcs(template.FuncMap{
	"size":    memory.FormatSize,
	"percent": percent,
	"bits":    func(x float64) string { return fmt.Sprintf("%.2f", x) },
	"db":      decibels,
	"sci":     func(n Number) string { return fmt.Sprintf("%.3g", float64(n)) },
	"count":   grouped,
	"sortkey": func(n Number) string { return fmt.Sprintf("%.6g", float64(n)) },
	"shape":   shapeText,
	"base":    lastPart,
	"brief":   func(kind string) string { s, _, _ := strings.Cut(kind, " double"); return s },
}).Parse(pageText))

// page is what the template is given.
type page struct {
	*Report
	Style  template.CSS
	Script template.JS

	Maps    []*heatMap
	Spread  *histogram
	Bars    []bar
	Scatter *scatter
	Kept    []kept
	Matrix  []matrixRow
	Inputs  bool // some tensor has the error of the input
}

// HTML returns report.html.
func (r *Report) HTML() ([]byte, error) {
	p := &page{Report: r, Style: template.CSS(styleText), Script: template.JS(scriptText)}
	names, errors := make([]string, len(r.Tensors)), make([]*Loss, len(r.Tensors))
	for i, t := range r.Tensors {
		names[i], errors[i] = t.Name, t.Error
		p.Inputs = p.Inputs || t.Input != nil
	}
	where := places(names)
	if r.Merge != nil {
		p.Maps = r.Merge.maps()
	} else if c := r.Comparison; c != nil {
		p.Scatter = newScatter(c.Types)
		p.compare(c, where)
	} else {
		var cells []cell
		for i, l := range errors {
			if l != nil && l.RelRMS > 0 {
				cells = append(cells, cell{where[i], l.figures.Error, l.figures.Square})
			}
		}
		if m := newHeatMap("", cells); m != nil {
			p.Maps = append(p.Maps, m)
		}
		p.Spread = newHistogram(errors)
	}
	p.Bars = bars(r.Kinds)
	p.Kept = keptBy(r.Tensors)
	var b bytes.Buffer
	if err := pageTemplate.Execute(&b, p); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// kept is tensors that were kept for one reason.
type kept struct {
	Reason string
	Names  []string
	Weights,
	Bytes int64
}

func keptBy(tensors []Tensor) []kept {
	var out []kept
	for _, t := range tensors {
		if t.Kept == "" {
			continue
		}
		i := slices.IndexFunc(out, func(k kept) bool { return k.Reason == t.Kept })
		if i < 0 {
			i = len(out)
			out = append(out, kept{Reason: t.Kept})
		}
		out[i].Names = append(out[i].Names, t.Name)
		out[i].Weights += t.Weights
		out[i].Bytes += t.Bytes
	}
	return out
}

// bar is the share of a kind in the bytes of the model.
type bar struct {
	Kind
	X, W  float64 // percent
	Class string
}

func bars(kinds []Kind) []bar {
	kinds = slices.Clone(kinds)
	slices.SortStableFunc(kinds, func(a, b Kind) int { return cmp.Compare(b.Bytes, a.Bytes) })
	var total int64
	for _, k := range kinds {
		total += k.Bytes
	}
	var out []bar
	x := 0.0
	for i, k := range kinds {
		w := 100 * float64(k.Bytes) / float64(max(1, total))
		out = append(out, bar{k, x, w, fmt.Sprint("k", i%6)})
		x += w
	}
	return out
}

// matrixRow is a tensor of a comparison.
type matrixRow struct {
	Name   string
	Errors []Number
	Best   int
}

// compare makes the pictures and the table of a comparison.
func (p *page) compare(c *Comparison, where []place) {
	for _, t := range c.Types {
		var cells []cell
		for i, e := range t.Tensors {
			if x := float64(e); x > 0 && !math.IsInf(x, 0) {
				n := float64(p.Tensors[i].Weights)
				cells = append(cells, cell{where[i], x * x * n, n})
			}
		}
		if m := newHeatMap(t.Type, cells); m != nil {
			p.Maps = append(p.Maps, m)
		}
	}
	for i, t := range p.Tensors {
		row := matrixRow{Name: t.Name, Best: -1}
		least := math.Inf(1)
		measured := false
		for k, of := range c.Types {
			row.Errors = append(row.Errors, of.Tensors[i])
			if x := float64(of.Tensors[i]); !math.IsNaN(x) {
				measured = true
				if x < least {
					least, row.Best = x, k
				}
			}
		}
		if measured {
			p.Matrix = append(p.Matrix, row)
		}
	}
}

// percent writes a part of one as a percentage with three digits.
func percent(n Number) string {
	switch x := 100 * float64(n); {
	case math.IsNaN(x):
		return "–"
	case math.IsInf(x, 0):
		return "∞"
	case x == 0:
		return "0"
	case x < 0.001:
		return fmt.Sprintf("%.1e %%", x)
	default:
		return fmt.Sprintf("%.3g %%", x)
	}
}

func decibels(n Number) string {
	if x := float64(n); math.IsInf(x, 0) || math.IsNaN(x) {
		return "exact"
	}
	return fmt.Sprintf("%.1f dB", float64(n))
}

// grouped writes a count with its digits in groups of three.
func grouped(n int64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + " " + s[i:] // a narrow space that does not break
	}
	return s
}

func shapeText(shape []int64) string {
	if len(shape) == 0 {
		return "1"
	}
	s := ""
	for i, d := range shape {
		if i > 0 {
			s += "×"
		}
		s += fmt.Sprint(d)
	}
	return s
}

// lastPart returns the last part of a path, whatever its separator.
func lastPart(path string) string {
	for i := len(path) - 1; i >= 0; i-- {
		if (path[i] == '/' || path[i] == '\\') && i < len(path)-1 {
			return path[i+1:]
		}
	}
	return path
}

// Style returns the style of the page, for pages that are to look like it.
func Style() string { return styleText }
