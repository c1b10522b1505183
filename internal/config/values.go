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

// Size is a number of bytes, never negative. Its text form is exact.
type Size int64

// String returns the size in the largest binary unit that divides it.
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

// MarshalText returns the text of String.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

func parseSize(text string) (Size, bool) {
	n, err := humanize.ParseBytes(text)
	if err != nil || n > math.MaxInt64 {
		return 0, false
	}
	return Size(n), true
}

// Limit is a limit on the removals or the changes of one scan: a share of the
// known documents, or a count.
type Limit struct {
	// Count is the maximum number, used if ByPercent is false.
	Count int
	// Percent is the maximum share of the known documents, 0 to 100, used if
	// ByPercent is true. 100 is no limit.
	Percent   float64
	ByPercent bool
	// Always is the number that the limit allows whatever the share is: in a
	// small root a few documents are a large share. Only a default has one; a
	// limit that a person wrote is obeyed to the letter.
	Always int
}

// defaultAlways is Limit.Always of the defaults.
const defaultAlways = 20

// String returns the limit in the notation of the file.
func (m Limit) String() string {
	if m.ByPercent {
		return strconv.FormatFloat(m.Percent, 'f', -1, 64) + "%"
	}
	return strconv.Itoa(m.Count)
}

func parseLimit(text string) (Limit, bool) {
	if text == "off" {
		return Limit{Percent: 100, ByPercent: true}, true
	}
	if number, found := strings.CutSuffix(text, "%"); found {
		p, ok := parseNumber(strings.TrimSpace(number))
		return Limit{Percent: p, ByPercent: true}, ok && p <= 100
	}
	n, err := strconv.ParseInt(text, 10, 32)
	return Limit{Count: int(n)}, err == nil && n >= 0
}

// parseNumber parses a finite, non-negative number in plain decimal notation.
func parseNumber(text string) (float64, bool) {
	if strings.ContainsFunc(text, func(r rune) bool { return r != '.' && (r < '0' || r > '9') }) {
		return 0, false
	}
	n, err := strconv.ParseFloat(text, 64)
	return n, err == nil && !math.IsInf(n, 0)
}

// parseDuration parses the notation of time.ParseDuration, with optional weeks
// (w) and days (d) of 168 and 24 hours before it: 30d, 1w, 1w2d12h.
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

// Secret is a text that printing, logging and encoding do not show. Only Reveal
// returns it.
type Secret struct{ text string }

const redacted = "[redacted]"

// NewSecret wraps a text.
func NewSecret(text string) Secret { return Secret{text} }

// Reveal returns the text.
func (s Secret) Reveal() string { return s.text }

// IsZero reports whether the text is empty.
func (s Secret) IsZero() bool { return s.text == "" }

// String returns "" for an empty secret and a fixed word otherwise.
func (s Secret) String() string {
	if s.IsZero() {
		return ""
	}
	return redacted
}

// GoString returns the text of String.
func (s Secret) GoString() string { return s.String() }

// Format writes the text of String for every verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(s.String())) }

// LogValue returns the text of String.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText returns the text of String.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// MarshalJSON returns the text of String as a JSON string.
func (s Secret) MarshalJSON() ([]byte, error) { return []byte(strconv.Quote(s.String())), nil }

// Root is a watched place.
type Root struct {
	// Dir is the absolute, clean path of a directory.
	Dir string
	// URL is the address of a bucket, without credentials.
	URL string
}

// String returns the directory or the address.
func (r Root) String() string {
	if r.URL != "" {
		return r.URL
	}
	return r.Dir
}

// MarshalText returns the text of String.
func (r Root) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// AdHocName returns the name of the sync for a root that is not in the config:
// the last element of its path, and 8 hex digits that make it unique. The same
// root always has the same name.
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

// plainName removes the characters that the name of a sync cannot have.
func plainName(text string) string {
	name := strings.Map(func(r rune) rune {
		if r == '-' || r == '_' || r <= unicode.MaxASCII && (unicode.IsLetter(r) || unicode.IsDigit(r)) {
			return r
		}
		return -1
	}, text)
	return strings.Trim(name[:min(len(name), 40)], "-_")
}

// Schemes of places other than buckets.
const (
	schemeFile     = "file"
	schemePostgres = "postgres"
)

// bucketSchemes are the schemes of roots; "mem" is for tests.
var bucketSchemes = []string{"s3", "gs", "azblob", "mem"}

// subscriptionSchemes are the schemes of notifications that messages list. "mem", for tests, works too.
var subscriptionSchemes = []string{"awssqs", "gcppubsub", "azuresb", "kafka", "rabbit", "nats", "tls"}

var errCredentials = errors.New("contains credentials; remove them, because logs show URLs")

