//go:build unix

package cloudtest

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/kbsync/kbsync/replycx/emulator"
)

// A watchFixture runs kbsync watch with notifications.
type watchFixture struct {
	*syncFixture
	broker *broker
	cmd    *exec.Cmd
	ended  chan error
	log    string // the path of the log
	listen string
}

// newWatchFixture starts a server with a bucket. If direct, the server publishes notifications to the broker.
func newWatchFixture(t *testing.T, b *broker, direct bool) *watchFixture {
	var flags []string
	if direct {
		flags = b.direct
	}
	c, stop, err := startGateway(t.TempDir(), flags...)
	if err != nil {
		t.Fatal(err)
	}
	if c == nil {
		t.Skip("versitygw is missing: run .ci/servers install")
	}
	t.Cleanup(stop)
	w := &watchFixture{syncFixture: newSyncFixture(t, c), broker: b, log: filepath.Join(t.TempDir(), "log"), listen: fmt.Sprintf("127.0.0.1:%d", freePort())}
	t.Cleanup(func() {
		if w.cmd != nil {
			_ = w.cmd.Process.Kill()
			<-w.ended
		}
		if t.Failed() {
			text, _ := os.ReadFile(w.log)
			t.Logf("the log of kbsync ends with\n%s", text[max(0, len(text)-5000):])
		}
	})
	return w
}

// start starts the program and waits until it is ready and connected to the broker.
func (w *watchFixture) start(args ...string) {
	w.Helper()
	w.launch(args...)
	w.await("to be ready and connected", 60*time.Second, func() bool { return w.metric("kbsync_notification_connected") == 1 && w.answers("/readyz") })
}

// launch starts the program.
func (w *watchFixture) launch(args ...string) {
	w.Helper()
	path, err := kbsync()
	if err != nil {
		w.Fatal(err)
	}
	address := withPrefix(w.cloud.url(w.proxy.addr, w.bucket), folder)
	args = append([]string{"watch", address, "--knowledge-base", "876", "--state", w.state, "--api-url", w.url, "--rate", "off", "--settle", "100ms",
		"--batch-wait", "100ms", "--min-reupload-interval", "off", "--poll-min", "20ms", "--max-delete", "off", "--max-change", "off", "--rescan", "off",
		"--notifications", w.broker.url, "--listen", w.listen}, args...)
	w.cmd = exec.Command(path, args...)
	w.cmd.Env = append(os.Environ(), append(w.cloud.env(w.proxy.addr), "REPLYCX_TOKEN="+w.api.Token(emulator.DefaultFixture().Accounts[0].ID), "HOME="+w.TempDir())...)
	w.cmd.Env = append(w.cmd.Env, w.broker.env...)
	log, err := os.OpenFile(w.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		w.Fatal(err)
	}
	defer log.Close()
	w.cmd.Stderr = log
	if err := w.cmd.Start(); err != nil {
		w.Fatal(err)
	}
	ended := make(chan error, 1)
	w.ended = ended
	cmd := w.cmd
	go func() { ended <- cmd.Wait() }()
}

