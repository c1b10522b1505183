package main

import (
	"testing"
	"time"
)

func TestParseAgeReadsDaysWeeksAndDurations(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Duration{
		"30d": 720 * time.Hour, "2w": 336 * time.Hour, "12h": 12 * time.Hour, "0d": 0,
		"": -1, "d": -1, "-1d": -1, "-5h": -1, "1.5d": -1, "soon": -1, "99999999d": -1,
	} {
		got, err := parseAge(text)
		if err != nil {
			got = -1
		}
		if got != want {
			t.Errorf("parseAge(%q) = %v, %v, want %v", text, got, err, want)
		}
	}
}
