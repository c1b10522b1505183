package statuspage

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/kbsync/kbsync/state"
)

func getJSON(t *testing.T, p *Page, target string, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(get(t, p, target)), into); err != nil {
		t.Fatal(err)
	}
}

// The links of a list lead through all its pages, and each document's link to its page, whatever the bytes of its key.
func TestDocumentsArePaged(t *testing.T) {
	f := newFixture(t)
	s := f.sync("hand book")
	odd := []string{"a//b", "../x", ".", "..", "a/./b", "/lead", "trail/", "50%.md", "%2F", "a?b#c", "a+b", "\xff\xfe", "ü/日本", "semi;colon", "a&b=c", " "}
	keys := append([]string{}, odd...)
	for i := range 250 {
		keys = append(keys, fmt.Sprintf("guides/%03d.md", i))
	}
	f.put(s, keys)
	p := f.page(Options{})
	links := regexp.MustCompile(`<a href="(/documents/[^"]*)"><bdi>`)
	next := regexp.MustCompile(`rel="next" href="([^"]*)"`)
	seen := map[string]bool{}
	pages := 0
	for target := "/documents"; target != ""; pages++ {
		body := get(t, p, target)
		for _, m := range links.FindAllStringSubmatch(body, -1) {
			seen[html.UnescapeString(m[1])] = true
		}
		target = ""
		if m := next.FindStringSubmatch(body); m != nil {
			target = html.UnescapeString(m[1])
		}
	}
	if len(seen) != len(keys) || pages != 3 {
		t.Errorf("%d links on %d pages, want %d on 3", len(seen), pages, len(keys))
	}
	for _, key := range odd {
		target := documentLink(s.Name, key)
		if !seen[target] {
			t.Errorf("no link %s to %q", target, key)
		}
		// Browsers drop segments of dots, also encoded ones.
		u, err := url.Parse("http://127.0.0.1" + target)
		f.must(err)
		if resolved := u.JoinPath().RequestURI(); u.RequestURI() != resolved {
			t.Errorf("%q: a browser may ask for %s", u.RequestURI(), resolved)
		}
		if body := get(t, p, target); !strings.Contains(html.UnescapeString(body), "<bdi>"+visible(key)+"</bdi>") {
			t.Errorf("%s is not the page of %q", target, key)
		}
		var d DocumentView
		getJSON(t, p, "/document.json?sync=hand+book&key="+url.QueryEscape(key), &d)
		if want := strings.ToValidUTF8(key, "\ufffd"); d.State != "pending" || !strings.HasPrefix(d.Key, want[:1]) {
			t.Errorf("the JSON of %q is %+v", key, d)
		}
	}

	var list documentList
	getJSON(t, p, "/documents.json?limit=2&prefix=guides/", &list)
	if len(list.Documents) != 2 || list.Documents[0].Key != "guides/000.md" || list.Next != "guides/002.md" {
		t.Errorf("a page of JSON is %+v", list)
	}
	getJSON(t, p, "/documents.json?q=49&state=pending", &list)
	if len(list.Documents) != 3 {
		t.Errorf("a search found %+v", list.Documents)
	}
	for target, status := range map[string]int{
		"/documents?sync=none": 404, "/documents?state=odd": 400, "/documents?limit=0": 400, "/documents?limit=1001": 400, "/documents?failed=1": 400,
		"/documents/none.md": 404, "/documents/?sync=hand+book": 404, "/document.json?key=none": 404, "/documents.json?sync=none": 404,
		"/sources?standing=live": 400, "/sources.json?from=x": 400, "/assets/x/page.css": 404,
	} {
		if w := do(p, local("GET", target, "")); w.Code != status {
			t.Errorf("GET %s: %d, want %d", target, w.Code, status)
		}
	}
}

