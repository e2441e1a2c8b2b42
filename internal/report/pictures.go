package report

import (
	"fmt"
	"math"
	"slices"
)

// cell is what a tensor adds to a place of the heat map.
type cell struct {
	place
	err, square float64
	name        string
}

// heatMap is the error by module and layer. Sizes are in the units of the SVG.
type heatMap struct {
	Title         string
	Width, Height int
	CellWidth     int
	Rows          []heatRow
	Columns       []label
	From, To      Number // of the scale
}

type heatRow struct {
	Name  string
	Y     int
	Cells []heatCell
}

type heatCell struct {
	X       int
	Opacity string
	Note    string
}

type label struct {
	At   int
	Text string
}

// The measures of the heat map.
const (
	cellHeight = 20
	labelWidth = 210
	mapWidth   = 840 // of all columns, if there are many
	topMargin  = 26
	leastRange = 1.5 // of the scale of colours
)

// newHeatMap returns the picture, nil if it would be empty. A place that several
// tensors are in has their error together. Colours go by the logarithm, over a factor
// of one and a half at least, so that what hardly differs looks alike.
func newHeatMap(title string, cells []cell) *heatMap {
	if len(cells) == 0 {
		return nil
	}
	type sums struct{ err, square float64 }
	var modules []string
	at := make(map[place]*sums)
	layers, outside := 0, false
	for _, c := range cells {
		if at[c.place] == nil {
			at[c.place] = new(sums)
			if !slices.Contains(modules, c.module) {
				modules = append(modules, c.module)
			}
		}
		at[c.place].err += c.err
		at[c.place].square += c.square
		layers = max(layers, c.layer+1)
		outside = outside || c.layer < 0
	}
	low, high := math.Inf(1), 0.0
	for _, s := range at {
		if rel := math.Sqrt(s.err / s.square); rel > 0 && !math.IsInf(rel, 0) {
			low, high = min(low, rel), max(high, rel)
		}
	}
	if middle := math.Sqrt(low * high); high < leastRange*low {
		low, high = middle/math.Sqrt(leastRange), middle*math.Sqrt(leastRange)
	}
	step := max(6, min(32, mapWidth/max(1, layers)))
	x0 := labelWidth
	if outside {
		x0 += step + 8
	}
	m := &heatMap{Title: title, CellWidth: step - 1, Width: x0 + layers*step + 20, Height: topMargin + len(modules)*cellHeight + 4, From: Number(low), To: Number(high)}
	every := 1
	for every*step < 24 {
		every *= 5
		if every*step >= 24 {
			break
		}
		every *= 2
	}
	for l := 0; l < layers; l += every {
		m.Columns = append(m.Columns, label{x0 + l*step + step/2, fmt.Sprint(l)})
	}
	if outside {
		m.Columns = append(m.Columns, label{labelWidth + step/2, "–"})
	}
	for i, name := range modules {
		row := heatRow{Name: name, Y: topMargin + i*cellHeight}
		for l := -1; l < layers; l++ {
			s := at[place{l, name}]
			if s == nil {
				continue
			}
			rel := math.Sqrt(s.err / s.square)
			t := min(1, max(0, math.Log(rel/low)/math.Log(high/low)))
			c := heatCell{X: x0 + l*step, Opacity: fmt.Sprintf("%.2f", 0.1+0.9*t), Note: fmt.Sprintf("%s, layer %d: %s", name, l, percent(Number(rel)))}
			if l < 0 {
				c.X, c.Note = labelWidth, name+": "+percent(Number(rel))
			}
			row.Cells = append(row.Cells, c)
		}
		m.Rows = append(m.Rows, row)
	}
	return m
}

// histogram is how many weights have which relative error.
type histogram struct {
	Width, Height int
	Base          int // where columns stand
	Bars          []column
	Ticks         []label
}

type column struct {
	X, Y, W, H int
	Note       string
}

// newHistogram returns the picture of the errors of tensors, nil if there are fewer
// than two that have any.
func newHistogram(list []*Loss) *histogram {
	low, high, n := math.Inf(1), 0.0, 0
	for _, l := range list {
		if l == nil || !(l.RelRMS > 0) || math.IsInf(float64(l.RelRMS), 0) {
			continue
		}
		low, high = min(low, float64(l.RelRMS)), max(high, float64(l.RelRMS))
		n++
	}
	if n < 2 {
		return nil
	}
	step := niceStep((high - low) / 20)
	first := math.Floor(low / step)
	bins := int(math.Floor(high/step)-first) + 1
	weights, tensors := make([]int64, bins), make([]int, bins)
	var most, all int64
	for _, l := range list {
		if l == nil || !(l.RelRMS > 0) || math.IsInf(float64(l.RelRMS), 0) {
			continue
		}
		i := min(bins-1, max(0, int(math.Floor(float64(l.RelRMS)/step)-first)))
		weights[i] += l.figures.Values
		tensors[i]++
		most = max(most, weights[i])
		all += l.figures.Values
	}
	if most == 0 {
		return nil
	}
	const width, height, top, bottom = 1060, 200, 10, 26
	h := &histogram{Width: width, Height: height, Base: height - bottom}
	w := min(64, (width-40)/bins)
	x0 := (width - w*bins) / 2
	for i := range bins {
		from, to := (first+float64(i))*step, (first+float64(i)+1)*step
		if i%(1+60/w) == 0 {
			h.Ticks = append(h.Ticks, label{x0 + i*w, percent(Number(from))})
		}
		if weights[i] == 0 {
			continue
		}
		tall := max(2, int(math.Round(float64(weights[i])/float64(most)*float64(h.Base-top))))
		h.Bars = append(h.Bars, column{x0 + i*w, h.Base - tall, max(1, w-2), tall,
			fmt.Sprintf("%s to %s: %d tensors, %.1f %% of the weights", percent(Number(from)), percent(Number(to)), tensors[i], 100*float64(weights[i])/float64(all))})
	}
	return h
}

