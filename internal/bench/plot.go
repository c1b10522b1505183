package main

import (
	"errors"
	"fmt"
	"image/color"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// plot draws the results as SVG.
func (r *results) plot(dir string) error {
	for _, name := range []string{"targets", "growth-time", "growth-memory", "growth-state", "workers"} {
		if err := os.Remove(filepath.Join(dir, name+".svg")); err != nil && !errors.Is(err, fs.ErrNotExist) { // of an earlier run
			return err
		}
	}
	err := r.plotTargets(filepath.Join(dir, "targets.svg"))
	if len(r.Growth) > 1 {
		err = errors.Join(err,
			r.plotGrowth(filepath.Join(dir, "growth-time.svg"), "Time of a run", "seconds", map[string]func(*growth) float64{
				"first sync":      func(g *growth) float64 { return g.First.value() },
				"nothing changed": func(g *growth) float64 { return g.Unchanged.value() },
				"sorted walk":     func(g *growth) float64 { return g.Walk.value() },
			}),
			r.plotGrowth(filepath.Join(dir, "growth-memory.svg"), "Peak memory", "MiB", map[string]func(*growth) float64{
				"first sync":      func(g *growth) float64 { return g.First.peak() },
				"nothing changed": func(g *growth) float64 { return g.Unchanged.peak() },
			}),
			r.plotGrowth(filepath.Join(dir, "growth-state.svg"), "Size of the state", "MiB", map[string]func(*growth) float64{
				"state": func(g *growth) float64 { return float64(g.StateBytes) / (1 << 20) },
			}),
		)
	}
	return errors.Join(err, r.plotWorkers(filepath.Join(dir, "workers.svg")))
}

// plotTargets draws how much of its target each number needs: a bar that ends before 1 meets it.
func (r *results) plotTargets(path string) error {
	const most = 3.0
	var names []string
	var used plotter.Values
	for _, row := range slices.Backward(r.Rows) {
		for _, c := range slices.Backward(row.Checks) {
			share := float64(c.Value) / c.Target
			if c.AtLeast {
				share = 1 / share
			}
			if c.Target == 0 || math.IsNaN(share) || math.IsInf(share, 0) {
				continue
			}
			names = append(names, row.ID+" "+c.What)
			used = append(used, min(max(share, 0), most))
		}
	}
	if len(used) == 0 {
		return nil
	}
	p := plot.New()
	p.Title.Text = "Share of the target (above 1: missed; cut at 3)"
	bars, err := plotter.NewBarChart(used, vg.Points(7))
	if err != nil {
		return err
	}
	bars.Horizontal, bars.Color, bars.LineStyle.Width = true, plotutil.Color(2), 0
	line, err := plotter.NewLine(plotter.XYs{{X: 1, Y: -0.5}, {X: 1, Y: float64(len(used)) - 0.5}})
	if err != nil {
		return err
	}
	line.Color = color.RGBA{R: 200, A: 255}
	labels := plotter.XYLabels{Labels: names}
	for i := range names {
		labels.XYs = append(labels.XYs, plotter.XY{X: most + 0.05, Y: float64(i) - 0.2})
	}
	text, err := plotter.NewLabels(labels)
	if err != nil {
		return err
	}
	p.Add(bars, line, text)
	p.HideY()
	p.X.Min, p.X.Max = 0, 2*most
	p.X.Tick.Marker = plot.ConstantTicks{{Value: 0, Label: "0"}, {Value: 1, Label: "1"}, {Value: 2, Label: "2"}, {Value: most, Label: "3"}}
	return save(p, vg.Points(720), vg.Points(60+14*float64(len(used))), path)
}

// plotGrowth draws lines over the number of documents, both on logarithmic axes. A line as steep as the diagonal is linear.
func (r *results) plotGrowth(path, title, unit string, lines map[string]func(*growth) float64) error {
	points := map[string]plotter.XYs{}
	for name, value := range lines {
		for _, g := range r.Growth {
			if v := value(g); v > 0 { // NaN is not
				points[name] = append(points[name], plotter.XY{X: float64(g.Documents), Y: v})
			}
		}
	}
	return drawLines(path, title, "documents", unit, points, true)
}

// plotWorkers draws the rates over the number of workers, compared with one of them.
func (r *results) plotWorkers(path string) error {
	points, one := map[string]plotter.XYs{}, map[string]float64{}
	for _, w := range r.Workers {
		if w.Missing != "" || w.Rate <= 0 || math.IsNaN(w.Rate) {
			continue
		}
		if one[w.What] == 0 {
			one[w.What] = w.Rate
		}
		points[w.What] = append(points[w.What], plotter.XY{X: float64(w.Number), Y: w.Rate / one[w.What]})
	}
	if len(points) == 0 {
		return nil
	}
	return drawLines(path, "Rate compared with one worker", "workers", "times one", points, false)
}

func drawLines(path, title, x, y string, points map[string]plotter.XYs, logarithmic bool) error {
	p := plot.New()
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = title, x, y
	p.Legend.Top, p.Legend.Left = true, true
	if logarithmic {
		p.X.Scale, p.Y.Scale = plot.LogScale{}, plot.LogScale{}
		p.X.Tick.Marker, p.Y.Tick.Marker = plot.LogTicks{Prec: -1}, plot.LogTicks{Prec: -1}
	}
	p.Add(plotter.NewGrid())
	var names []string
	for name := range points {
		names = append(names, name)
	}
	slices.Sort(names)
	for i, name := range names {
		line, marks, err := plotter.NewLinePoints(points[name])
		if err != nil {
			return fmt.Errorf("plot %s: %w", name, err)
		}
		line.Color, line.Width, marks.Color, marks.Shape = plotutil.Color(i), vg.Points(1.5), plotutil.Color(i), draw.CircleGlyph{}
		p.Add(line, marks)
		p.Legend.Add(name, line, marks)
	}
	if logarithmic {
		// Equal values would have an axis that reaches below zero, where there is no logarithm.
		for _, axis := range []struct {
			of    *plot.Axis
			value func(plotter.XY) float64
		}{
			{&p.X, func(at plotter.XY) float64 { return at.X }},
			{&p.Y, func(at plotter.XY) float64 { return at.Y }},
		} {
			low, high := math.Inf(1), math.Inf(-1)
			for _, line := range points {
				for _, at := range line {
					low, high = min(low, axis.value(at)), max(high, axis.value(at))
				}
			}
			axis.of.Min, axis.of.Max = low/1.5, high*1.5
		}
	}
	return save(p, vg.Points(560), vg.Points(360), path)
}

// save writes a plot with a margin. It embeds no font, which would have half a megabyte; so a label may be wider than its place.
func save(p *plot.Plot, width, height vg.Length, path string) error {
	canvas := vgsvg.New(width, height)
	p.Draw(draw.Crop(draw.New(canvas), 5, -15, 5, -5))
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = canvas.WriteTo(f)
	return errors.Join(err, f.Close())
}
