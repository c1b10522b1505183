package browsertest

import (
	"context"
	"fmt"
	"log"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	cdplog "github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// browser is the context of the one Chromium; nil if there is none.
var browser context.Context

// missing says what is not installed, with the remedy.
var missing string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		chromium, axe := findChromium(), axePath()
		switch _, err := os.Stat(axe); {
		case chromium == "":
			missing = "Chromium is missing. To install it: .ci/servers install as root on Debian, or install Chromium"
		case err != nil:
			missing = "axe-core is missing. To install it: .ci/servers install (needs node and npm)"
		}
		if missing != "" {
			fmt.Fprintln(os.Stderr, "LEFT OUT:", missing)
			if os.Getenv("TEST_SERVERS") == "all" {
				return 1
			}
			return m.Run()
		}
		options := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]), chromedp.ExecPath(chromium), chromedp.Flag("disable-dev-shm-usage", true))
		if os.Getuid() == 0 {
			options = append(options, chromedp.NoSandbox) // Chromium refuses its sandbox to root
		}
		allocator, cancel := chromedp.NewExecAllocator(context.Background(), options...)
		defer cancel()
		var end context.CancelFunc
		browser, end = chromedp.NewContext(allocator)
		defer end()
		if err := chromedp.Do(browser); err != nil {
			log.Print("cannot start Chromium: ", err)
			return 1
		}
		return m.Run()
	}())
}

func findChromium() string {
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return ""
}

func axePath() string {
	return filepath.Join("..", "..", "bin", "servers", "axe", "node_modules", "axe-core", "axe.min.js")
}

// A look is how a person sees the pages.
type look struct {
	name   string
	width  int64
	dark   bool
	script bool
}

var (
	desk      = look{"light, desk", 1280, false, true}
	deskDark  = look{"dark, desk", 1280, true, true}
	phone     = look{"light, phone", 390, false, true}
	phoneDark = look{"dark, phone", 390, true, true}
)

// A tab is a page of the browser that notes everything that goes wrong in it.
type tab struct {
	t    *testing.T
	ctx  context.Context
	site *site

	mu     sync.Mutex
	faults []string
}

// open opens a tab, which knows the token of the site.
func (s *site) open(l look) *tab {
	s.Helper()
	if browser == nil {
		s.Skip("the test needs a browser: " + missing)
	}
	ctx, cancel := chromedp.NewContext(browser)
	s.Cleanup(cancel)
	ctx, stop := context.WithTimeout(ctx, 8*time.Minute) // a machine that runs other tests is slow
	s.Cleanup(stop)
	b := &tab{t: s.T, ctx: ctx, site: s}
	s.must(chromedp.Do(ctx)) // opens it
	s.must(chromedp.Listen(ctx, func(event any) {
		switch e := event.(type) {
		case *runtime.EventExceptionThrown:
			b.fault("exception: " + e.ExceptionDetails.Text)
		case *runtime.EventConsoleAPICalled:
			b.fault("console: " + string(e.Type))
		case *cdplog.EventEntryAdded:
			// Violations of the content security policy come here, too.
			b.fault("log: " + e.Entry.Text + " " + e.Entry.URL)
		}
	}))
	scheme := "light"
	if l.dark {
		scheme = "dark"
	}
	call(b, cdplog.Enable, cdp.Empty{})
	call(b, runtime.Enable, cdp.Empty{})
	call(b, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: l.width, Height: 900, DeviceScaleFactor: 1, Mobile: l.width < 500})
	call(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}})
	call(b, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: !l.script})
	with, err := url.Parse(s.url + "/documents")
	s.must(err)
	with.User = url.UserPassword("kbsync", token)
	b.do(chromedp.Navigate(with.String())) // as if the person had entered the password
	return b
}

// call sends a command to a tab.
func call[P, R any](b *tab, command cdp.Command[P, R], params P) {
	b.t.Helper()
	if _, err := chromedp.Call(b.ctx, command, params); err != nil {
		b.t.Fatal(err)
	}
}

func (b *tab) fault(text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.faults = append(b.faults, text)
}

// check fails the test if something went wrong since the last check.
func (b *tab) check(where string) {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, f := range b.faults {
		b.t.Errorf("%s: %s", where, f)
	}
	b.faults = nil
}

func (b *tab) do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, steps...); err != nil {
		b.t.Fatal(err)
	}
}

// get runs an action and returns its value.
func get[T any](b *tab, action chromedp.Action[T]) T {
	b.t.Helper()
	value, err := chromedp.Run(b.ctx, action)
	if err != nil {
		b.t.Fatal(err)
	}
	return value
}

// eval returns the value of a script.
func eval[T any](b *tab, script string) T {
	b.t.Helper()
	return get(b, chromedp.Evaluate[T](script, chromedp.EvalAwaitPromise))
}

// visit goes to an address of the site, and returns how long the page took.
func (b *tab) visit(path string) time.Duration {
	b.t.Helper()
	begun := time.Now()
	b.do(chromedp.Navigate(b.site.url + path))
	return time.Since(begun)
}

// text returns the text of the content.
func (b *tab) text() string {
	b.t.Helper()
	return eval[string](b, `document.querySelector("main")?.innerText ?? ""`)
}

// want waits until the content has a text.
func (b *tab) want(text string) {
	b.t.Helper()
	begun := time.Now()
	for !strings.Contains(b.text(), text) {
		if time.Since(begun) > time.Minute {
			b.t.Fatalf("the page lacks %q: %s", text, b.text())
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// click clicks on the first element of a selector, and waits for the page that follows.
func (b *tab) click(selector string) {
	b.t.Helper()
	if _, err := chromedp.RunResponse(b.ctx, chromedp.Click(selector)); err != nil {
		b.t.Fatalf("click %s: %v", selector, err)
	}
}

// press clicks on elements that lead to no other page.
func (b *tab) press(selectors ...string) {
	b.t.Helper()
	for _, selector := range selectors {
		b.do(chromedp.Click(selector))
	}
}

// shot writes a picture of the whole page to the directory of KBSYNC_SHOTS, if it is set.
func (b *tab) shot(name string) {
	b.t.Helper()
	dir := os.Getenv("KBSYNC_SHOTS")
	if dir == "" {
		return
	}
	picture := get(b, chromedp.FullScreenshot(100))
	if err := os.WriteFile(filepath.Join(dir, strings.NewReplacer(" ", "-", ",", "", "/", "_").Replace(name)+".png"), picture, 0o600); err != nil {
		b.t.Fatal(err)
	}
}
