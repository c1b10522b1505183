package watcher

import "fmt"

// A Limit bounds the removals or the changes of one scan: by a share of the known documents, or by a number. The zero value
// allows none.
type Limit struct {
	Count     int     // used if ByPercent is false
	Percent   float64 // 0 to 100; used if ByPercent is true
	ByPercent bool
	// Always is the number that the limit allows whatever the share is, because in a small root a few documents are a large share.
	Always int
}

// exceeded reports whether n of the known documents are more than the limit allows.
func (l Limit) exceeded(n, known int) bool {
	switch {
	case n <= l.Always:
		return false
	case !l.ByPercent:
		return n > l.Count
	}
	return float64(n)*100 > l.Percent*float64(known)
}

func (l Limit) String() string {
	if l.ByPercent {
		return fmt.Sprintf("%g%%", l.Percent)
	}
	return fmt.Sprint(l.Count)
}
