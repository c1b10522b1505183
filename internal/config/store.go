package config

import (
	"errors"
	"fmt"
	"net"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bmatcuk/doublestar/v4"
)

// store parses text by the setting's kind and assigns the value to ptr. Its
// errors continue a message that begins with the quoted text.
func (s *Setting) store(ptr any, text, dir string) error {
	switch p := ptr.(type) {
	case *string:
		return s.storeText(p, text, dir)
	case *Root:
		if text == "" {
			return s.errEmpty()
		}
		root, err := parsePlace(text, dir, bucketSchemes...)
		*p = root
		return err
	}
	if s.off && text == "off" {
		text = "0"
	}
	ok, zero, err := parseScalar(ptr, text)
	switch {
	case err != nil:
		return err
	case ok && zero && s.positive:
		return fmt.Errorf("is too small; write more than zero, such as %s", s.sampleValue())
	case ok:
		return nil
	case strings.HasPrefix(text, "-"):
		return fmt.Errorf("is negative; write %s", s.such())
	}
	return fmt.Errorf("is not %s; write %s", s.noun(), s.such())
}

// parseScalar assigns text to a boolean, a number, a size, a duration or a
// limit, and reports whether text is one and whether it is zero.
func parseScalar(ptr any, text string) (ok, zero bool, err error) {
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
	case *Limit:
		*p, ok = parseLimit(text)
	default:
		return false, false, fmt.Errorf("has the unsupported type %T", ptr) // an error in the table; a test looks for it
	}
	return ok, zero, nil
}

var namePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

func (s *Setting) storeText(p *string, text, dir string) error {
	if text == "" {
		return s.errEmpty()
	}
	var err error
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
		text, err = parsePath(text, dir)
	case KindPlace:
		text, err = parseState(text, dir)
	case KindURL:
		text, err = s.checkedURL(text)
	case KindAddress:
		text, err = s.address(text)
	}
	if err != nil {
		return err
	}
	*p = text
	return nil
}

// checkedURL checks a URL by the check of the setting's row.
func (s *Setting) checkedURL(text string) (string, error) {
	u, err := parseURL(text)
	if err != nil {
		return "", err
	}
	if s.checkURL == nil {
		return text, nil
	}
	return s.checkURL(u, text)
}

// address completes a host:port. Without a host it is the loopback.
func (s *Setting) address(text string) (string, error) {
	host, port, err := net.SplitHostPort(text)
	if n, e := strconv.ParseUint(port, 10, 16); err != nil || e != nil || n == 0 && port != "0" {
		return "", fmt.Errorf("is not an address; write a host and a port, such as %s", s.example)
	}
	if host == "" {
		return net.JoinHostPort("127.0.0.1", port), nil
	}
	return text, nil
}

// element parses one element of a list setting. It splits a command that is
// given as one text at its spaces.
func (s *Setting) element(text, dir string) ([]string, error) {
	if strings.TrimSpace(text) == "" {
		return nil, s.errEmpty()
	}
	switch s.Kind {
	case KindPatterns:
		if !doublestar.ValidatePattern(text) {
			return nil, errors.New("is not a pattern; close its brackets and braces, or escape a literal one with a backslash")
		}
	case KindPaths:
		path, err := parsePath(text, dir)
		return []string{path}, err
	case KindCommand:
		if strings.ContainsAny(text, "\"'`$|&;<>\n") {
			return nil, errors.New(`needs a shell; write a list of words, such as [sh, -c, "..."]`)
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

// shell returns the command that runs a line in the system's shell.
func shell(line, goos string) []string {
	if goos == "windows" {
		return []string{"cmd", "/C", line}
	}
	return []string{"sh", "-c", line}
}

func (s *Setting) errEmpty() error { return errors.New("is empty; write " + s.such()) }

// noun returns the kind's name for the message "is not ...".
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

// sampleValue returns a valid value in the notation of the file.
func (s *Setting) sampleValue() string {
	if s.example != "" {
		return s.example
	}
	return s.Default
}

// such describes a valid value, with an example.
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
