package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// The results of a run. results.json has them as they are.
type results struct {
	Machine machine       `json:"machine"`
	Scale   string        `json:"scale"`
	Rows    []*row        `json:"rows"`
	Growth  []*growth     `json:"growth"`
	Workers []*workerRate `json:"workers"`
}

// A row is a work that several programs do.
type row struct {
	ID     string    `json:"id"` // as in the issue about performance
	Work   string    `json:"work"`
	Series []*series `json:"series"`
	Checks []*check  `json:"checks"`
}

// A series is what the runs of one program gave.
type series struct {
	Program string    `json:"program"`
	Missing string    `json:"missing,omitempty"` // why the program did not run
	Unit    string    `json:"unit"`
	Values  []float64 `json:"values"`
	Seconds []float64 `json:"seconds"` // of the whole process
	PeakMiB []float64 `json:"peak_mib"`
}

func (s *series) add(x sample) {
	s.Values = append(s.Values, x.value)
	s.Seconds = append(s.Seconds, x.usage.Seconds)
	s.PeakMiB = append(s.PeakMiB, float64(x.usage.Peak)/(1<<20))
}

// value is the median of the values; NaN without a run.
func (s *series) value() float64 { return median(s.Values) }

// peak is the highest peak in MiB; NaN without a run, or if the system does not report it.
func (s *series) peak() float64 {
	if len(s.PeakMiB) == 0 || slices.Max(s.PeakMiB) == 0 {
		return math.NaN()
	}
	return slices.Max(s.PeakMiB)
}

func median(values []float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	if len(sorted)%2 == 0 {
		return (sorted[middle-1] + sorted[middle]) / 2
	}
	return sorted[middle]
}

// A check compares a number with its target.
type check struct {
	What    string  `json:"what"`
	Value   number  `json:"value"`
	Unit    string  `json:"unit"`
	Target  float64 `json:"target,omitempty"` // 0 if there is none
	AtLeast bool    `json:"at_least,omitempty"`
	Verdict string  `json:"verdict"`
}

// A number is null in JSON if it was not measured.
type number float64

func (n number) MarshalJSON() ([]byte, error) {
	if math.IsNaN(float64(n)) || math.IsInf(float64(n), 0) {
		return []byte("null"), nil
	}
	return json.Marshal(float64(n))
}

// atMost adds a number that may be at most the target; without a target if that is 0.
func (r *row) atMost(what string, value float64, unit string, target float64) {
	r.judge(&check{What: what, Value: number(value), Unit: unit, Target: target}, value <= target)
}

// atLeast adds a number that must be at least the target.
func (r *row) atLeast(what string, value float64, unit string, target float64) {
	r.judge(&check{What: what, Value: number(value), Unit: unit, Target: target, AtLeast: true}, value >= target)
}

func (r *row) judge(c *check, met bool) {
	switch {
	case math.IsNaN(float64(c.Value)):
		c.Verdict = "not measured"
	case c.Target == 0:
		c.Verdict = "no target"
	case met:
		c.Verdict = "met"
	default:
		c.Verdict = "missed"
	}
	r.Checks = append(r.Checks, c)
}

// row adds a row.
func (r *results) row(id, work string, all ...*series) *row {
	added := &row{ID: id, Work: work, Series: all}
	r.Rows = append(r.Rows, added)
	return added
}

// write writes the table, the numbers and the plots.
func (r *results) write(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(dir, "results.json"), append(data, '\n'), 0o644),
		os.WriteFile(filepath.Join(dir, "results.md"), []byte(r.markdown()), 0o644),
		r.plot(dir),
	)
}

// markdown returns the tables.
func (r *results) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Results of `make bench`\n\n%s\n", r.Machine)
	if r.Scale != "full" {
		fmt.Fprintf(&b, "\nThe scale is %s: smaller corpora and fewer rounds. The start of a program weighs more in them, so the targets, which are meant\n"+
			"for the full scale, say little.\n", r.Scale)
	}
	b.WriteString("\n## Targets\n\n| row | work | measured | value | target | verdict |\n| --- | --- | --- | --- | --- | --- |\n")
	for _, row := range r.Rows {
		for _, c := range row.Checks {
			fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s |\n", row.ID, row.Work, c.What, format(float64(c.Value), c.Unit), c.target(), c.Verdict)
		}
	}
	b.WriteString("\n## Programs\n\nMedians, with the lowest and the highest value. The peak is the highest resident memory of all runs.\n\n" +
		"| row | work | program | value | from | to | whole run | peak | runs |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n")
	for _, row := range r.Rows {
		for _, s := range row.Series {
			fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", row.ID, row.Work, s.Program, s.cells())
		}
	}
	r.markdownGrowth(&b)
	return b.String()
}

func (r *results) markdownGrowth(b *strings.Builder) {
	if len(r.Growth) > 0 {
		b.WriteString("\n## Growth\n\n| documents | first sync | peak | nothing changed | peak | sorted walk | state | bytes a document beyond its key |\n" +
			"| --- | --- | --- | --- | --- | --- | --- | --- |\n")
	}
	for _, g := range r.Growth {
		fmt.Fprintf(b, "| %d | %s | %s | %s | %s | %s | %s | %.0f |\n", g.Documents,
			format(g.First.value(), "s"), format(g.First.peak(), "MiB"), format(g.Unchanged.value(), "s"), format(g.Unchanged.peak(), "MiB"),
			format(g.Walk.value(), "s"), format(float64(g.StateBytes)/(1<<20), "MiB"), g.BytesEach)
	}
	if len(r.Workers) > 0 {
		b.WriteString("\n## Workers\n\n| what | number | documents/s | times one |\n| --- | --- | --- | --- |\n")
	}
	one := map[string]float64{}
	for _, w := range r.Workers {
		one[w.What] = cmp.Or(one[w.What], w.Rate)
		if w.Missing != "" {
			fmt.Fprintf(b, "| %s | | not here: %s | |\n", w.What, w.Missing)
			continue
		}
		fmt.Fprintf(b, "| %s | %d | %.0f | %.2f |\n", w.What, w.Number, w.Rate, w.Rate/one[w.What])
	}
}

func (c *check) target() string {
	if c.Target == 0 {
		return ""
	}
	word := "at most "
	if c.AtLeast {
		word = "at least "
	}
	return word + format(c.Target, c.Unit)
}

// cells returns the cells of a series.
func (s *series) cells() string {
	if len(s.Values) == 0 {
		return "not here: " + cmp.Or(s.Missing, "it failed") + " | | | | | 0"
	}
	whole := ""
	if s.Unit != "s" {
		whole = format(median(s.Seconds), "s")
	}
	return strings.Join([]string{
		format(s.value(), s.Unit), format(slices.Min(s.Values), s.Unit), format(slices.Max(s.Values), s.Unit),
		whole, format(s.peak(), "MiB"), fmt.Sprint(len(s.Values)),
	}, " | ")
}

// format prints three digits of a number, or all before the point.
func format(value float64, unit string) string {
	if math.IsNaN(value) || math.IsInf(value, 0) {
		return ""
	}
	digits := 0
	for limit := 100.0; digits < 3 && math.Abs(value) < limit; limit /= 10 {
		digits++
	}
	text := fmt.Sprintf("%.*f", digits, value)
	if unit == "" || unit == "x" {
		return text + unit
	}
	return text + " " + unit
}
