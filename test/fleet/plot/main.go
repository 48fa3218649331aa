// Command plot draws the series of bench-fleet: requests a second that Vault answered, those that it refused while it
// was sealed, and the bound of the peak after its return. In this folder:
//
//	go run . -csv ../../../bin/fleet.csv -out ../../../docs/fleet.svg
//
// It is in a Go module of its own, so that the daemon's does not know the plotting library.
package main

import (
	"encoding/csv"
	"errors"
	"flag"
	"fmt"
	"image/color"
	"os"
	"slices"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

func main() {
	from := flag.String("csv", "", "series, as bench-fleet writes it")
	to := flag.String("out", "", "file to write; its extension names the format: svg, png or pdf")
	flag.Parse()
	if err := run(*from, *to); err != nil {
		fmt.Fprintln(os.Stderr, "plot:", err)
		os.Exit(1)
	}
}

// series is what came in each second.
type series struct {
	phase   []string
	columns map[string]plotter.XYs
}

func read(path string) (*series, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	rows, err := csv.NewReader(file).ReadAll()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if len(rows) < 2 || len(rows[0]) < 3 {
		return nil, fmt.Errorf("%s: no series", path)
	}
	s := &series{columns: map[string]plotter.XYs{}}
	for _, row := range rows[1:] {
		s.phase = append(s.phase, row[1])
		for i, text := range row {
			if i == 1 {
				continue
			}
			value, err := strconv.ParseFloat(text, 64)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", path, err)
			}
			s.columns[rows[0][i]] = append(s.columns[rows[0][i]], plotter.XY{X: float64(len(s.phase) - 1), Y: value})
		}
	}
	return s, nil
}

// sum adds columns up.
func (s *series) sum(columns ...string) plotter.XYs {
	all := make(plotter.XYs, len(s.phase))
	for i := range all {
		all[i].X = float64(i)
		for _, column := range columns {
			all[i].Y += s.columns[column][i].Y
		}
	}
	return all
}

var (
	blue   = color.RGBA{R: 0x1f, G: 0x5f, B: 0xa8, A: 0xff}
	orange = color.RGBA{R: 0xe0, G: 0x82, B: 0x14, A: 0xff}
	grey   = color.RGBA{R: 0xa0, G: 0xa0, B: 0xa0, A: 0xff}
	red    = color.RGBA{R: 0xc0, G: 0x20, B: 0x20, A: 0xff}
	black  = color.RGBA{A: 0xff}
	shade  = color.RGBA{R: 0xf2, G: 0xea, B: 0xe0, A: 0xff}
)

