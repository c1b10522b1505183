package main

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestHarnessRuns only checks that all of it runs, with corpora that are too small to say anything.
func TestHarnessRuns(t *testing.T) {
	if _, err := os.Stat("../../bin/kbsync"); errors.Is(err, fs.ErrNotExist) {
		t.Skip("bin/kbsync is missing: run make build")
	}
	out := t.TempDir()
	err := run(t.Context(), []string{"-scale", "tiny", "-install=false", "-tools", t.TempDir(), "-dir", t.TempDir(), "-out", out}, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(out, "results.json"))
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Rows []struct {
			ID     string
			Series []struct {
				Program string
				Missing string
				Values  []float64
			}
			Checks []struct{ Verdict string }
		}
		Growth, Workers []any
	}
	if err := json.Unmarshal(data, &got); err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, row := range got.Rows {
		ids = append(ids, row.ID)
		if len(row.Checks) == 0 {
			t.Errorf("%s compares nothing", row.ID)
		}
		for _, s := range row.Series {
			if (len(s.Values) == 0) == (s.Missing == "") {
				t.Errorf("%s: %s has the values %v and is missing because of %q", row.ID, s.Program, s.Values, s.Missing)
			}
		}
	}
	for _, id := range []string{"P1", "P2", "P2b", "P3", "P4", "P5", "P5b", "P6", "P7", "P8", "P9", "P10", "P11", "P12"} {
		if !slices.Contains(ids, id) {
			t.Errorf("row %s is missing", id)
		}
	}
	if len(got.Growth) != 2 || len(got.Workers) != 2 {
		t.Errorf("growth %v, workers %v", got.Growth, got.Workers)
	}
	table, err := os.ReadFile(filepath.Join(out, "results.md"))
	if err != nil || !strings.Contains(string(table), "| P12 | ") {
		t.Errorf("%v\n%s", err, table)
	}
	for _, name := range []string{"targets", "growth-time", "growth-memory", "growth-state", "workers"} {
		checkXML(t, filepath.Join(out, name+".svg"))
	}
}

func checkXML(t *testing.T, path string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Error(err)
		return
	}
	defer f.Close()
	elements := 0
	for decoder := xml.NewDecoder(f); ; elements++ {
		if _, err := decoder.Token(); err == io.EOF {
			break
		} else if err != nil {
			t.Errorf("%s: %v", path, err)
			return
		}
	}
	if elements < 20 {
		t.Errorf("%s has only %d elements", path, elements)
	}
}

func TestVerdicts(t *testing.T) {
	r := &row{}
	r.atMost("", 1.25, "x", 1.25)
	r.atMost("", 1.26, "x", 1.25)
	r.atLeast("", 20_000, "files/s", 20_000)
	r.atLeast("", 19_999, "files/s", 20_000)
	r.atMost("", math.NaN(), "x", 1)
	r.atLeast("", math.NaN(), "x", 0)
	r.atMost("", 7, "MiB", 0)
	for i, want := range []string{"met", "missed", "met", "missed", "not measured", "not measured", "no target"} {
		if got := r.Checks[i].Verdict; got != want {
			t.Errorf("check %d is %q, not %q", i, got, want)
		}
	}
}

func TestMissingProgramIsNamedInTheTable(t *testing.T) {
	r := &results{}
	row := r.row("P1", "work", &series{Program: "kbsync", Unit: "s", Values: []float64{3, 1, 2}, PeakMiB: []float64{7, 9, 8}},
		&series{Program: "rclone", Unit: "s", Missing: "rclone is missing"})
	row.atMost("ratio", row.Series[0].value()/row.Series[1].value(), "x", 0.5)
	table := r.markdown()
	for _, line := range []string{
		"| P1 | work | ratio |  | at most 0.500x | not measured |",
		"| P1 | work | kbsync | 2.00 s | 1.00 s | 3.00 s |  | 9.00 MiB | 3 |",
		"| P1 | work | rclone | not here: rclone is missing | | | | | 0 |",
	} {
		if !strings.Contains(table, line+"\n") {
			t.Errorf("the table lacks %s\n%s", line, table)
		}
	}
	if _, err := json.Marshal(r); err != nil {
		t.Errorf("a number that was not measured breaks the JSON: %v", err)
	}
}

func TestMedian(t *testing.T) {
	if got := median([]float64{5, 1, 3}); got != 3 {
		t.Error(got)
	}
	if got := median([]float64{4, 1, 3, 2}); got != 2.5 {
		t.Error(got)
	}
	if got := median(nil); !math.IsNaN(got) {
		t.Error(got)
	}
}

func TestCorporaAreEqualAndADayOld(t *testing.T) {
	c := corpus{"T", 110, 1 << 10}
	read := func() map[string]string {
		h := &harness{dir: t.TempDir(), log: t.Output()}
		dir, err := h.corpus(c)
		if err != nil {
			t.Fatal(err)
		}
		all := map[string]string{}
		keys := int64(0)
		err = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() {
				return err
			}
			info, err := entry.Info()
			if err != nil {
				return err
			}
			if age := time.Since(info.ModTime()); age < 23*time.Hour || age > 25*time.Hour {
				t.Errorf("%s is %v old", path, age)
			}
			if info.Size() < 512 || info.Size() >= 1536 {
				t.Errorf("%s has %d bytes", path, info.Size())
			}
			content, err := os.ReadFile(path)
			key, _ := filepath.Rel(dir, path)
			all[string(content)] = key
			keys += int64(len(key))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if keys != c.keys() {
			t.Errorf("the keys have %d bytes, not %d", keys, c.keys())
		}
		return all
	}
	first, second := read(), read()
	if len(first) != c.Files {
		t.Errorf("%d different contents", len(first))
	}
	for content, key := range first {
		if second[content] != key {
			t.Errorf("%s differs", key)
		}
	}
}

func TestMetricsOfABenchmark(t *testing.T) {
	m := parseMetrics("goos: linux\nBenchmarkP7Requests-2   \t       1\t  83217 ns/op\t       249 requests\nPASS\nok  \tx\t1.2s\n")
	if m.get("requests") != 249 || m.get("ns/op") != 83217 || !math.IsNaN(m.get("other")) {
		t.Error(m)
	}
}
