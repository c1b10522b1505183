package browsertest

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/kbsync/kbsync/internal/statuspage"
)

// everyPage are the addresses of every kind of page of a troubled site.
func everyPage(s *site) []string {
	return []string{
		"/", "/documents", "/documents?state=failed", "/documents?q=nothing+has+this",
		"/documents/care/descaling-0000.md?sync=handbook", "/documents/evil%E2%80%AEfdp.exe.md?sync=handbook",
		"/sources", "/history", "/confirm?action=sync&sync=handbook", "/confirm?action=retry&sync=handbook", "/confirm?action=reindex&sync=handbook",
		"/confirm?action=reindex&all=true&sync=handbook", "/documents/none.md?sync=handbook",
	}
}

// Every page has no fault that axe finds, no error and no violation of its policy, and needs no horizontal scrolling.
func TestPages(t *testing.T) {
	s := newSite(t, nil)
	s.troubled("handbook", 50)
	axe, err := os.ReadFile(axePath())
	if err != nil && browser != nil {
		t.Fatal(err)
	}
	for _, l := range []look{desk, phoneDark} {
		b := s.open(l)
		for _, path := range everyPage(s) {
			where := l.name + ": " + path
			b.visit(path)
			b.inspect(where, string(axe))
			b.shot(where)
			if strings.HasPrefix(path, "/documents/none") {
				b.faults = nil // the browser logs the 404
			}
			b.check(where)
		}
	}
	for _, l := range []look{deskDark, phone} {
		b := s.open(l)
		b.visit("/")
		b.inspect(l.name, string(axe))
		b.shot(l.name)
		b.check(l.name)
	}
	empty := newSite(t, nil)
	for _, l := range []look{phone} {
		b := empty.open(l)
		for _, path := range []string{"/", "/documents", "/sources", "/history"} {
			where := "empty, " + l.name + ": " + path
			b.visit(path)
			b.inspect(where, string(axe))
			b.shot(where)
			b.check(where)
		}
	}
	reader := newSite(t, func(o *statuspage.Options) { o.ReadOnly = true })
	reader.troubled("handbook", 10)
	b := reader.open(desk)
	b.visit("/")
	b.want("kbsync serve shows this state")
	b.inspect("read only", string(axe))
	b.check("read only")
}

// inspect checks a page.
func (b *tab) inspect(where, axe string) {
	b.t.Helper()
	findings := eval[[]string](b, axe+`; axe.run({resultTypes: ["violations"]}).then(r => r.violations.map(v => v.id + ": " + v.help + ": " + v.nodes.slice(0, 3).map(n => n.html + " " + n.failureSummary).join(" | ")))`)
	for _, f := range findings {
		b.t.Errorf("%s: axe: %s", where, f)
	}
	widths := eval[[2]int](b, `[document.documentElement.scrollWidth, document.documentElement.clientWidth]`)
	if widths[0] > widths[1] {
		widest := eval[string](b, `[...document.querySelectorAll("main *")].filter(e => e.getBoundingClientRect().right > document.documentElement.clientWidth + 1).map(e => e.outerHTML.slice(0, 120)).slice(0, 3).join(" | ")`)
		b.t.Errorf("%s: the page is %d wide in a window of %d: %s", where, widths[0], widths[1], widest)
	}
}

// Every button leads to a confirmation, and from there to its trigger; also without JavaScript.
func TestButtons(t *testing.T) {
	for _, l := range []look{desk, {"without script", 390, false, false}} {
		t.Run(l.name, func(t *testing.T) {
			s := newSite(t, nil)
			y := s.troubled("handbook", 20)
			b := s.open(l)
			wantCall := func(want string) {
				t.Helper()
				if got := s.called(); got != want {
					t.Errorf("called %q, want %q", got, want)
				}
			}
			b.visit("/")
			b.click(`a[href="/confirm?action=sync&sync=handbook"]`)
			b.want("2 permanent uploads")
			wantCall("")
			b.click(`form[method=post] button`)
			b.want("What needs a person")
			wantCall("sync handbook")

			b.click(`a[href="/confirm?action=retry&sync=handbook"]`)
			b.want("At most 6 permanent uploads")
			b.click(`.actions a.button`)
			wantCall("")
			b.click(`a[href="/confirm?action=retry&sync=handbook"]`)
			b.click(`form[method=post] button`)
			wantCall("reindex {Sync:handbook Globs:[] Key: Failed:false Stuck:false OlderThan:0s All:false Retry:true Confirmed:false}")

			b.click(`a[href="/confirm?action=reindex&sync=handbook"]`)
			b.press(`input[name=all]`)
			b.click(`.choose button`)
			b.want("every document of this sync once more")
			b.press(`form[method=post] button`) // the box is not ticked
			wantCall("")
			b.press(`input[name=confirm]`)
			b.click(`form[method=post] button`)
			wantCall("reindex {Sync:handbook Globs:[] Key: Failed:false Stuck:false OlderThan:0s All:true Retry:false Confirmed:true}")

			b.visit("/documents?sync=handbook&q=loan")
			b.click(`td.key a`)
			b.want("upload began")
			b.click(`a.button`)
			b.want("1 permanent upload,")
			b.click(`form[method=post] button`)
			wantCall("reindex {Sync:handbook Globs:[] Key:workshop/loan-machines-0009.md Failed:false Stuck:false OlderThan:0s All:false Retry:false Confirmed:false}")

			b.visit("/sources?sync=handbook")
			b.press(`input[name=id]`, `tr:nth-child(2) input[name=id]`)
			b.click(`.worksheet button`)
			wantCall(fmt.Sprintf("ack {Sync:handbook Destination:%d IDs:[330000 330001]}", y.Destination.ID))
			b.want("330002")
			if strings.Contains(b.text(), "330001") {
				t.Error("the list still has a source that was acknowledged")
			}
			b.check(l.name)
		})
	}
}

// A page follows the state without being loaded again, and keeps the focus.
func TestLive(t *testing.T) {
	s := newSite(t, nil)
	y := s.sync("handbook")
	s.put(y, handbook(3))
	s.complete(y, 10)
	b := s.open(desk)
	b.visit("/")
	b.want("Everything is in step")
	eval[chromedp.Void](b, `window.same = true; document.querySelector('a[href="/confirm?action=sync&sync=handbook"]').focus()`)
	s.put(y, []string{"new.md"})
	b.want("1 document is not in step yet")
	same := eval[bool](b, `window.same === true`)
	focused := eval[bool](b, `document.activeElement.getAttribute("href") === "/confirm?action=sync&sync=handbook"`)
	if !same || !focused {
		t.Errorf("the page was loaded again: %v; it kept the focus: %v", !same, focused)
	}
	b.check("live")
}

// The keyboard reaches everything, in order, and shows where it is.
func TestKeyboard(t *testing.T) {
	s := newSite(t, nil)
	s.troubled("handbook", 10)
	b := s.open(desk)
	b.visit("/")
	b.do(chromedp.KeyEvent("\t"))
	first := eval[string](b, `document.activeElement.textContent + " " + (document.activeElement.getBoundingClientRect().left >= 0)`)
	if first != "Skip to the content true" {
		t.Errorf("the first stop is %q", first)
	}
	order := ""
	for range 5 {
		b.do(chromedp.KeyEvent("\t"))
		order += eval[string](b, `(e => e.textContent + " " + getComputedStyle(e).outlineStyle + "; ")(document.activeElement)`)
	}
	if want := "kbsync solid; Overview solid; Documents solid; Sources to remove solid; "; !strings.HasPrefix(order, want) {
		t.Errorf("the stops are %q", order)
	}
	b.check("keyboard")
}
