package statuspage

import (
	"bytes"
	"embed"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"
)

//go:embed pages/*.html
var pageFiles embed.FS

// templates returns the pages by name, each with the layout. Most commands show none, so they are parsed once one is shown.
var templates = sync.OnceValue(func() map[string]*template.Template {
	layout := template.Must(template.New("layout.html").Funcs(template.FuncMap{
		"asset":   assetPath,
		"visible": visible,
		"shell":   func(name string) string { return visible(shellWord(name)) },
		"grouped": func(n int) string { return grouped(int64(n)) },
		"size":    size,
		"short":   shortHash,
		"source":  SourceID,
		"lag":     func(s float64) string { return lagText(seconds(s)) },
	}).ParseFS(pageFiles, "pages/layout.html"))
	pages := map[string]*template.Template{}
	for _, name := range []string{"front", "documents", "document", "sources", "history", "confirm", "message"} {
		pages[name] = template.Must(template.Must(layout.Clone()).ParseFS(pageFiles, "pages/"+name+".html"))
	}
	return pages
})

// A frame is the data of the layout. The data of every page embeds it.
type frame struct {
	Title    string
	Nav      string // the current page in the navigation
	Version  string
	Now      time.Time
	Live     bool   // the page is read again when the state changes
	LiveID   string // of the content; empty if it is not known
	HasPlots bool
	ReadOnly bool
	Buttons  bool // the process can start work, and a browser can prove that it may
}

func (p *Page) frame(title, nav string) frame {
	return frame{
		Title: visible(title) + " - kbsync", Nav: nav, Version: p.opts.Version, Now: time.Now(), ReadOnly: p.opts.ReadOnly,
		Buttons: !p.opts.ReadOnly && p.opts.Sync != nil && p.opts.Token != "",
	}
}

// render writes a page.
func (p *Page) render(w http.ResponseWriter, status int, name string, data any) {
	var page bytes.Buffer
	if err := templates()[name].Execute(&page, data); err != nil {
		p.log.Error("cannot render the status page", "error", err)
		http.Error(w, "Cannot render the page. /status.json has the same content.", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = page.WriteTo(w) // an error means that the client is gone
}

// message writes a page with a text, for a browser whose request cannot be done.
func (p *Page) message(w http.ResponseWriter, status int, heading, text string) {
	p.render(w, status, "message", struct {
		frame
		Heading, Text string
	}{p.frame(heading, ""), heading, text})
}

// unreadable responds that the state cannot be read now.
func (p *Page) unreadable(w http.ResponseWriter, err error) {
	p.message(w, http.StatusServiceUnavailable, "The state cannot be read", err.Error())
}

// wantsPage reports whether a request comes from a person with a browser.
func wantsPage(r *http.Request) bool { return strings.Contains(r.Header.Get("Accept"), "text/html") }

// When returns the text of a time; nil means never.
func (f *frame) When(t *time.Time) whenData {
	if t == nil {
		return whenData{Text: "never"}
	}
	return f.Moment(*t)
}

// Moment returns the text of a time, relative to now.
func (f *frame) Moment(t time.Time) whenData {
	text := "in " + rough(t.Sub(f.Now))
	if age := f.Now.Sub(t); age >= 0 {
		text = rough(age) + " ago"
	}
	return whenData{Text: text, Stamp: t.UTC().Format(time.RFC3339), Title: t.Format("Mon 2 Jan 2006, 15:04:05 MST")}
}

// Age returns the text of the time that has passed since t.
func (f *frame) Age(t time.Time) whenData {
	when := f.Moment(t)
	when.Text = lagText(f.Now.Sub(t))
	return when
}

type whenData struct{ Text, Stamp, Title string }

// link returns a path with parameters, without the empty ones. The values may be any bytes.
func link(path string, parameters ...string) string {
	separator := "?"
	for i := 0; i+1 < len(parameters); i += 2 {
		if parameters[i+1] == "" {
			continue
		}
		path += separator + parameters[i] + "=" + url.QueryEscape(parameters[i+1])
		separator = "&"
	}
	return path
}

// documentLink returns the address of a document's page: the bytes of the key, percent-encoded. Browsers and servers change a path
// with empty segments or dots, so the slashes of such a key are encoded too; keys of dots alone are a parameter.
func documentLink(sync, key string) string {
	if strings.Trim(key, ".") == "" {
		return link("/documents/", "sync", sync, "key", key)
	}
	path := strings.ReplaceAll(url.PathEscape(key), "%2F", "/")
	for segment := range strings.SplitSeq(path, "/") {
		if strings.Trim(segment, ".") == "" {
			path = url.PathEscape(key)
			break
		}
	}
	return link("/documents/"+path, "sync", sync)
}

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

// shortHash returns the first digits of a hash, enough to tell the versions of a document apart.
func shortHash(sum string) string {
	if len(sum) < 8 {
		return "-"
	}
	return sum[:8]
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
	return fmt.Sprintf("%s days", grouped(int64(d/(24*time.Hour))))
}

// lagText formats how long a change has waited.
func lagText(d time.Duration) string {
	if d < time.Second {
		return "0 s"
	}
	return rough(d)
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

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return grouped(int64(n)) + " " + many
}

// grouped formats 12345 as 12,345.
func grouped(n int64) string {
	text := fmt.Sprint(n)
	var b strings.Builder
	for i, c := range text {
		if i > 0 && (len(text)-i)%3 == 0 && text[i-1] != '-' {
			b.WriteByte(',')
		}
		b.WriteRune(c)
	}
	return b.String()
}
