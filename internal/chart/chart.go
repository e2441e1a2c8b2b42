package chart

import (
	"bytes"
	"image/color"
	"io"
	"math"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
	"gonum.org/v1/plot/vg/vgsvg"
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
	// Ring is a circle around each point, for those that stand out.
	Ring
)

// Series is a named line.
type Series struct {
	Name   string
	Style  Style
	Points []Point
}

var (
	blue     = color.RGBA{R: 31, G: 119, B: 180, A: 255}
	paleBlue = color.RGBA{R: 174, G: 199, B: 232, A: 255}
	orange   = color.RGBA{R: 214, G: 96, B: 20, A: 255}
	dark     = color.RGBA{R: 60, G: 60, B: 60, A: 255}
)

// Lines draws series over a common axis, as SVG or as PNG of 960 by 600 pixels. Points that
// are not finite are left out, and of more than the picture has room for those stay that
// stand out.
func Lines(title, x, y string, svg bool, series ...Series) ([]byte, error) {
	p := newPlot("", x, y)
	p.X.Tick.Marker, p.Y.Tick.Marker = plot.TickerFunc(ticks), plot.TickerFunc(ticks)
	var keys []key
	for _, s := range series {
		var xy plotter.XYs
		for _, pt := range thin(s.Points, 800) {
			xy = append(xy, plotter.XY{X: pt.X, Y: pt.Y})
		}
		if len(xy) == 0 {
			continue
		}
		line, marks, err := plotter.NewLinePoints(xy)
		if err != nil {
			return nil, err
		}
		k := key{name: s.Name}
		switch s.Style {
		case Faint:
			line.Color, line.Width = paleBlue, vg.Points(1)
			k.draw = append(k.draw, line)
		case Strong:
			line.Color, line.Width = blue, vg.Points(2)
			k.draw = append(k.draw, line)
		case Dotted:
			line.Color, line.Width = orange, vg.Points(2)
			marks.Color, marks.Shape, marks.Radius = orange, draw.CircleGlyph{}, vg.Points(3)
			k.draw = append(k.draw, line)
			if len(xy) <= 120 { // more would be a thick line
				k.draw = append(k.draw, marks)
			}
		case Ring:
			marks.Color, marks.Shape, marks.Radius = dark, ring{}, vg.Points(6)
			k.draw = append(k.draw, marks)
		}
		for _, d := range k.draw {
			p.Add(d.(plot.Plotter))
		}
		keys = append(keys, k)
	}
	if room := 0.04 * (p.Y.Max - p.Y.Min); room > 0 && !math.IsInf(room, 0) {
		p.Y.Min, p.Y.Max = p.Y.Min-room, p.Y.Max+room
	}
	canvas, out := newCanvas(10*vg.Inch, 6.25*vg.Inch, svg)
	whole := draw.New(canvas)
	// The names stand above the picture, where no curve is.
	head := drawHead(whole, p, title, keys)
	p.Draw(draw.Crop(whole, vg.Points(8), -vg.Points(16), vg.Points(6), -head))
	var b bytes.Buffer
	_, err := out.WriteTo(&b)
	return b.Bytes(), err
}

// key is a name above the picture, with what is drawn like it.
type key struct {
	name string
	draw []plot.Thumbnailer
}

// drawHead writes the title and the names into the top of the canvas and returns how high
// that is.
func drawHead(c draw.Canvas, p *plot.Plot, title string, keys []key) vg.Length {
	c.SetColor(color.White)
	c.Fill(c.Rectangle.Path())
	style := p.Title.TextStyle
	style.XAlign, style.YAlign = draw.XLeft, draw.YCenter
	at := vg.Point{X: c.Min.X + vg.Points(14), Y: c.Max.Y - vg.Points(20)}
	c.FillText(style, at, title)
	small := p.Legend.TextStyle
	small.XAlign, small.YAlign, small.Font.Size = draw.XRight, draw.YCenter, vg.Points(12)
	const thumb, gap = vg.Length(26), vg.Length(6)
	at.X = c.Max.X - vg.Points(18)
	for i := range keys {
		k := keys[len(keys)-1-i]
		c.FillText(small, at, k.name)
		at.X -= small.Width(k.name) + gap
		for _, d := range k.draw {
			d.Thumbnail(&draw.Canvas{Canvas: c.Canvas, Rectangle: vg.Rectangle{
				Min: vg.Point{X: at.X - thumb, Y: at.Y - vg.Points(6)}, Max: vg.Point{X: at.X, Y: at.Y + vg.Points(6)},
			}})
		}
		at.X -= thumb + 3*gap
	}
	return vg.Points(38)
}