// answers reports whether the program answers with status 200.
func (w *watchFixture) answers(path string) bool {
	resp, err := http.Get("http://" + w.listen + path)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// end ends the program with a signal.
func (w *watchFixture) end(signal syscall.Signal) {
	w.Helper()
	_ = w.cmd.Process.Signal(signal)
	select {
	case <-w.ended:
	case <-time.After(20 * time.Second):
		w.Fatal("kbsync did not end")
	}
	w.cmd = nil
}

// metric returns a metric of the program, of the first series with all the labels; -1 if there is none.
func (w *watchFixture) metric(name string, labels ...string) float64 {
	resp, err := http.Get("http://" + w.listen + "/metrics")
	if err != nil {
		return -1
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
lines:
	for line := range strings.Lines(string(body)) {
		series, value, _ := strings.Cut(strings.TrimSpace(line), "} ")
		if !strings.HasPrefix(series, name+"{") {
			continue
		}
		for _, l := range labels {
			if !strings.Contains(series, l) {
				continue lines
			}
		}
		if n, err := strconv.ParseFloat(value, 64); err == nil {
			return n
		}
	}
	return -1
}

func (w *watchFixture) await(what string, patience time.Duration, is func() bool) {
	w.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
		if is() {
			return
		}
	}
	w.Fatalf("timed out waiting for kbsync %s", what)
}

// A changeLog makes and records changes of objects in a bucket: of a hundred, 80 create an object, 12 overwrite one and 8 delete one.
type changeLog struct {
	changes int
	odd     bool // with spaces and other odd characters in the keys
	killed  bool // the program was killed, perhaps in the middle of an upload
	mu      sync.Mutex
	current map[string]string // the present contents, by key
	former  map[[32]byte]bool // earlier contents
}

// newChangeLog returns a log of 1,500 changes, or of CHANGES, a multiple of 100.
func newChangeLog(t *testing.T) *changeLog {
	t.Helper()
	h := &changeLog{changes: 1500}
	if text := os.Getenv("CHANGES"); text != "" {
		var err error
		if h.changes, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	return h
}

// part returns that percentage of the changes.
func (h *changeLog) part(percent int) int { return h.changes * percent / 100 }

// make makes the changes from number from to number to, and calls notify for each unless it is nil.
func (h *changeLog) make(ctx context.Context, w *watchFixture, from, to int, notify func(ctx context.Context, key string) error) error {
	if h.current == nil {
		h.current, h.former = map[string]string{}, map[[32]byte]bool{}
	}
	key := func(i int) string {
		if h.odd {
			return fmt.Sprintf("%s%d/a b+c%%20 é %04d.md", folder, i/50, i)
		}
		return fmt.Sprintf("%s%d/%04d.md", folder, i/50, i)
	}
	created, overwritten := h.part(80), h.part(12)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(8)
	for i := from; i < to; i++ {
		group.Go(func() (err error) {
			var at, content string
			switch {
			case i < created:
				at, content = key(i), fmt.Sprintf("document %d of %d\n", i, created)
				err = w.Put(ctx, at, strings.NewReader(content))
			case i < created+overwritten:
				at, content = key(i-created), fmt.Sprintf("document %d, edited\n", i-created)
				err = w.Put(ctx, at, strings.NewReader(content))
			default:
				at = key(i - created)
				err = w.Delete(ctx, at)
			}
			if err != nil {
				return err
			}
			h.mu.Lock()
			if before, ok := h.current[at]; ok {
				h.former[sha256.Sum256([]byte(before))] = true
			}
			delete(h.current, at)
			if content != "" {
				h.current[at] = content
			}
			h.mu.Unlock()
			if notify != nil {
				return notify(ctx, at)
			}
			return nil
		})
	}
	return group.Wait()
}

// missing counts the present contents that were not accepted yet.
func (h *changeLog) missing(w *watchFixture) int {
	accepted := w.accepted()
	n := 0
	for _, content := range h.current {
		if accepted[sha256.Sum256([]byte(content))] == 0 {
			n++
		}
	}
	return n
}

// verify waits for all uploads, ends the program and checks the result. Only a listed possible duplicate may have been accepted twice.
func (h *changeLog) verify(w *watchFixture) {
	w.Helper()
	// Documents in a request that a kill interrupted are sent again after a minute.
	const resent = 2 * time.Minute
	w.await("to upload everything", resent, func() bool { return h.missing(w) == 0 })
	w.await("to release all messages", 30*time.Second, func() bool { return w.metric("kbsync_notifications_held") == 0 })
	w.await("to have everything trained", resent, func() bool {
		return w.metric("kbsync_documents", `state="completed"`) == float64(len(h.current))
	})
	if n := w.metric("kbsync_missed_changes_total"); n != 0 {
		w.Errorf("rescans found %v changes", n)
	}
	w.Logf("taken %v, elsewhere %v, unknown %v, connections %v, failed acknowledgements %v; %d whole listings, %d listings in all, %d contents read",
		w.metric("kbsync_notifications_total", "taken"), w.metric("kbsync_notifications_total", "elsewhere"), w.metric("kbsync_notifications_total", "unknown"),
		w.metric("kbsync_notification_connections_total"), w.metric("kbsync_notification_failed_acks_total"), w.proxy.wholes, w.proxy.lists, w.proxy.gets)
	w.end(syscall.SIGTERM)
	w.await("to have every message acknowledged", 10*time.Second, func() bool {
		n, err := w.broker.waiting(w.Context())
		return err == nil && n == 0
	})
	accepted := w.accepted()
	wanted := map[[32]byte]bool{}
	for _, content := range h.current {
		wanted[sha256.Sum256([]byte(content))] = true
	}
	possible := w.possibleDuplicates()
	for sum, times := range accepted {
		switch {
		case times > 1 && !possible[sum] || times > 2:
			w.Errorf("%x was accepted %d times; listed as a possible duplicate: %v", sum, times, possible[sum])
		case !wanted[sum] && !h.former[sum]:
			w.Errorf("%x was never in the bucket", sum)
		}
	}
	if !h.killed && len(possible) > 0 {
		w.Errorf("%d possible duplicates are listed, although every answer arrived", len(possible))
	}
	// The state equals the bucket: a pass finds no change.
	if r := w.sync(0).Syncs[0]; r.Unchanged != len(h.current) || r.New+r.Changed+r.Removed+r.Uploaded != 0 {
		w.Errorf("a pass afterwards: %+v", r)
	}
}

// Notifications of the server alone find all changes.
func TestNotificationsAloneFindAllChanges(t *testing.T) {
	t.Parallel()
	for _, kind := range brokerKinds {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			w := newWatchFixture(t, kind.open(t), true)
			w.start()
			wholes := w.proxy.wholes
			h := newChangeLog(t)
			start := time.Now()
			if err := h.make(t.Context(), w, 0, h.changes, nil); err != nil {
				t.Fatal(err)
			}
			t.Logf("%d changes in %v", h.changes, time.Since(start).Round(time.Millisecond))
			h.verify(w)
			t.Logf("all done after %v", time.Since(start).Round(time.Millisecond))
			// On a busy machine more names may wait than kbsync keeps. It then lists the root, because of the messages all the same.
			t.Logf("the whole root was listed %d times", w.proxy.wholes-wholes-1) // without the pass at the end
		})
	}
}

