package config

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/url"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/dustin/go-humanize"
)

// Size is a number of bytes, never negative. Its text form is exact and is
// read back as the same number.
type Size int64

// String gives the size in the largest binary unit that divides it.
func (s Size) String() string {
	if s == 0 {
		return "0"
	}
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	i := 0
	for i < len(units)-1 && s%1024 == 0 {
		s, i = s/1024, i+1
	}
	return strconv.FormatInt(int64(s), 10) + units[i]
}

// MarshalText gives what String does.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

func parseSize(text string) (Size, bool) {
	n, err := humanize.ParseBytes(text)
	if err != nil || n > math.MaxInt64 {
		return 0, false
	}
	return Size(n), true
}

// MaxDelete is a limit on removals: a share of the known documents, or a
// count.
type MaxDelete struct {
	// Count is the most removals; it counts only where ByPercent is false.
	Count int
	// Percent is the largest share of the known documents, 0 to 100; it
	// counts only where ByPercent is true. 100 is no limit.
	Percent   float64
	ByPercent bool
}

// String gives the limit as a user would write it.
func (m MaxDelete) String() string {
	if m.ByPercent {
		return strconv.FormatFloat(m.Percent, 'f', -1, 64) + "%"
	}
	return strconv.Itoa(m.Count)
}

func parseMaxDelete(text string) (MaxDelete, bool) {
	if text == "off" {
		return MaxDelete{Percent: 100, ByPercent: true}, true
	}
	if number, found := strings.CutSuffix(text, "%"); found {
		p, ok := parseNumber(strings.TrimSpace(number))
		return MaxDelete{Percent: p, ByPercent: true}, ok && p <= 100
	}
	n, err := strconv.ParseInt(text, 10, 32)
	return MaxDelete{Count: int(n)}, err == nil && n >= 0
}

// parseNumber reads a finite number that is not negative, in plain decimal
// notation.
func parseNumber(text string) (float64, bool) {
	if strings.ContainsFunc(text, func(r rune) bool { return r != '.' && (r < '0' || r > '9') }) {
		return 0, false
	}
	n, err := strconv.ParseFloat(text, 64)
	return n, err == nil && !math.IsInf(n, 0)
}

// parseDuration reads what time.ParseDuration does, and days (d) and weeks (w)
// of 24 and 168 hours in front of it: 30d, 1w, 1w2d12h.
func parseDuration(text string) (time.Duration, bool) {
	var long time.Duration
	rest := text
	for _, unit := range []struct {
		suffix string
		length time.Duration
	}{{"w", 7 * 24 * time.Hour}, {"d", 24 * time.Hour}} {
		number, after, found := strings.Cut(rest, unit.suffix)
		if !found {
			continue
		}
		n, ok := parseNumber(number)
		if !ok || n > float64(math.MaxInt64/unit.length) {
			return 0, false
		}
		long += time.Duration(n * float64(unit.length))
		if long < 0 {
			return 0, false
		}
		rest = after
	}
	if rest == "" && rest != text {
		return long, true
	}
	d, err := time.ParseDuration(rest)
	if err != nil || d < 0 || d > math.MaxInt64-long {
		return 0, false
	}
	return long + d, true
}

// Secret is a text that no formatting shows: not printing, not logging, not
// encoding. Only Reveal gives it.
type Secret struct{ text string }

const redacted = "[redacted]"

// NewSecret wraps a text.
func NewSecret(text string) Secret { return Secret{text} }

// Reveal gives the text.
func (s Secret) Reveal() string { return s.text }

// IsZero reports whether there is no text.
func (s Secret) IsZero() bool { return s.text == "" }

// String is empty for an empty secret and a fixed word otherwise.
func (s Secret) String() string {
	if s.IsZero() {
		return ""
	}
	return redacted
}

// GoString gives what String does.
func (s Secret) GoString() string { return s.String() }

// Format gives what String does, whatever the verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(s.String())) }

// LogValue gives what String does.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText gives what String does; it serves JSON and YAML as well.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// MarshalJSON gives what String does, as a JSON string.
func (s Secret) MarshalJSON() ([]byte, error) { return []byte(strconv.Quote(s.String())), nil }

// Root is a watched place.
type Root struct {
	// Dir is the absolute, clean path of a directory.
	Dir string
	// URL is the address of a bucket, without credentials.
	URL string
}

// String gives the directory or the address.
func (r Root) String() string {
	if r.URL != "" {
		return r.URL
	}
	return r.Dir
}

// MarshalText gives what String does.
func (r Root) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// AdHocName names the sync of a root that has none in the config: the last
// element of its path, and 8 hex digits that tell it from others of that name.
// The same root always has the same name.
func AdHocName(root Root) string {
	place := root.String()
	last := filepath.Base(root.Dir)
	if u, err := url.Parse(root.URL); root.URL != "" && err == nil {
		last = path.Base("/" + u.Host + "/" + u.Query().Get("prefix"))
	}
	name := cmp.Or(plainName(last), "root")
	sum := sha256.Sum256([]byte(place))
	return name + "-" + hex.EncodeToString(sum[:4])
}

// plainName keeps of a text what may stand in the name of a sync.
func plainName(text string) string {
	name := strings.Map(func(r rune) rune {
		if r == '-' || r == '_' || r <= unicode.MaxASCII && (unicode.IsLetter(r) || unicode.IsDigit(r)) {
			return r
		}
		return -1
	}, text)
	return strings.Trim(name[:min(len(name), 40)], "-_")
}