// The pages of a document and of the sources have what the state knows.
func TestHistoryAndSources(t *testing.T) {
	f := newFixture(t)
	s := f.sync("handbook")
	f.put(s, []string{"a.md", "b.md"})
	first := f.accept(s, 10)
	f.trained(s, state.TrainingCompleted, "", first...)
	f.put(s, []string{"a.md"}, "b.md")
	f.trained(s, state.TrainingFailed, "no text in it", f.accept(s, 10)...)
	acked := Ack{}
	p := f.page(Options{
		Sync: func(context.Context, string) error { return nil },
		Ack:  func(_ context.Context, a Ack) (int, error) { acked = a; return 1, nil },
	})
	body := get(t, p, "/documents/a.md?sync=handbook")
	for _, want := range []string{"upload began", "accepted, HTTP status 200", "no text in it", "superseded", fmt.Sprint(first[0]), "kbsync status handbook a.md", `href="/confirm?action=reindex`} {
		if !strings.Contains(body, want) {
			t.Errorf("the page of the document lacks %q", want)
		}
	}
	var list sourceList
	getJSON(t, p, "/sources.json", &list)
	if len(list.Sources) != 2 || list.Sources[0].Destination == 0 || list.Sources[0].Standing == list.Sources[1].Standing {
		t.Errorf("the sources to remove are %+v", list.Sources)
	}
	getJSON(t, p, "/sources.json?limit=1", &list)
	if len(list.Sources) != 1 || list.Next != fmt.Sprintf("%d/%d", list.Sources[0].Destination, first[1]) {
		t.Errorf("the first page is %+v", list)
	}
	getJSON(t, p, "/sources.json?from="+list.Next, &list)
	if len(list.Sources) != 1 || list.Sources[0].ID != first[1] {
		t.Errorf("the second page is %+v", list)
	}
	getJSON(t, p, "/sources.json?standing=orphaned", &list)
	if len(list.Sources) != 1 || list.Sources[0].Key != "b.md" {
		t.Errorf("the orphaned sources are %+v", list)
	}
	form := regexp.MustCompile(`action="(/-/ack[^"]*)"`).FindStringSubmatch(get(t, p, "/sources"))
	if form == nil {
		t.Fatal("no form to acknowledge")
	}
	q := local("POST", html.UnescapeString(form[1]), fmt.Sprintf("id=%d&id=%d&id=unknown-4", first[0], first[0]))
	q.Header.Set("Accept", "text/html")
	w := do(p, q)
	if w.Code != http.StatusSeeOther || w.Header().Get("Location") != "/sources?sync=handbook" {
		t.Errorf("the form leads to %d %v", w.Code, w.Header())
	}
	if want := fmt.Sprintf("{handbook %d [%d -4]}", s.Destination.ID, first[0]); fmt.Sprint(acked) != want {
		t.Errorf("acknowledged %v, want %s", acked, want)
	}
	for body, status := range map[string]int{"id=1": 200, "": 400, "id=x": 400, "id=0": 400, "id=1&destination=0": 400, "id=1&ids=2": 400} {
		if w := do(p, local("POST", "/-/ack", body)); w.Code != status {
			t.Errorf("POST /-/ack %s: %d, want %d", body, w.Code, status)
		}
	}
	if body := get(t, f.page(Options{}), "/sources"); strings.Contains(body, "checkbox") || strings.Contains(body, "<form method=\"post\"") {
		t.Error("check boxes without a trigger")
	}
}