// record returns a message of S3.
func record(bucket, key string) []byte {
	var o struct {
		Records []any
	}
	o.Records = []any{map[string]any{
		"eventSource": "aws:s3", "eventName": "ObjectCreated:Put",
		"s3": map[string]any{"bucket": map[string]any{"name": bucket}, "object": map[string]any{"key": url.QueryEscape(key)}},
	}}
	body, err := json.Marshal(o)
	if err != nil {
		panic(err)
	}
	return body
}

// Messages come twice, late and in another order, with foreign messages between them, while the broker restarts and kbsync is
// killed. Each content is accepted once all the same, except those in requests that the kill interrupted, and every message is
// acknowledged.
func TestBrokenDeliveryLosesNothing(t *testing.T) {
	t.Parallel()
	for _, kind := range brokerKinds {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			w := newWatchFixture(t, kind.open(t), false)
			w.start()
			// Messages are published in random order from a bag.
			type letter struct {
				body []byte
				late bool
			}
			h := newChangeLog(t)
			h.odd = true
			letters := make(chan letter, h.changes)
			var sent atomic.Int64
			publish := func(ctx context.Context, body []byte) error {
				for {
					attempt, cancel := context.WithTimeout(ctx, 3*time.Second)
					err := w.broker.publish(attempt, body)
					cancel()
					if err == nil {
						sent.Add(1)
						return nil
					}
					if ctx.Err() != nil {
						return ctx.Err()
					}
					time.Sleep(100 * time.Millisecond) // the broker is restarting
				}
			}
			post, ctx := errgroup.WithContext(t.Context())
			for range 4 {
				post.Go(func() error {
					var bag [][]byte
					for l := range letters {
						bag = append(bag, l.body)
						for len(bag) > 20 {
							i := rand.N(len(bag))
							if err := publish(ctx, bag[i]); err != nil {
								return err
							}
							bag[i] = bag[len(bag)-1]
							bag = bag[:len(bag)-1]
						}
					}
					for _, body := range bag {
						if err := publish(ctx, body); err != nil {
							return err
						}
					}
					return nil
				})
			}
			var n atomic.Int64
			notify := func(_ context.Context, key string) error {
				i := n.Add(1)
				letters <- letter{body: record(w.bucket, key)}
				switch i % 50 {
				case 0, 25:
					letters <- letter{body: record(w.bucket, key)}
				case 10:
					letters <- letter{body: record("another-bucket", key)}
				case 20:
					letters <- letter{body: record(w.bucket, "elsewhere/"+key)}
				case 30:
					letters <- letter{body: []byte(`{"Service":"Amazon S3","Event":"s3:TestEvent","Time":"2026-11-24T00:00:00.000Z","Bucket":"docs"}`)}
				case 40:
					letters <- letter{body: []byte(`{"Records":[{"s3":`)}
				}
				return nil
			}
			start := time.Now()
			step := func(from, to int) {
				t.Helper()
				if err := h.make(t.Context(), w, from, to, notify); err != nil {
					t.Fatal(err)
				}
			}
			step(0, h.part(30))
			restarted := make(chan error, 1)
			go func() { restarted <- w.broker.restart() }()
			step(h.part(30), h.part(60))
			if err := <-restarted; err != nil {
				t.Fatal(err)
			}
			w.await("to be connected again", 60*time.Second, func() bool { return w.metric("kbsync_notification_connections_total") >= 2 })
			step(h.part(60), h.part(70))
			w.end(syscall.SIGKILL)
			h.killed = true
			step(h.part(70), h.part(84))
			w.start("--lock-timeout", "5s")
			step(h.part(84), h.changes)
			close(letters)
			if err := post.Wait(); err != nil {
				t.Fatal(err)
			}
			t.Logf("%d changes and %d messages in %v", h.changes, sent.Load(), time.Since(start).Round(time.Millisecond))
			h.verify(w)
			t.Logf("all done after %v", time.Since(start).Round(time.Millisecond))
		})
	}
}