// ring is a circle of which the middle is to be seen.
type ring struct{}

// DrawGlyph implements draw.GlyphDrawer.
func (ring) DrawGlyph(c *draw.Canvas, sty draw.GlyphStyle, pt vg.Point) {
	c.SetLineStyle(draw.LineStyle{Color: sty.Color, Width: vg.Points(1.5)})
	var p vg.Path
	p.Move(vg.Point{X: pt.X + sty.Radius, Y: pt.Y})
	p.Arc(pt, sty.Radius, 0, 2*math.Pi)
	p.Close()
	c.Stroke(p)
}

// thin returns the finite points of a series in the order of their X, or where there are
// more, of each of so many spans of the axis the lowest and the highest.
func thin(points []Point, spans int) []Point {
	var finite []Point
	for _, p := range points {
		if !math.IsNaN(p.Y) && !math.IsInf(p.Y, 0) {
			finite = append(finite, p)
		}
	}
	if len(finite) <= 2*spans {
		return finite
	}
	first, last := finite[0], finite[len(finite)-1]
	span := (last.X - first.X) / float64(spans)
	if !(span > 0) {
		return finite
	}
	out := []Point{first}
	for i := 0; i < len(finite); {
		end := first.X + span*(math.Floor((finite[i].X-first.X)/span)+1)
		low, high := i, i
		for i++; i < len(finite) && finite[i].X < end; i++ {
			if finite[i].Y < finite[low].Y {
				low = i
			}
			if finite[i].Y > finite[high].Y {
				high = i
			}
		}
		out = append(out, finite[min(low, high)])
		if low != high {
			out = append(out, finite[max(low, high)])
		}
	}
	return append(out, last)
}

// newPlot returns a plot without data.
func newPlot(title, x, y string) *plot.Plot {
	p := plot.New()
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = title, x, y
	p.Title.TextStyle.Font.Size, p.Title.Padding = vg.Points(14), vg.Points(6)
	p.Legend.Top, p.Legend.XOffs, p.Legend.YOffs, p.Legend.Padding = true, -vg.Points(10), -vg.Points(6), vg.Points(3)
	for _, f := range []*font.Font{
		&p.Title.TextStyle.Font, &p.Legend.TextStyle.Font,
		&p.X.Label.TextStyle.Font, &p.X.Tick.Label.Font, &p.Y.Label.TextStyle.Font, &p.Y.Tick.Label.Font,
	} {
		f.Variant = "Sans"
	}
	grid := plotter.NewGrid()
	grid.Vertical.Color, grid.Horizontal.Color = color.Gray{Y: 225}, color.Gray{Y: 225}
	p.Add(grid)
	return p
}

// newCanvas returns a canvas for SVG or PNG, and what writes it.
func newCanvas(width, height vg.Length, svg bool) (vg.CanvasSizer, io.WriterTo) {
	if svg {
		c := vgsvg.New(width, height)
		return c, c
	}
	c := vgimg.New(width, height)
	return c, vgimg.PngCanvas{Canvas: c}
}

// render draws a plot as PNG.
func render(p *plot.Plot) ([]byte, error) {
	// A margin keeps the labels at the ends of the axes inside the picture.
	canvas, out := newCanvas(10*vg.Inch, 6.25*vg.Inch, false)
	p.Draw(draw.Crop(draw.New(canvas), vg.Points(8), -vg.Points(16), vg.Points(6), -vg.Points(6)))
	var b bytes.Buffer
	_, err := out.WriteTo(&b)
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

// Average smooths values that come one after another: an exponential moving average over
// about as many as a tenth of those there were, but not fewer than 5 and not more than 200.
// So it follows the steep start of a curve, and is calm where that is flat.
type Average struct {
	n, mean float64
}

// Add returns the average with one more value.
func (a *Average) Add(y float64) float64 {
	a.n++
	a.mean += (y - a.mean) / min(a.n, max(5, a.n/10), 200)
	return a.mean
}

// Smooth returns the Average of points at each of them.
func Smooth(points []Point) []Point {
	out := make([]Point, len(points))
	var avg Average
	for i, p := range points {
		out[i] = Point{p.X, avg.Add(p.Y)}
	}
	return out
}