// A confirmation names the uploads, and its button leads to the trigger of exactly that.
func TestConfirmations(t *testing.T) {
	f := newFixture(t)
	s := f.sync("handbook")
	f.put(s, []string{"a.md", "b.md"})
	ids := f.accept(s, 10)
	f.trained(s, state.TrainingCompleted, "", ids[0])
	f.trained(s, state.TrainingFailed, "bad", ids[1])
	f.put(s, []string{"new.md"})
	var asked Reindex
	number := 1
	opts := Options{
		Sync:     func(context.Context, string) error { return nil },
		Estimate: func(_ context.Context, r Reindex) (int, int64, error) { asked = r; return number, 2000, nil },
	}
	p := f.page(opts)
	post := regexp.MustCompile(`<form method="post" action="([^"]*)"`)
	for _, c := range []struct {
		query  string
		number int
		count  string // on the page
		post   string
		box    bool // a box to tick
		asked  string
	}{
		{"action=sync", 0, "1 permanent upload, 2.0 KiB waits now", "/-/sync?sync=handbook", false, ""},
		{"action=retry&sync=handbook", 1, "At most 1 permanent upload", "/-/retry?sync=handbook", false, "Retry:true"},
		{"action=retry", 0, "At most 0 permanent uploads", "", false, "Retry:true"},
		{"action=reindex", 1, "Choose the documents", "", false, ""},
		{"action=reindex&glob=&older_than=", 1, "Choose the documents", "", false, ""},
		{"action=reindex&glob=a+*&older_than=", 1, "1 permanent upload, 2.0 KiB", "/-/reindex?glob=a%20%2A&sync=handbook", false, "Globs:[a *]"},
		{"action=reindex&older_than=720h", 2, "2 permanent uploads", "/-/reindex?older_than=720h&sync=handbook", false, "OlderThan:720h"},
		{"action=reindex&older_than=720h", 3, "3 permanent uploads", "/-/reindex?older_than=720h&sync=handbook", true, "OlderThan:720h"},
		{"action=reindex&all=true", 3, "3 permanent uploads", "/-/reindex?all=true&sync=handbook", true, "All:true"},
		{"action=reindex&key=a%FF.md", 1, "Upload &#34;a\\xff.md&#34; again?", "/-/reindex?key=a%FF.md&sync=handbook", false, `Key:a`},
	} {
		t.Run(c.query, func(t *testing.T) {
			number, asked = c.number, Reindex{}
			body := get(t, p, "/confirm?"+c.query)
			if !strings.Contains(body, c.count) {
				t.Errorf("the page lacks %q: %s", c.count, body)
			}
			target := ""
			if m := post.FindStringSubmatch(body); m != nil {
				target = html.UnescapeString(m[1])
			}
			if strings.ReplaceAll(target, "*", "%2A") != c.post || strings.Contains(body, "required") != c.box {
				t.Errorf("the button leads to %q, want %q", target, c.post)
			}
			if !strings.Contains(fmt.Sprintf("%+v", asked), c.asked) {
				t.Errorf("counted %+v", asked)
			}
		})
	}
	for query, status := range map[string]int{
		"": 400, "action=x": 400, "action=sync&sync=none": 404, "action=reindex&older_than=x": 400, "action=reindex&all=true&glob=x": 400, "action=sync&x=1": 400,
	} {
		if w := do(p, local("GET", "/confirm?"+query, "")); w.Code != status {
			t.Errorf("GET /confirm?%s: %d, want %d", query, w.Code, status)
		}
	}
	if w := do(f.page(Options{}), local("GET", "/confirm?action=sync", "")); w.Code != http.StatusNotImplemented {
		t.Errorf("a confirmation without a trigger: %d", w.Code)
	}
	q := local("POST", "/-/reindex?all=true", "")
	q.Header.Set("Accept", "text/html")
	if w := do(p, q); w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), "<h1>kbsync did not do it</h1>") {
		t.Errorf("a refused button: %d %s", w.Code, w.Body)
	}
}

// A stream sends an event at first and after each change, and ends with the server.
func TestEvents(t *testing.T) {
	f := newFixture(t)
	s := f.sync("handbook")
	p := f.page(Options{})
	end := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.ServeHTTP(w, r.WithContext(withEnding(r.Context(), end)))
	}))
	defer server.Close()
	defer server.Client().CloseIdleConnections()
	q, err := http.NewRequestWithContext(t.Context(), "GET", server.URL+"/events", nil)
	f.must(err)
	q.Header.Set("Authorization", "Bearer "+canary)
	answer, err := server.Client().Do(q)
	f.must(err)
	defer answer.Body.Close()
	stream := bufio.NewReader(answer.Body)
	read := func() (event string) { // one read of the body may return several
		for {
			line, err := stream.ReadString('\n')
			f.must(err)
			if line == "\n" {
				return event
			}
			event += line
		}
	}
	if got := read(); !strings.HasPrefix(got, "retry: ") || answer.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("the stream begins with %q", got)
	}
	first := read()
	f.put(s, []string{"a.md"})
	second := read()
	if !strings.Contains(first, "event: change") || !strings.Contains(second, "event: change") || first == second {
		t.Errorf("the events are %q and %q", first, second)
	}
	close(end)
	if rest, err := io.ReadAll(stream); err != nil || len(rest) > 0 {
		t.Errorf("the end is %q, %v", rest, err)
	}
	for range maxStreams {
		p.streams.Add(1)
	}
	if w := do(p, local("GET", "/events", "")); w.Code != http.StatusServiceUnavailable {
		t.Errorf("one stream too many: %d", w.Code)
	}
}