// checkBucket checks the address of a bucket. A path is an error, because
// drivers ignore it. The driver checks the parameters when it opens the bucket.
func checkBucket(u *url.URL) error {
	switch {
	case hasCredentials(u.Query()):
		return errCredentials
	case u.Host == "" && u.Scheme != "mem":
		return errors.New("names no bucket; write one, such as s3://bucket?prefix=docs/")
	case u.Path != "" && u.Path != "/":
		return fmt.Errorf("has a path; write the folder as a parameter, such as %s://%s?prefix=%s/", u.Scheme, u.Host, strings.Trim(u.Path, "/"))
	}
	return nil
}

// checkAPI checks the address of the API and removes slashes at its end.
func checkAPI(u *url.URL, text string) (string, error) {
	switch {
	case !isWeb(u):
		return "", errors.New("is not the address of an API; write one, such as https://api.reply.cx")
	case u.RawQuery != "" || u.Fragment != "":
		return "", errors.New("contains ? or #; write only the address, such as https://api.reply.cx")
	}
	return strings.TrimRight(text, "/"), nil
}

// checkHeartbeat checks the URL of a heartbeat.
func checkHeartbeat(u *url.URL, text string) (string, error) {
	if !isWeb(u) {
		return "", errors.New("is not a web address; write one, such as https://hc-ping.example/3f0c")
	}
	return text, nil
}

func isWeb(u *url.URL) bool { return (u.Scheme == "https" || u.Scheme == "http") && u.Hostname() != "" }

// checkSubscription checks the URL of a subscription. The driver checks the
// parameters when it opens the subscription.
func checkSubscription(u *url.URL, text string) (string, error) {
	switch {
	case hasCredentials(u.Query()):
		return "", errCredentials
	case !slices.Contains(subscriptionSchemes, u.Scheme) && u.Scheme != "mem":
		return "", fmt.Errorf("is not the URL of a subscription; its scheme must be one of %s", strings.Join(subscriptionSchemes, ", "))
	case u.Host == "" && strings.Trim(u.Path, "/") == "":
		return "", errors.New("names no subscription; write one, such as awssqs://sqs.eu-west-1.amazonaws.com/123456789012/docs")
	}
	return text, nil
}

// hasCredentials reports whether a parameter is a URL with credentials.
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

// splitScheme returns the scheme of a URL. C:\docs and a:b are paths.
func splitScheme(text string) (scheme string, isURL bool) {
	scheme, _, found := strings.Cut(text, "://")
	if !found || scheme == "" || strings.ContainsFunc(scheme, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '+' && r != '-' && r != '.'
	}) {
		return "", false
	}
	return strings.ToLower(scheme), true
}

// filePath returns the path of a file URL.
func filePath(text string) (string, error) {
	u, err := url.Parse(text)
	if err != nil || u.Host != "" && u.Host != "localhost" || u.RawQuery != "" || u.Fragment != "" || u.Path == "" || u.User != nil {
		return "", errors.New("is not a file URL; write file:/// and an absolute path, or only the path")
	}
	p := u.Path
	if runtime.GOOS == "windows" {
		p = strings.TrimPrefix(p, "/")
	}
	return filepath.FromSlash(p), nil
}

// parsePlace parses a path, a file URL, or a URL of one of the schemes. The path
// that it returns is absolute if dir is.
func parsePlace(text, dir string, schemes ...string) (Root, error) {
	scheme, isURL := splitScheme(text)
	if !isURL {
		p, err := parsePath(text, dir)
		return Root{Dir: p}, err
	}
	if scheme == schemeFile {
		p, err := filePath(text)
		if err != nil {
			return Root{}, err
		}
		p, err = parsePath(p, dir)
		return Root{Dir: p}, err
	}
	if !slices.Contains(schemes, scheme) {
		return Root{}, fmt.Errorf("has an unknown scheme; write a path, or a URL with file://, %s://", strings.Join(schemes, "://, "))
	}
	u, err := parseURL(text)
	if err != nil {
		return Root{}, err
	}
	if err := checkBucket(u); err != nil {
		return Root{}, err
	}
	return Root{URL: text}, nil
}

// parsePath returns a clean path, which is absolute if dir is. It refuses a
// leading tilde, because it cannot expand one.
func parsePath(text, dir string) (string, error) {
	switch {
	case strings.ContainsRune(text, 0):
		return "", errors.New("contains a NUL byte; write a path")
	case text == "~" || strings.HasPrefix(text, "~/"):
		return "", errors.New("begins with ~, which only a shell expands; write the whole path")
	case filepath.IsAbs(text):
		return filepath.Clean(text), nil
	}
	return filepath.Join(dir, text), nil
}

// parseURL parses an absolute URL without credentials. Its errors never contain
// the text.
func parseURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return nil, errors.New("is not a URL; write one, such as https://api.reply.cx")
	case u.Scheme == "" || u.Opaque != "":
		return nil, errors.New("has no scheme; write the whole URL, such as https://api.reply.cx")
	case u.User != nil:
		return nil, errCredentials
	}
	return u, nil
}
