package chart

import (
	"bytes"
	"image/color"
	"math"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
)

// Point is one value of a series.
type Point struct{ X, Y float64 }

// Style says how a series is drawn.
type Style int

const (
	// Faint is a thin pale line, for raw measurements.
	Faint Style = iota
	// Strong is a thick line, for what matters.
	Strong
	// Dotted is a line with a mark at each point, for few points.
	Dotted
)

// Series is a named line.
type Series struct {
	Name   string
	Style  Style
	Points []Point
}

// Lines draws series over a common axis and returns the picture as PNG, 960 by
// 600 pixels. Points that are not finite are left out.
func Lines(title, x, y string, series ...Series) ([]byte, error) {
	p := newPlot(title, x, y)
	p.X.Tick.Marker, p.Y.Tick.Marker = plot.TickerFunc(ticks), plot.TickerFunc(ticks)
	blue, orange := color.RGBA{R: 31, G: 119, B: 180, A: 255}, color.RGBA{R: 214, G: 96, B: 20, A: 255}
	for _, s := range series {
		var xy plotter.XYs
		for _, pt := range s.Points {
			if !math.IsNaN(pt.Y) && !math.IsInf(pt.Y, 0) {
				xy = append(xy, plotter.XY{X: pt.X, Y: pt.Y})
			}
		}
		if len(xy) == 0 {
			continue
		}
		line, marks, err := plotter.NewLinePoints(xy)
		if err != nil {
			return nil, err
		}
		switch s.Style {
		case Faint:
			line.Color, line.Width = color.RGBA{R: 174, G: 199, B: 232, A: 255}, vg.Points(1)
			p.Add(line)
			p.Legend.Add(s.Name, line)
		case Strong:
			line.Color, line.Width = blue, vg.Points(2)
			p.Add(line)
			p.Legend.Add(s.Name, line)
		case Dotted:
			line.Color, line.Width = orange, vg.Points(2)
			marks.Color, marks.Shape, marks.Radius = orange, draw.CircleGlyph{}, vg.Points(3)
			p.Add(line, marks)
			p.Legend.Add(s.Name, line, marks)
		}
	}
	return render(p)
}

// newPlot returns a plot without data.
func newPlot(title, x, y string) *plot.Plot {
	p := plot.New()
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = title, x, y
	p.Title.TextStyle.Font.Size, p.Title.Padding = vg.Points(14), vg.Points(6)
	p.Legend.Top, p.Legend.XOffs, p.Legend.YOffs, p.Legend.Padding = true, -vg.Points(10), -vg.Points(6), vg.Points(3)
	grid := plotter.NewGrid()
	grid.Vertical.Color, grid.Horizontal.Color = color.Gray{Y: 225}, color.Gray{Y: 225}
	p.Add(grid)
	return p
}

// render draws a plot as PNG.
func render(p *plot.Plot) ([]byte, error) {
	// A margin keeps the labels at the ends of the axes inside the picture.
	canvas := vgimg.New(10*vg.Inch, 6.25*vg.Inch)
	p.Draw(draw.Crop(draw.New(canvas), vg.Points(8), -vg.Points(16), vg.Points(6), -vg.Points(6)))
	var b bytes.Buffer
	_, err := vgimg.PngCanvas{Canvas: canvas}.WriteTo(&b)
	return b.Bytes(), err
}

// ticks marks an axis at round numbers, up to ten of them.
func ticks(low, high float64) []plot.Tick {
	step := math.Pow(10, math.Floor(math.Log10(high-low)))
	for _, f := range []float64{0.1, 0.2, 0.5, 1} {
		if (high-low)/(step*f) <= 10 {
			step *= f
			break
		}
	}
	var out []plot.Tick
	first := math.Ceil(low / step)
	for i := range 11 {
		// Of an axis that is no longer than a rounding error, all ticks are one:
		// adding 1 to first does nothing.
		v := (first + float64(i)) * step
		if !(v <= high) || i > 0 && v == out[i-1].Value {
			break
		}
		out = append(out, plot.Tick{Value: v, Label: strconv.FormatFloat(v, 'g', 6, 64)})
	}
	return out
}

// Smooth returns the exponential moving average of points, each old value
// counting for keep of the new average; corrected at the start, where there is
// little to average.
func Smooth(points []Point, keep float64) []Point {
	out := make([]Point, len(points))
	var sum, weight float64
	for i, p := range points {
		sum, weight = keep*sum+(1-keep)*p.Y, keep*weight+(1-keep)
		out[i] = Point{p.X, sum / weight}
	}
	return out
}
