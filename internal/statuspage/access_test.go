package statuspage

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/kbsync/kbsync/state"
)

const canary = "canary-6b1f0a"

// Triggers need the token, also from this machine: each of its users, and each visitor of a proxy on it, connects over the loopback.
func TestAccess(t *testing.T) {
	f := newFixture(t)
	called := 0
	opts := Options{Sync: func(context.Context, string) error { called++; return nil }}
	closed := f.page(opts)
	opts.ReadLocally = true
	open := f.page(opts)
	opts.State = f.store
	bare, err := New(opts) // no token
	f.must(err)
	opts.ReadLocally = false
	shut, err := New(opts)
	f.must(err)

	type change func(*http.Request)
	from := func(addr string) change { return func(q *http.Request) { q.RemoteAddr = addr } }
	host := func(name string) change { return func(q *http.Request) { q.Host = name } }
	head := func(name, value string) change { return func(q *http.Request) { q.Header.Set(name, value) } }
	basic := func(q *http.Request) { q.SetBasicAuth("user", canary) }
	bearer := head("Authorization", "Bearer "+canary)
	const remote = "10.1.2.3:4000"

	for _, c := range []struct {
		name    string
		page    *Page
		request string
		changes []change
		want    int
	}{
		{"from this machine", open, "GET /", nil, 200},
		{"as localhost", open, "GET /", []change{host("localhost:9090")}, 200},
		{"as a name below localhost", open, "GET /", []change{host("KBSync.LocalHost.")}, 200},
		{"over IPv6", open, "GET /", []change{from("[::1]:4000"), host("[::1]:9090")}, 200},
		{"mapped", open, "GET /", []change{from("[::ffff:127.0.0.1]:4000"), host("[::ffff:127.0.0.1]")}, 200},
		{"without a token at all", bare, "GET /", nil, 200},

		{"another user of this machine acts", open, "POST /-/sync", nil, 401},
		{"another user, closed", closed, "POST /-/sync", nil, 401},
		{"another user reindexes", open, "POST /-/reindex?failed=true", nil, 401},
		{"another user reloads", open, "POST /-/reload", nil, 401},
		{"another user retries", open, "POST /-/retry", nil, 401},
		{"another user acknowledges", open, "POST /-/ack?id=1", nil, 401},
		{"documents without the token", closed, "GET /documents", nil, 401},
		{"a document without the token", closed, "GET /documents/a.md", nil, 401},
		{"documents without the token, JSON", closed, "GET /documents.json", nil, 401},
		{"a document without the token, JSON", closed, "GET /document.json?key=a.md", nil, 401},
		{"sources without the token", closed, "GET /sources", nil, 401},
		{"sources without the token, JSON", closed, "GET /sources.json", nil, 401},
		{"events without the token", closed, "GET /events", nil, 401},
		{"a confirmation without the token", closed, "GET /confirm", nil, 401},
		{"documents from a rebound name", open, "GET /documents", []change{host("evil.example")}, 403},
		{"another site's form acknowledges", closed, "POST /-/ack?id=1", []change{basic, head("Sec-Fetch-Site", "cross-site")}, 403},
		{"the style sheet", closed, "GET " + assetPath("page.css"), []change{from(remote), host("kb.example")}, 200},
		{"a silent proxy's visitor", closed, "GET /", nil, 401},
		{"a silent proxy's visitor, JSON", closed, "GET /status.json", nil, 401},
		{"acts on a page without a token", bare, "POST /-/sync", nil, 403},
		{"acts with an empty token", bare, "POST /-/sync", []change{head("Authorization", "Bearer ")}, 403},
		{"acts with an empty password", bare, "POST /-/sync", []change{head("Authorization", "Basic Og=="), head("Sec-Fetch-Site", "same-origin")}, 403},
		{"reads a page without a token", shut, "GET /", nil, 403},
		{"curl", open, "POST /-/sync", []change{bearer}, 202},

		{"the page's button, before the password", open, "POST /-/sync", []change{head("Sec-Fetch-Site", "same-origin")}, 401},
		{"the page's button", open, "POST /-/sync", []change{basic, head("Sec-Fetch-Site", "same-origin"), head("Origin", "http://127.0.0.1:9090")}, 202},
		{"the page's button, closed", closed, "POST /-/sync", []change{basic, head("Sec-Fetch-Site", "same-origin")}, 202},
		{"the page's button over plain HTTP", closed, "POST /-/sync", []change{basic, from(remote), host("kb.example:9090"), head("Origin", "http://kb.example:9090")}, 202},
		{"another site's form with the password", closed, "POST /-/sync", []change{basic, head("Sec-Fetch-Site", "cross-site"), head("Origin", "https://evil.example")}, 403},
		{"another port's form with the password", closed, "POST /-/sync", []change{basic, head("Sec-Fetch-Site", "same-site"), head("Origin", "http://127.0.0.1:8000")}, 403},
		{"another port's form with the password, plain HTTP", closed, "POST /-/sync", []change{basic, host("kb.example:9090"), head("Origin", "http://kb.example:8000")}, 403},
		{"an address typed with the password", closed, "POST /-/sync", []change{basic, head("Sec-Fetch-Site", "none")}, 401},

		{"another site's form", open, "POST /-/sync", []change{bearer, head("Sec-Fetch-Site", "cross-site"), head("Origin", "https://evil.example")}, 403},
		{"another port's form", open, "POST /-/sync", []change{bearer, head("Sec-Fetch-Site", "same-site")}, 403},
		{"an old browser's", open, "POST /-/sync", []change{bearer, head("Origin", "https://evil.example")}, 403},
		{"a sandboxed frame's", open, "POST /-/sync", []change{bearer, head("Origin", "null")}, 403},

		{"a rebound name", open, "GET /", []change{host("evil.example")}, 403},
		{"a rebound name, JSON", open, "GET /status.json", []change{host("evil.example:9090")}, 403},
		{"a rebound name, metrics", open, "GET /metrics", []change{host("evil.example:9090")}, 403},
		{"a rebound name acts", open, "POST /-/sync", []change{host("evil.example"), head("Sec-Fetch-Site", "same-origin"), head("Origin", "http://evil.example")}, 403},
		{"a rebound name acts, closed", closed, "POST /-/sync", []change{host("evil.example"), head("Origin", "http://evil.example")}, 401},
		{"a name that looks like it", open, "GET /", []change{host("127.0.0.1.evil.example")}, 403},
		{"another one", open, "GET /", []change{host("localhost.evil.example")}, 403},
		{"no name", open, "GET /", []change{host("")}, 403},
		{"a proxy's name with the token", open, "GET /", []change{bearer, host("kb.example")}, 200},

		{"from elsewhere", open, "GET /", []change{from(remote), host("10.0.0.1:9090")}, 401},
		{"from elsewhere, as localhost", open, "GET /", []change{from(remote), host("localhost")}, 401},
		{"from elsewhere, JSON", open, "GET /status.json", []change{from(remote)}, 401},
		{"from elsewhere acts", open, "POST /-/sync", []change{from(remote)}, 401},
		{"from elsewhere, no token", bare, "GET /", []change{from(remote)}, 403},
		{"from an invalid address", open, "GET /", []change{from("@")}, 401},
		{"from a proxy", open, "GET /", []change{head("X-Forwarded-For", "10.1.2.3")}, 401},
		{"from a proxy, RFC 7239", open, "GET /", []change{head("Forwarded", "for=10.1.2.3")}, 401},
		{"from a proxy with the token", open, "GET /", []change{bearer, head("Forwarded", "for=10.1.2.3")}, 200},
		{"Prometheus", open, "GET /metrics", []change{from(remote), host("kbsync.ops.svc:9090")}, 200},
		{"the kubelet", open, "GET /healthz", []change{from(remote), host("10.0.0.1:9090")}, 200},
		{"the kubelet again", open, "GET /readyz", []change{from(remote), host("10.0.0.1:9090")}, 200},

		{"token empty", closed, "GET /", []change{head("Authorization", "Bearer ")}, 401},
		{"token wrong", closed, "GET /", []change{head("Authorization", "Bearer "+canary+"x")}, 401},
		{"token cut", closed, "GET /", []change{head("Authorization", "Bearer "+canary[:5])}, 401},
		{"token in the address", closed, "GET /?token=" + canary, nil, 401},
		{"token", closed, "GET /", []change{bearer}, 200},
		{"token from elsewhere", closed, "POST /-/sync", []change{head("Authorization", "bearer "+canary), from(remote), host("kbsync.example")}, 202},
		{"password", closed, "GET /", []change{basic, from(remote), host("kbsync.example")}, 200},
		{"password acts", closed, "POST /-/sync", []change{basic}, 401},
		{"token, metrics without", closed, "GET /metrics", []change{from(remote), host("kbsync.example")}, 200},
		{"token, health without", closed, "GET /healthz", []change{from(remote), host("kbsync.example")}, 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			method, target, _ := strings.Cut(c.request, " ")
			q := local(method, target, "")
			q.Header.Del("Authorization")
			for _, change := range c.changes {
				change(q)
			}
			called = 0
			w := do(c.page, q)
			if w.Code != c.want {
				t.Errorf("%d, want %d: %s", w.Code, c.want, w.Body)
			}
			if (called == 1) != (w.Code == 202) {
				t.Errorf("responded with %d and called the trigger %d times", w.Code, called)
			}
			if w.Code == 401 && w.Header().Get("WWW-Authenticate") == "" {
				t.Error("401 without WWW-Authenticate")
			}
			// A browser asks for the password only where it would count.
			asks := strings.HasPrefix(w.Header().Get("WWW-Authenticate"), "Basic")
			if counts := method == "GET" || fromOwnPage(q); w.Code == 401 && asks != counts {
				t.Errorf("asks for %s", w.Header().Get("WWW-Authenticate"))
			}
			if policy := w.Header().Get("Content-Security-Policy"); !strings.Contains(policy, "default-src 'none'") || strings.Contains(policy, "unsafe") {
				t.Errorf("policy %q", policy)
			}
			if strings.Contains(w.Body.String(), canary) {
				t.Error("the response contains the token")
			}
		})
	}
}

