package main

import (
	"encoding/csv"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A soakSeries is one of the values of a soak over time.
type soakSeries struct {
	name string
	of   func(soakSample) int
}

var soakSeriesAll = []soakSeries{
	{"resident_mib", func(s soakSample) int { return s.resident }},
	{"program_mib", func(s soakSample) int { return s.program }},
	{"heap_mib", func(s soakSample) int { return s.heap }},
	{"heap_kept_mib", func(s soakSample) int { return s.kept }},
	{"open_files", func(s soakSample) int { return s.files }},
	{"goroutines", func(s soakSample) int { return s.goroutines }},
	{"child_processes", func(s soakSample) int { return s.processes }},
}

// writeSoak writes the samples, every apart, to soak.csv and soak.svg in the directory that SOAK_OUT names, if it is set.
func writeSoak(tb testing.TB, samples []soakSample, every time.Duration) {
	tb.Helper()
	dir := os.Getenv("SOAK_OUT")
	if dir == "" {
		return
	}
	var table strings.Builder
	w := csv.NewWriter(&table)
	row := []string{"seconds"}
	for _, s := range soakSeriesAll {
		row = append(row, s.name)
	}
	err := w.Write(row)
	for i, sample := range samples {
		row = []string{strconv.FormatFloat((time.Duration(i+1) * every).Seconds(), 'f', 1, 64)}
		for _, s := range soakSeriesAll {
			row = append(row, strconv.Itoa(s.of(sample)))
		}
		err = errors.Join(err, w.Write(row))
	}
	w.Flush()
	err = errors.Join(err, w.Error(), os.MkdirAll(dir, 0o755),
		os.WriteFile(filepath.Join(dir, "soak.csv"), []byte(table.String()), 0o644),
		os.WriteFile(filepath.Join(dir, "soak.svg"), []byte(plotSoak(samples, every)), 0o644))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Logf("the samples are in %s", dir)
}

// plotSoak draws a line for each series, each in a strip of its own that begins at zero.
func plotSoak(samples []soakSample, every time.Duration) string {
	const width, strip, left, top = 760, 90, 20, 24
	var svg strings.Builder
	fmt.Fprintf(&svg, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="12">`+"\n",
		width+2*left, len(soakSeriesAll)*strip+top)
	svg.WriteString(`<rect width="100%" height="100%" fill="white"/>` + "\n")
	for i, s := range soakSeriesAll {
		values := make([]int, len(samples))
		for j, sample := range samples {
			values[j] = s.of(sample)
		}
		most := 0
		if len(values) > 0 {
			most = slices.Max(values)
		}
		bottom := (i+1)*strip - 10
		fmt.Fprintf(&svg, `<text x="%d" y="%d">%s, at most %d</text>`+"\n", left, bottom-strip+22, s.name, most)
		fmt.Fprintf(&svg, `<line x1="%d" y1="%d" x2="%d" y2="%d" stroke="silver"/>`+"\n", left, bottom, left+width, bottom)
		svg.WriteString(`<polyline fill="none" stroke="navy" points="`)
		for j, v := range values {
			fmt.Fprintf(&svg, "%.1f,%.1f ", left+float64(width*j)/float64(max(len(values)-1, 1)), float64(bottom)-float64((strip-30)*v)/float64(max(most, 1)))
		}
		svg.WriteString(`"/>` + "\n")
	}
	fmt.Fprintf(&svg, `<text x="%d" y="%d">%v in all</text>`+"\n</svg>\n", left, len(soakSeriesAll)*strip+top-8, time.Duration(len(samples))*every)
	return svg.String()
}

func TestSoakPlotHasEachSample(t *testing.T) {
	t.Parallel()
	samples := []soakSample{{60, 30, 20, 5, 15, 40, 1}, {62, 30, 21, 5, 15, 44, 0}, {61, 30, 20, 6, 16, 41, 2}}
	svg := plotSoak(samples, time.Second)
	if n := strings.Count(svg, "<polyline"); n != len(soakSeriesAll) {
		t.Errorf("%d lines, want %d", n, len(soakSeriesAll))
	}
	points := strings.Count(svg, ",") - strings.Count(svg, ", at most")
	if want := len(samples) * len(soakSeriesAll); points != want {
		t.Errorf("%d points, want %d", points, want)
	}
	if !strings.Contains(svg, "resident_mib, at most 62") {
		t.Error(svg)
	}
}