func run(from, to string) error {
	if from == "" || to == "" {
		return errors.New("-csv and -out are required")
	}
	s, err := read(from)
	if err != nil {
		return err
	}
	answered := s.sum("metadata", "login", "data", "other")
	steady := s.columns["steady"][0].Y
	// The start, and the first retries of an outage, are far above everything else: told in words, not drawn to scale.
	top := 4.8 * steady

	p := plot.New()
	p.Title.Text = "Requests to Vault, in each second"
	p.Title.TextStyle.Font.Size = vg.Points(13)
	p.X.Label.Text = "time since the start (s)"
	p.Y.Label.Text = "requests per second (1/s)"
	p.X.Min, p.X.Max = 0, 1.06*float64(len(s.phase)) // room for the name of the last phase
	p.Y.Min, p.Y.Max = 0, top
	p.X.Tick.Marker = every(60)
	p.Y.Tick.Marker = every(20)
	// Beside the burst of the start. On the left, as a font that is wider than ours then reaches into nothing.
	p.Legend.Top, p.Legend.Left, p.Legend.XOffs = true, true, 1.4*vg.Centimeter
	p.Legend.Padding = vg.Points(2)
	p.Legend.TextStyle.Font.Size = vg.Points(9)

	if err := s.shadePhases(p, top, steady); err != nil {
		return err
	}
	p.Add(plotter.NewGrid())
	for _, l := range []struct {
		name   string
		values plotter.XYs
		color  color.Color
		width  vg.Length
	}{
		{"refused with 503, sealed", s.columns["sealed"], grey, 0.8},
		{"answered", answered, blue, 0.9},
		{"of them logins", s.columns["login"], orange, 0.9},
	} {
		line, err := plotter.NewLine(cut(l.values, top))
		if err != nil {
			return err
		}
		line.Color, line.Width = l.color, l.width
		p.Add(line)
		p.Legend.Add(l.name, line)
	}
	for _, l := range []struct {
		name  string
		at    float64
		color color.Color
	}{
		{fmt.Sprintf("steady: %.0f/s", steady), steady, black},
		{fmt.Sprintf("bound after the return, 3 x steady: %.0f/s", 3*steady), 3 * steady, red},
	} {
		line, err := plotter.NewLine(plotter.XYs{{X: 0, Y: l.at}, {X: p.X.Max, Y: l.at}})
		if err != nil {
			return err
		}
		line.Color, line.Width, line.Dashes = l.color, vg.Points(1.2), []vg.Length{vg.Points(5), vg.Points(3)}
		p.Add(line)
		p.Legend.Add(l.name, line)
	}
	for _, cut := range []struct {
		values plotter.XYs
		says   string
	}{
		{answered, "all start at once: up to %.0f/s"},
		{s.columns["sealed"], "sealed, first retries: up to %.0f/s"},
	} {
		burst := slices.MaxFunc(cut.values, func(a, b plotter.XY) int { return int(a.Y - b.Y) })
		if burst.Y <= top {
			continue
		}
		note, err := plotter.NewLabels(plotter.XYLabels{
			XYs:    plotter.XYs{{X: burst.X, Y: 3.7 * steady}},
			Labels: []string{fmt.Sprintf(cut.says, burst.Y)},
		})
		if err != nil {
			return err
		}
		note.Offset.X = vg.Points(24) // beside what is cut off
		note.TextStyle[0].Font.Size = vg.Points(9)
		p.Add(note)
	}
	return p.Save(24*vg.Centimeter, 12*vg.Centimeter, to)
}

// shadePhases marks when Vault was sealed, and writes the name of each phase above it.
func (s *series) shadePhases(p *plot.Plot, top, steady float64) error {
	names := map[string]string{"steady": "steady", "sealed": "Vault sealed", "back": "back", "rotation": "rotation"}
	for i := 0; i < len(s.phase); {
		end := i
		for end < len(s.phase) && s.phase[end] == s.phase[i] {
			end++
		}
		if s.phase[i] == "sealed" {
			area, err := plotter.NewPolygon(plotter.XYs{{X: float64(i), Y: 0}, {X: float64(i), Y: top}, {X: float64(end), Y: top}, {X: float64(end), Y: 0}})
			if err != nil {
				return err
			}
			area.Color, area.LineStyle.Width = shade, 0
			p.Add(area)
		}
		if name := names[s.phase[i]]; name != "" {
			border, err := plotter.NewLine(plotter.XYs{{X: float64(i), Y: 0}, {X: float64(i), Y: top}})
			if err != nil {
				return err
			}
			border.Color, border.Width = grey, vg.Points(0.7)
			label, err := plotter.NewLabels(plotter.XYLabels{XYs: plotter.XYs{{X: float64(i), Y: 3.25 * steady}}, Labels: []string{name}})
			if err != nil {
				return err
			}
			label.Offset.X = vg.Points(4)
			label.TextStyle[0].Font.Size = vg.Points(10)
			label.TextStyle[0].YAlign = draw.YCenter
			p.Add(border, label)
		}
		i = end
	}
	return nil
}

// cut draws what is above the top along it.
func cut(values plotter.XYs, top float64) plotter.XYs {
	cut := slices.Clone(values)
	for i := range cut {
		cut[i].Y = min(cut[i].Y, top)
	}
	return cut
}

// every marks the multiples of a distance.
type every float64

func (e every) Ticks(min, max float64) (ticks []plot.Tick) {
	for v := 0.0; v <= max; v += float64(e) {
		if v >= min {
			ticks = append(ticks, plot.Tick{Value: v, Label: strconv.FormatFloat(v, 'f', 0, 64)})
		}
	}
	return ticks
}
