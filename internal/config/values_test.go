package config

import (
	"math"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestParseSize(t *testing.T) {
	for text, want := range map[string]Size{
		"0": 0, "1": 1, "1024": 1024, "32MiB": 32 << 20, "5MB": 5e6, "5 MB": 5e6, "1.5KiB": 1536, "1GiB": 1 << 30,
		"": -1, "x": -1, "32MBx": -1, "-1": -1, "1e3": -1, "9EiB": -1, "99999999999EB": -1, "NaN": -1, "inf": -1,
	} {
		got, ok := parseSize(text)
		if ok != (want >= 0) || ok && got != want {
			t.Errorf("%q: got %d, %v; want %d", text, got, ok, want)
		}
	}
}

func TestSizeTextIsExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := Size(rapid.Int64Range(0, 1<<50).Draw(t, "n"))
		if got, ok := parseSize(n.String()); !ok || got != n {
			t.Fatalf("%d is written %q and parsed as %d, %v", int64(n), n, got, ok)
		}
	})
}

func TestParseDuration(t *testing.T) {
	const day = 24 * time.Hour
	for text, want := range map[string]time.Duration{
		"0": 0, "2s": 2 * time.Second, "1h30m": 90 * time.Minute, "30d": 30 * day, "1w": 7 * day, "1w2d12h": 9*day + 12*time.Hour,
		"0.5d": 12 * time.Hour, "1d1ms": day + time.Millisecond, "15250w": 15250 * 7 * day,
		"": -1, "d": -1, "w": -1, "1": -1, "1x": -1, "-1s": -1, "-1d": -1, "1d-1h": -1, "1d2w": -1, "1dd": -1, "1wd": -1,
		"99999w": -1, "15250w9d": -1, "15250w1e9h": -1, "106751d24h": -1, "1e3d": -1, "2 hours": -1,
	} {
		got, ok := parseDuration(text)
		if ok != (want >= 0) || ok && got != want {
			t.Errorf("%q: got %v, %v; want %v", text, got, ok, want)
		}
	}
}

func TestParseLimit(t *testing.T) {
	for text, want := range map[string]Limit{
		"0": {}, "20": {Count: 20}, "50%": {Percent: 50, ByPercent: true}, "0%": {ByPercent: true}, "12.5 %": {Percent: 12.5, ByPercent: true},
		"off": {Percent: 100, ByPercent: true},
	} {
		got, ok := parseLimit(text)
		if !ok || got != want {
			t.Errorf("%q: got %+v, %v; want %+v", text, got, ok, want)
		}
		if again, ok := parseLimit(got.String()); !ok || again != want {
			t.Errorf("%q is written %q", text, got)
		}
	}
	for _, text := range []string{"", "%", "-1", "-1%", "101%", "1e1%", "half", "1.5", "99999999999"} {
		if got, ok := parseLimit(text); ok {
			t.Errorf("%q: got %+v", text, got)
		}
	}
}

func TestAdHocNameIsStableAndUnique(t *testing.T) {
	roots := map[string]Root{
		"docs":                  {Dir: "/home/me/docs"},
		"Mydocs":                {Dir: "/home/me/My docs"},
		"root":                  {Dir: "/"},
		"s":                     {Dir: "/dir/§ß-s-"},
		"bucket":                {URL: "s3://bucket"},
		"prefix":                {URL: "s3://bucket?prefix=a/prefix/"},
		strings.Repeat("x", 40): {Dir: "/" + strings.Repeat("x", 300)},
	}
	for want, root := range roots {
		got := AdHocName(root)
		if got[:len(got)-9] != want || got[len(got)-9] != '-' || !namePattern.MatchString(got) {
			t.Errorf("%v: %q, want %q and 8 digits", root, got, want)
		}
	}
	// The inventory contains the name, so it must never change.
	if got := AdHocName(Root{Dir: "/home/me/docs"}); got != "docs-bd8b64e7" {
		t.Errorf("the name of /home/me/docs has become %q", got)
	}
	if AdHocName(Root{Dir: "/a/docs"}) == AdHocName(Root{Dir: "/b/docs"}) {
		t.Error("two roots have the same name")
	}
}

func TestEditDistance(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want int
	}{
		{"", "", 0}, {"a", "", 1}, {"", "ab", 2}, {"abc", "abc", 0}, {"abc", "acb", 1}, {"kitten", "sitting", 3}, {"inclde", "include", 1},
		{strings.Repeat("a", 101), "a", math.MaxInt},
	} {
		if got := edits(tt.a, tt.b); got != tt.want {
			t.Errorf("edits(%q, %q) = %d, want %d", tt.a, tt.b, got, tt.want)
		}
	}
}