// Schemes of places. Those of buckets are roots only.
const (
	schemeFile     = "file"
	schemePostgres = "postgres"
)

var bucketSchemes = []string{"s3", "gs", "azblob", "mem"}

// subscriptionSchemes are those of notifications that messages name; "mem" is for tests.
var subscriptionSchemes = []string{"awssqs", "gcppubsub", "azuresb", "kafka", "rabbit", "nats", "tls"}

// notReleased refuses the places that the design has and this release does not
// work with yet. It is the one function to change when they come.
func notReleased(scheme string) error {
	if scheme == schemePostgres {
		return errors.New("is a PostgreSQL state, which is not in this release yet; write the path of a file, such as kbsync.db")
	}
	return nil
}

var errCredentials = errors.New("has credentials in it; leave them out of URLs, where logs would show them")

// checkBucket refuses an address whose folder would be passed over. Parameters
// are for whoever opens the bucket.
func checkBucket(u *url.URL) error {
	switch {
	case hasCredentials(u.Query()):
		return errCredentials
	case u.Host == "" && u.Scheme != "mem":
		return errors.New("names no bucket; write one such as s3://bucket?prefix=docs/")
	case u.Path != "" && u.Path != "/":
		return fmt.Errorf("has a path; write the folder as a parameter, such as %s://%s?prefix=%s/", u.Scheme, u.Host, strings.Trim(u.Path, "/"))
	}
	return nil
}

// checkSubscription refuses what can't be a subscription's address. Parameters
// are for whoever opens it.
func checkSubscription(u *url.URL) error {
	switch {
	case hasCredentials(u.Query()):
		return errCredentials
	case !slices.Contains(subscriptionSchemes, u.Scheme) && u.Scheme != "mem":
		return fmt.Errorf("is not a subscription's URL; its scheme is one of %s", strings.Join(subscriptionSchemes, ", "))
	case u.Host == "" && strings.Trim(u.Path, "/") == "":
		return errors.New("names nothing behind its scheme; write it such as awssqs://sqs.eu-west-1.amazonaws.com/123456789012/docs")
	}
	return nil
}

// hasCredentials says whether a parameter is a URL with credentials in it.
func hasCredentials(query url.Values) bool {
	for _, values := range query {
		for _, v := range values {
			if at, err := url.Parse(v); err == nil && at.User != nil {
				return true
			}
		}
	}
	return false
}

// splitScheme tells a URL from a path. C:\docs and a:b are paths.
func splitScheme(text string) (scheme string, isURL bool) {
	scheme, _, found := strings.Cut(text, "://")
	if !found || scheme == "" || strings.ContainsFunc(scheme, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '+' && r != '-' && r != '.'
	}) {
		return "", false
	}
	return strings.ToLower(scheme), true
}

// filePath gives the path of a file URL.
func filePath(text string) (string, error) {
	u, err := url.Parse(text)
	if err != nil || u.Host != "" && u.Host != "localhost" || u.RawQuery != "" || u.Fragment != "" || u.Path == "" || u.User != nil {
		return "", errors.New("is not a file URL; write file:/// and an absolute path, or the path alone")
	}
	p := u.Path
	if runtime.GOOS == "windows" {
		p = strings.TrimPrefix(p, "/")
	}
	return filepath.FromSlash(p), nil
}

// parsePlace reads a path or a URL of one of the schemes. A path comes back
// absolute, if dir is.
func parsePlace(text, dir string, schemes ...string) (Root, error) {
	scheme, isURL := splitScheme(text)
	if !isURL {
		p, err := parsePath(text, dir)
		return Root{Dir: p}, err
	}
	if scheme == "postgresql" {
		scheme = schemePostgres
	}
	if scheme == schemeFile {
		p, err := filePath(text)
		if err != nil {
			return Root{}, err
		}
		p, err = parsePath(p, dir)
		return Root{Dir: p}, err
	}
	for _, s := range schemes {
		if s == scheme {
			u, err := parseURL(text)
			if err != nil {
				return Root{}, err
			}
			if scheme != schemePostgres {
				if err := checkBucket(u); err != nil {
					return Root{}, err
				}
			}
			return Root{URL: text}, notReleased(scheme)
		}
	}
	return Root{}, fmt.Errorf("has an unknown scheme; write a path, or a URL of file://, %s://", strings.Join(schemes, "://, "))
}

// parsePath makes a path clean and absolute, if dir is. It does not expand a
// leading tilde, so it refuses one.
func parsePath(text, dir string) (string, error) {
	switch {
	case strings.ContainsRune(text, 0):
		return "", errors.New("has a NUL byte in it; write a path")
	case text == "~" || strings.HasPrefix(text, "~/"):
		return "", errors.New("begins with ~, which only a shell expands; write the whole path")
	case filepath.IsAbs(text):
		return filepath.Clean(text), nil
	}
	return filepath.Join(dir, text), nil
}

// parseURL reads an absolute URL without credentials. Its errors never repeat
// the text.
func parseURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return nil, errors.New("is not a URL; write one such as https://api.reply.cx")
	case u.Scheme == "" || u.Opaque != "":
		return nil, errors.New("is not a whole URL; write it with its scheme, such as https://api.reply.cx")
	case u.User != nil:
		return nil, errCredentials
	}
	return u, nil
}
