package chart

import (
	"bytes"
	"image/color"
	"math"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// Curve is a named line.
type Curve struct {
	Name   string
	Points []Point
}

// Grid is a table that is drawn as colored fields, the darker the larger their value, with a
// text in each. A value that is NaN is an empty field.
type Grid struct {
	Title, X, Y string
	Columns     []string
	Rows        []string    // from top to bottom
	Values      [][]float64 // by row and column
	Texts       [][]string
}

// CurvesAndGrid draws curves and, beside them, a grid; as SVG, or as PNG of 1440 by 600
// pixels. The axis of the curves begins at zero if it is to, or where they do.
func CurvesAndGrid(title, x, y string, zero bool, curves []Curve, grid Grid, svg bool) ([]byte, error) {
	left := newPlot(title, x, y)
	left.X.Tick.Marker, left.Y.Tick.Marker = plot.TickerFunc(ticks), plot.TickerFunc(ticks)
	for i, c := range curves {
		var xy plotter.XYs
		for _, p := range c.Points {
			if !math.IsNaN(p.Y) && !math.IsInf(p.Y, 0) {
				xy = append(xy, plotter.XY{X: p.X, Y: p.Y})
			}
		}
		if len(xy) == 0 {
			continue
		}
		line, err := plotter.NewLine(xy)
		if err != nil {
			return nil, err
		}
		line.Color, line.Width = curveColor(i), vg.Points(2)
		if i >= len(palette)+1 {
			line.Dashes = []vg.Length{vg.Points(6), vg.Points(3)}
		}
		left.Add(line)
		left.Legend.Add(c.Name, line)
	}
	if zero {
		left.Y.Min = 0
	}

	const width, height = 15 * vg.Inch, 6.25 * vg.Inch
	canvas, out := newCanvas(width, height, svg)
	whole := draw.New(canvas)
	whole.SetColor(color.White)
	whole.Fill(whole.Rectangle.Path())
	left.Draw(draw.Crop(whole, vg.Points(8), -0.6*width, vg.Points(6), -vg.Points(6)))
	grid.plot().Draw(draw.Crop(whole, 0.41*width, -vg.Points(16), vg.Points(6), -vg.Points(6)))
	var b bytes.Buffer
	_, err := out.WriteTo(&b)
	return b.Bytes(), err
}

func curveColor(i int) color.Color {
	if i == 0 {
		return color.RGBA{R: 31, G: 119, B: 180, A: 255}
	}
	return palette[(i-1)%len(palette)]
}

// plot draws the grid. Fields and texts are drawn by its own plotter, which knows how large
// a field is.
func (g Grid) plot() *plot.Plot {
	p := plot.New()
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = g.Title, g.X, g.Y
	p.Title.TextStyle.Font.Size, p.Title.Padding = vg.Points(14), vg.Points(6)
	p.X.Min, p.X.Max, p.Y.Min, p.Y.Max = -0.5, float64(max(1, len(g.Columns)))-0.5, -0.5, float64(max(1, len(g.Rows)))-0.5
	p.X.Padding, p.Y.Padding = 0, 0
	p.X.Tick.Length, p.Y.Tick.Length = 0, 0
	every := max(1, (len(g.Columns)+23)/24)
	p.X.Tick.Marker = labels(g.Columns, every, false)
	p.Y.Tick.Marker = labels(g.Rows, 1, true)
	p.Add(fields{g})
	return p
}

// labels marks fields with their names; rows are counted from above.
func labels(names []string, every int, reverse bool) plot.Ticker {
	var out []plot.Tick
	for i, n := range names {
		at := i
		if reverse {
			at = len(names) - 1 - i
		}
		if i%every == 0 {
			out = append(out, plot.Tick{Value: float64(at), Label: n})
		}
	}
	return plot.ConstantTicks(out)
}

// fields draws the fields of a grid.
type fields struct{ Grid }

// Plot implements plot.Plotter.
func (f fields) Plot(c draw.Canvas, p *plot.Plot) {
	toX, toY := p.Transforms(&c)
	low, high := math.Inf(1), math.Inf(-1)
	for _, row := range f.Values {
		for _, v := range row {
			if !math.IsNaN(v) {
				low, high = math.Min(low, v), math.Max(high, v)
			}
		}
	}
	for i, row := range f.Values {
		y := float64(len(f.Rows) - 1 - i)
		for j, v := range row {
			x := float64(j)
			area := vg.Rectangle{Min: vg.Point{X: toX(x - 0.5), Y: toY(y - 0.5)}, Max: vg.Point{X: toX(x + 0.5), Y: toY(y + 0.5)}}
			share := 0.0
			if high > low {
				share = (v - low) / (high - low)
			}
			fill := shade(share)
			if math.IsNaN(v) {
				fill, share = color.RGBA{R: 245, G: 245, B: 245, A: 255}, 0
			}
			c.SetColor(fill)
			c.Fill(area.Path())
			size := area.Size()
			style := draw.TextStyle{Color: color.Black, Font: p.X.Tick.Label.Font, Handler: p.X.Tick.Label.Handler, XAlign: draw.XCenter, YAlign: draw.YCenter}
			if share > 0.55 {
				style.Color = color.White
			}
			text := f.Texts[i][j]
			style.Font.Size = min(vg.Points(11), size.Y*0.6)
			if w := style.Width(text); w > size.X*0.9 && w > 0 {
				style.Font.Size *= size.X * 0.9 / w
			}
			if style.Font.Size >= vg.Points(4) {
				c.FillText(style, vg.Point{X: toX(x), Y: toY(y)}, text)
			}
		}
	}
}

// shade is a color from nearly white to dark blue.
func shade(share float64) color.RGBA {
	at := func(from, to float64) uint8 { return uint8(math.Round(from + share*(to-from))) }
	return color.RGBA{R: at(237, 12), G: at(243, 58), B: at(250, 110), A: 255}
}
