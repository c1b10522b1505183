package config

import (
	"fmt"
	"math"
	"strings"
)

// suggest asks whether the user meant the nearest of the names. If no name is
// near it returns otherwise.
func suggest(name string, names []string, otherwise string) string {
	best, distance := "", math.MaxInt
	for _, n := range names {
		if d := edits(simplify(name), simplify(n)); d < distance {
			best, distance = n, d
		}
	}
	if best == "" || distance > max(1, min(len(simplify(name))/3, 4)) {
		return otherwise
	}
	return fmt.Sprintf("did you mean %s?", best)
}

// simplify removes prefix, case and separators, so that a flag, a variable and
// a key of the same setting compare equal.
func simplify(name string) string {
	name = strings.TrimPrefix(name, "KBSYNC_")
	return strings.ToLower(strings.NewReplacer("_", "", "-", "", ".", "").Replace(name))
}

// edits returns the edit distance of a and b: the number of letters to insert,
// delete, replace or swap with the next letter.
func edits(a, b string) int {
	if len(a) > 100 {
		return math.MaxInt
	}
	before, last := []int(nil), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range len(a) {
		row := make([]int, len(b)+1)
		row[0] = i + 1
		for j := range len(b) {
			change := 1
			if a[i] == b[j] {
				change = 0
			}
			row[j+1] = min(last[j]+change, last[j+1]+1, row[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}
