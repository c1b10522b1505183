package statuspage

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/kbsync/kbsync/state"
)

//go:embed page.html
var pageHTML string

//go:embed page.css
var pageCSS string

// contentSecurityPolicy forbids every script and every other resource. It allows the one style sheet by its hash.
var contentSecurityPolicy = func() string {
	sum := sha256.Sum256([]byte(pageCSS))
	return "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; img-src data:; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
}()

var pageTemplate = template.Must(template.New("page").Funcs(template.FuncMap{
	"style":   func() template.CSS { return template.CSS(pageCSS) },
	"visible": visible,
	"shell":   func(name string) string { return visible(shellWord(name)) },
	"grouped": func(n int) string { return grouped(int64(n)) },
	"plural":  plural,
	"size":    size,
}).Parse(pageHTML))

// pageData is the data of the template. Its methods and those of syncData keep logic out of the template.
type pageData struct {
	*overview
	Now        time.Time
	Health     health
	HealthText string
	Syncs      []syncData
	Buttons    bool
}

type syncData struct {
	*syncView
	Health     health
	HealthText string
	Counts     []countData
	Total      int
}

// A countData is the part of a state in the bar of a sync. X and Width are thousandths of the bar.
type countData struct {
	State    state.DocumentState
	N        int
	X, Width float64
}

// barStates are the states in the order of the bar: done, in progress, needing attention. Skipped and removed documents have no part.
var barStates = []state.DocumentState{state.Completed, state.Training, state.Uploading, state.Pending, state.Uncertain, state.Stuck, state.Failed}

func (p *Page) servePage(w http.ResponseWriter, r *http.Request) {
	o, err := p.overview(r.Context())
	if err != nil {
		http.Error(w, "Cannot read the state: "+err.Error(), http.StatusServiceUnavailable)
		return
	}
	// The browser asks for the token as a password, once, and sends it with the request of a button.
	data := &pageData{overview: o, Now: time.Now(), Buttons: p.opts.Sync != nil && p.opts.Token != ""}
	data.Health, data.HealthText = o.health()
	for i := range o.Syncs {
		s := syncData{syncView: &o.Syncs[i]}
		s.Health, s.HealthText = s.health()
		for _, st := range barStates {
			s.Total += s.Documents[st]
		}
		x := 0.0
		for _, st := range barStates {
			c := countData{State: st, N: s.Documents[st], X: x}
			if s.Total > 0 {
				c.Width = 1000 * float64(c.N) / float64(s.Total)
			}
			x += c.Width
			if c.N > 0 || st == state.Completed {
				s.Counts = append(s.Counts, c)
			}
		}
		data.Syncs = append(data.Syncs, s)
	}
	var page bytes.Buffer
	if err := pageTemplate.Execute(&page, data); err != nil {
		p.log.Error("cannot render the status page", "error", err)
		http.Error(w, "Cannot render the page. /status.json has the same content.", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = page.WriteTo(w) // an error means that the client is gone
}

// When returns the text of a time; nil means never.
func (d *pageData) When(t *time.Time) whenData {
	if t == nil {
		return whenData{Text: "never"}
	}
	return d.Moment(*t)
}

// Moment returns the text of a time, relative to now.
func (d *pageData) Moment(t time.Time) whenData {
	text := "in " + rough(t.Sub(d.Now))
	if age := d.Now.Sub(t); age >= 0 {
		text = rough(age) + " ago"
	}
	return whenData{Text: text, Stamp: t.UTC().Format(time.RFC3339), Title: t.Format("Mon 2 Jan 2006, 15:04:05 MST")}
}

type whenData struct{ Text, Stamp, Title string }

// More returns the number of documents that need attention and are not shown.
func (s *syncData) More() int {
	return s.Documents[state.Failed] + s.Documents[state.Stuck] + s.Documents[state.Uncertain] - len(s.Attention)
}

// LeftBehind returns the number of sources that a person has to remove.
func (s *syncData) LeftBehind() int { return s.Superseded + s.Orphaned }

// Skipped returns the number of documents that the rules exclude.
func (s *syncData) Skipped() int { return s.Documents[state.Skipped] }

// visible returns text unchanged if all its characters are printable. Otherwise it quotes and escapes text: line ends, control
// characters, bidirectional characters and invalid UTF-8 could make a name look like another name.
func visible(text string) string {
	if !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return strconv.Quote(text)
	}
	return text
}

// shellWord quotes a name for a shell if necessary.
func shellWord(name string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-/@:+,", r)
	}
	if name != "" && !strings.ContainsFunc(name, func(r rune) bool { return !plain(r) }) {
		return name
	}
	return "'" + strings.ReplaceAll(name, "'", `'\''`) + "'"
}

// rough formats a duration in its largest unit.
func rough(d time.Duration) string {
	switch {
	case d < time.Second:
		return "a moment"
	case d < 2*time.Minute:
		return fmt.Sprintf("%d s", d/time.Second)
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min", d/time.Minute)
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", d/time.Hour)
	}
	return fmt.Sprintf("%d days", d/(24*time.Hour))
}

// size formats a number of bytes in binary units.
func size(n int64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	v, i := float64(n)/1024, 0
	for v >= 1024 {
		v /= 1024
		i++
	}
	return fmt.Sprintf("%.1f %ciB", v, units[i])
}
