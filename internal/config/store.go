package config

import (
	"errors"
	"fmt"
	"math"
	"net"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bmatcuk/doublestar/v4"
)

// store reads a text as the setting's kind and keeps it at ptr, which is one
// of the types that the switch has. Its errors go on from the quoted text:
// they say what it is not, and what to write instead.
func (s *Setting) store(ptr any, text, dir string) error {
	if s.off && text == "off" {
		text = "0"
	}
	var ok, zero bool
	switch p := ptr.(type) {
	case *bool:
		b, err := strconv.ParseBool(text)
		*p, ok = b, err == nil
	case *int:
		n, err := strconv.ParseInt(text, 10, 32)
		*p, ok, zero = int(n), err == nil && n >= 0, n == 0
	case *int64:
		n, err := strconv.ParseInt(text, 10, 64)
		*p, ok, zero = n, err == nil && n >= 0, n == 0
	case *float64:
		*p, ok = parseNumber(text)
		zero = *p == 0
	case *Size:
		*p, ok = parseSize(text)
		zero = *p == 0
	case *time.Duration:
		*p, ok = parseDuration(text)
		zero = *p == 0
	case *MaxDelete:
		*p, ok = parseMaxDelete(text)
	case *Root:
		if text == "" {
			return errors.New("is empty; write " + s.such())
		}
		root, err := parsePlace(text, dir, bucketSchemes...)
		*p = root
		return err
	case *string:
		return s.storeText(p, text, dir)
	default:
		return fmt.Errorf("cannot be kept in a %T", ptr) // a hole in the table; a test looks for it
	}
	switch {
	case ok && zero && s.positive:
		return fmt.Errorf("is too small; write more than zero, such as %s", s.sampleValue())
	case ok:
		return nil
	case strings.HasPrefix(text, "-"):
		return fmt.Errorf("is negative; write %s", s.such())
	}
	return fmt.Errorf("is not %s; write %s", s.noun(), s.such())
}

var namePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

func (s *Setting) storeText(p *string, text, dir string) error {
	if text == "" {
		return errors.New("is empty; write " + s.such())
	}
	switch s.Kind {
	case KindName:
		if !namePattern.MatchString(text) {
			return errors.New("is not a name; write up to 64 letters, digits, dots, dashes and underscores, beginning with a letter or digit")
		}
	case KindChoice:
		if !slices.Contains(s.Choices, text) {
			return fmt.Errorf("is not one of %s; %s", strings.Join(s.Choices, ", "), suggest(text, s.Choices, "write one of them"))
		}
	case KindPath:
		path, err := parsePath(text, dir)
		*p = path
		return err
	case KindPlace:
		place, err := parsePlace(text, dir, schemePostgres)
		*p = place.String()
		return err
	case KindURL:
		u, err := parseURL(text)
		if err != nil {
			return err
		}
		if s.Key == "syncs[].heartbeat_url" && (u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "") {
			return fmt.Errorf("cannot be fetched; write %s", s.such())
		}
		if s.Key == "syncs[].notifications" {
			if err := checkSubscription(u); err != nil {
				return err
			}
		}
		if s.Key != "api.url" {
			break
		}
		switch {
		case u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "":
			return fmt.Errorf("is not the address of an API; write %s", s.such())
		case u.RawQuery != "" || u.Fragment != "":
			return errors.New("has a ? or # in it; write the address alone, such as https://api.reply.cx")
		}
		text = strings.TrimRight(text, "/")
	case KindAddress:
		host, port, err := net.SplitHostPort(text)
		if n, e := strconv.ParseUint(port, 10, 16); err != nil || e != nil || n == 0 && port != "0" {
			return fmt.Errorf("is not an address; write a host and a port, such as %s", s.example)
		}
		if host == "" {
			text = net.JoinHostPort("127.0.0.1", port)
		}
	}
	*p = text
	return nil
}

// element reads one element of a list setting. A command given as one text is
// split at its spaces.
func (s *Setting) element(text, dir string) ([]string, error) {
	if strings.TrimSpace(text) == "" {
		return nil, errors.New("is empty; write " + s.such())
	}
	switch s.Kind {
	case KindPatterns:
		if !doublestar.ValidatePattern(text) {
			return nil, errors.New(`is not a pattern; close its brackets and braces, and put a backslash before one that is meant as itself`)
		}
	case KindPaths:
		path, err := parsePath(text, dir)
		return []string{path}, err
	case KindCommand:
		if strings.ContainsAny(text, "\"'`$|&;<>\n") {
			return nil, errors.New(`would need a shell; write a list of words, such as [sh, -c, "..."]`)
		}
		return strings.Fields(text), nil
	case KindHook:
		if !strings.HasPrefix(text, "http://") && !strings.HasPrefix(text, "https://") {
			return shell(text, runtime.GOOS), nil
		}
		if u, err := parseURL(text); err != nil || u.Hostname() == "" {
			return nil, errors.New("is not the address of a webhook; write one, such as https://hooks.example/kbsync")
		}
	}
	return []string{text}, nil
}

// shell is the command that runs a line as a shell does.
func shell(line, goos string) []string {
	if goos == "windows" {
		return []string{"cmd", "/C", line}
	}
	return []string{"sh", "-c", line}
}

// noun names the kind in "is not ...".
func (s *Setting) noun() string {
	switch s.Kind {
	case KindBool:
		return "true or false"
	case KindInt:
		return "a whole number"
	case KindPercent:
		return "a number or a percentage"
	}
	return "a " + string(s.Kind)
}

// sampleValue is a value that the setting takes, as it would stand in a file.
func (s *Setting) sampleValue() string {
	if s.example != "" {
		return s.example
	}
	return s.Default
}

// such says what to write, with an example.
func (s *Setting) such() string {
	example := s.sampleValue()
	switch s.Kind {
	case KindBool:
		return "true or false"
	case KindInt:
		return "a whole number, such as " + example
	case KindNumber:
		return "a number, such as " + example
	case KindSize, KindDuration:
		return "a number with a unit, such as " + example
	case KindPercent:
		return "a number, or a percentage up to 100%, such as " + example
	case KindChoice:
		return "one of " + strings.Join(s.Choices, ", ")
	case KindHook:
		return "a command or a webhook, such as " + example
	case KindPatterns, KindCommand:
		return "a list, such as " + example
	}
	return "one, such as " + example
}

// suggest asks for the nearest of the names, or gives what else to do where
// none is near.
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

// simplify takes away what writers of names differ in.
func simplify(name string) string {
	name = strings.TrimPrefix(name, "KBSYNC_")
	return strings.ToLower(strings.NewReplacer("_", "", "-", "", ".", "").Replace(name))
}

// edits is the number of letters to insert, delete, replace or swap with the
// next one to make b of a.
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