// niceStep returns the next 1, 2 or 5 times a power of ten.
func niceStep(x float64) float64 {
	if !(x > 0) {
		return 1e-4
	}
	p := math.Pow(10, math.Floor(math.Log10(x)))
	for _, f := range []float64{1, 2, 5} {
		if x <= f*p*(1+1e-9) {
			return f * p
		}
	}
	return 10 * p
}

// scatter is the types of a comparison: error over bits.
type scatter struct {
	Width, Height          int
	Left, Right, Top, Base int
	Points                 []point
	XTicks, YTicks         []label
}

type point struct {
	X, Y int
	Name string
	Best bool // no other type is both smaller and better
	Note string

	NameX, NameY int // where the name begins, on its base line

	// Lead says that the name is so far away that a line leads to it.
	Lead         bool
	LeadX, LeadY int
}

func newScatter(types []Compared) *scatter {
	const width, height = 1060, 400
	s := &scatter{Width: width, Height: height, Left: 64, Right: width - 20, Top: 14, Base: height - 44}
	var list []Compared
	for _, t := range types {
		if r := float64(t.RelRMS); r > 0 && !math.IsInf(r, 0) && t.Quantized.Weights > 0 {
			list = append(list, t)
		}
	}
	if len(list) < 2 {
		return nil
	}
	lowX, highX, lowY, highY := math.Inf(1), 0.0, math.Inf(1), 0.0
	for _, t := range list {
		lowX, highX = min(lowX, t.Quantized.Bits), max(highX, t.Quantized.Bits)
		lowY, highY = min(lowY, float64(t.RelRMS)), max(highY, float64(t.RelRMS))
	}
	lowX, highX = math.Floor(2*lowX-0.5)/2, math.Ceil(2*highX+0.5)/2
	lowY, highY = lowY/1.35, highY*1.35
	x := func(v float64) int { return s.Left + int(math.Round((v-lowX)/(highX-lowX)*float64(s.Right-s.Left))) }
	y := func(v float64) int {
		return s.Base - int(math.Round(math.Log(v/lowY)/math.Log(highY/lowY)*float64(s.Base-s.Top)))
	}
	step := max(0.25, niceStep((highX-lowX)/9))
	for v := math.Ceil(lowX/step) * step; v <= highX; v += step {
		s.XTicks = append(s.XTicks, label{x(v), fmt.Sprintf("%.4g", v)})
	}
	for p := -5; p <= 1; p++ {
		for _, f := range []float64{1, 2, 5} {
			if v := f * math.Pow(10, float64(p)); v >= lowY && v <= highY {
				s.YTicks = append(s.YTicks, label{y(v), percent(Number(v))})
			}
		}
	}
	for _, t := range list {
		p := point{X: x(t.Quantized.Bits), Y: y(float64(t.RelRMS)), Name: t.Type, Best: true,
			Note: fmt.Sprintf("%s: %.3f bits per weight, %s, %s", t.Type, t.Quantized.Bits, percent(t.RelRMS), decibels(t.SNR))}
		for _, o := range list {
			if o.Quantized.Bits <= t.Quantized.Bits && o.RelRMS < t.RelRMS || o.Quantized.Bits < t.Quantized.Bits && o.RelRMS <= t.RelRMS {
				p.Best = false
			}
		}
		s.Points = append(s.Points, p)
	}
	s.name()
	return s
}

// box is a rectangle of the picture.
type box struct{ left, top, right, bottom int }

func (b box) meets(o box) bool {
	return b.left < o.right && o.left < b.right && b.top < o.bottom && o.top < b.bottom
}

// name finds a place for each name: the nearest to its point, to the right if it can be,
// that meets neither another name nor a point nor the border.
func (s *scatter) name() {
	const letter, tall, gap = 7, 13, 9
	var taken []box
	for _, p := range s.Points {
		taken = append(taken, box{p.X - 6, p.Y - 6, p.X + 6, p.Y + 6})
	}
	for i := range s.Points {
		p := &s.Points[i]
		wide := letter*len(p.Name) + 2
		at := func(dx, dy int) box {
			b := box{p.X + dx, p.Y + dy - tall/2, p.X + dx + wide, p.Y + dy - tall/2 + tall}
			if dx < 0 {
				b.left, b.right = p.X+dx-wide, p.X+dx
			}
			return b
		}
		free := func(b box) bool {
			if b.left < s.Left || b.right > s.Right || b.top < s.Top || b.bottom > s.Base {
				return false
			}
			for k, t := range taken {
				if k != i && b.meets(t) {
					return false
				}
			}
			return true
		}
		place := at(gap, 0)
		p.Lead = false
	search:
		for far := 0; far < 16; far++ {
			for _, d := range [][2]int{{gap, 0}, {-gap, 0}, {gap, -1}, {-gap, 1}, {gap, 1}, {-gap, -1}} {
				if far == 0 && d[1] != 0 {
					continue
				}
				b := at(d[0]+d[0]/gap*3*far, d[1]*tall*far)
				if free(b) {
					place, p.Lead = b, far > 0
					break search
				}
			}
		}
		taken = append(taken, place)
		p.NameX, p.NameY = place.left+1, place.bottom-2
		p.LeadX, p.LeadY = place.left, (place.top+place.bottom)/2
		if place.right < p.X {
			p.LeadX = place.right
		}
	}
}