func TestPageEscapesNames(t *testing.T) {
	f := newFixture(t)
	names := map[string]string{ // to the text on the page
		`<script>alert(1)</script>.md`:          `&lt;script&gt;alert(1)&lt;/script&gt;.md`,
		`"><img src=x onerror=alert(1)>.md`:     `&#34;&gt;&lt;img src=x onerror=alert(1)&gt;.md`,
		`' onmouseover='alert(1).md`:            `&#39; onmouseover=&#39;alert(1).md`,
		`{{.}}.md`:                              `{{.}}.md`,
		"two\nlines.md":                         `&#34;two\nlines.md&#34;`,
		"evil\u202Efdp.exe.md":                  `&#34;evil\u202efdp.exe.md&#34;`,
		"\xff\xfe.md":                           `&#34;\xff\xfe.md&#34;`,
		"nul\x00.md":                            `&#34;nul\x00.md&#34;`,
		"Brühgruppe reinigen.md":                `Brühgruppe reinigen.md`,
		"javascript:alert(1)":                   `javascript:alert(1)`,
		"</style></title><script>x()</script>.": `&lt;/style&gt;&lt;/title&gt;&lt;script&gt;x()&lt;/script&gt;.`,
	}
	var keys []string
	for name := range names {
		keys = append(keys, name)
	}
	odd := `<b>"odd'` + "\u202E"
	s := f.sync(odd)
	f.put(s, keys)
	f.trained(s, state.TrainingFailed, "<i>bad</i>\x1b[31m", f.accept(s, 100)...)
	f.must(f.store.Syncs.SetLastError(t.Context(), s.ID, "<u>halted</u>"))
	p := f.page(Options{Version: "<s>1</s>"})
	p.Loop("<em>loop</em>", 0)

	body := get(t, p, "/") + get(t, p, "/documents?sync="+url.QueryEscape(odd)) + get(t, p, "/sources?sync="+url.QueryEscape(odd)) +
		get(t, p, "/documents?q="+url.QueryEscape(`"><img src=x>`)+"&prefix="+url.QueryEscape("</script><script>"))
	for name, want := range names {
		body += get(t, p, documentLink(odd, name))
		if !strings.Contains(body, "<bdi>"+want+"</bdi>") {
			t.Errorf("%q is not shown as %s", name, want)
		}
	}
	body = regexp.MustCompile(`<script src="/assets/[0-9a-f]+/page.js" defer></script>`).ReplaceAllString(body, "")
	// A form sends the name of a sync as it is. No browser shows this attribute.
	body = regexp.MustCompile(`<option value="[^"]*"`).ReplaceAllString(body, "")
	for _, tag := range []string{"<script", "<style", " style=", "javascript:alert(1)\"", "<img", "<b>\"", "<i>", "<u>", "<s>", "<em>", "onerror=\"", "\x1b", "\u202e", "\x00"} {
		if strings.Contains(body, tag) {
			t.Errorf("the page has %q", tag)
		}
	}
	// The page loads nothing from other sites.
	for _, attr := range []string{"src=\"", "url(", "@import", "href=\"http", "href=\"//"} {
		if strings.Contains(body, attr) {
			t.Errorf("the page has %s", attr)
		}
	}

	w := do(p, local("GET", "/status.json", ""))
	if got := w.Header().Get("Content-Type"); got != "application/json" || w.Header().Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("the content type of the JSON is %q", got)
	}
	var o overview
	if err := json.Unmarshal(w.Body.Bytes(), &o); err != nil {
		t.Fatal(err)
	}
	if o.Syncs[0].Name != odd || len(o.Syncs[0].Attention) != len(names) {
		t.Errorf("JSON is %+v", o)
	}
}

func TestOtherMethodsAreNotAllowed(t *testing.T) {
	p := newFixture(t).page(Options{})
	for path, allow := range map[string]string{
		"/": "GET, HEAD", "/status.json": "GET, HEAD", "/healthz": "GET, HEAD", "/readyz": "GET, HEAD", "/metrics": "GET, HEAD",
		"/-/sync": "POST", "/-/reindex": "POST", "/-/reload": "POST",
	} {
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH"} {
			w := do(p, local(method, path, ""))
			if slices.Contains(strings.Split(allow, ", "), method) {
				if w.Code == 405 {
					t.Errorf("%s %s: 405", method, path)
				}
				continue
			}
			if w.Code != 405 || w.Header().Get("Allow") != allow {
				t.Errorf("%s %s: %d, Allow %q, want 405, %q", method, path, w.Code, w.Header().Get("Allow"), allow)
			}
		}
	}
	for _, path := range []string{"/index.html", "/debug/pprof/", "/-/", "/favicon.ico"} {
		if w := do(p, local("GET", path, "")); w.Code != 404 {
			t.Errorf("GET %s: %d", path, w.Code)
		}
	}
}
