//go:build unix

package cloudtest

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/kbsync/kbsync/watcher"
)

// An outage of the broker delays nothing and is logged once. The messages of documents that cannot be listed stay unacknowledged
// until the documents are recorded.
func TestOutageOfTheBrokerDelaysNothing(t *testing.T) {
	t.Parallel()
	b := openNATS(t)
	w := newWatchFixture(t, b, false)
	if err := b.stop(); err != nil {
		t.Fatal(err)
	}
	w.put(folder+"first.md", "there at the start\n")
	w.launch()
	w.await("to upload without a broker", 20*time.Second, func() bool { return len(w.accepted()) == 1 && w.answers("/readyz") && w.answers("/healthz") })
	if n := w.metric("kbsync_notification_connected"); n != 0 {
		t.Errorf("connected: %v", n)
	}
	w.put(folder+"second.md", "changed without a notification\n")
	time.Sleep(2 * time.Second) // for some attempts to connect
	if err := b.back(); err != nil {
		t.Fatal(err)
	}
	w.await("to connect and find the unnotified change", 20*time.Second, func() bool {
		return len(w.accepted()) == 2 && w.metric("kbsync_notification_connections_total") == 1
	})
	log, err := os.ReadFile(w.log)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(log), "level=WARN"); n != 1 {
		t.Errorf("%d warnings", n)
	}

	w.proxy.reset(func(page int, _ string) bool { return page == 0 }) // all listings fail
	const documents = 10
	for i := range documents {
		key := fmt.Sprintf("%s%d.md", folder, i)
		w.put(key, fmt.Sprintf("document %d of the outage\n", i))
		if err := b.publish(t.Context(), record(w.bucket, key)); err != nil {
			t.Fatal(err)
		}
	}
	w.await("to hold the messages", 20*time.Second, func() bool { return w.metric("kbsync_notifications_held") == documents })
	// Longer than the consumer's lease, so that it is renewed.
	time.Sleep(4 * time.Second)
	if n, err := b.waiting(t.Context()); err != nil || n != documents {
		t.Errorf("%d messages unacknowledged, %v", n, err)
	}
	if n := w.metric("kbsync_notifications_total", "taken"); n != documents {
		t.Errorf("%v messages received", n)
	}
	w.proxy.reset(nil)
	w.await("to upload them", 30*time.Second, func() bool { return len(w.accepted()) == 2+documents })
	w.await("to acknowledge them", 10*time.Second, func() bool {
		n, err := b.waiting(t.Context())
		return err == nil && n == 0 && w.metric("kbsync_notifications_held") == 0
	})
	w.end(syscall.SIGTERM)
}

// A lockedBuffer collects a log.
type lockedBuffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Buffer.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Buffer.String()
}

func listen(t *testing.T, address string) (*watcher.Feed, *lockedBuffer) {
	t.Helper()
	bucket, err := watcher.OpenBucket(t.Context(), "mem://docs", watcher.BucketOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var log lockedBuffer
	f, err := bucket.Notifications(t.Context(), address, watcher.FeedOptions{Name: "hand.book", Delay: 10 * time.Millisecond, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f, &log
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if is() {
			return
		}
	}
	t.Fatalf("timed out waiting for %s", what)
}

// Two feeds of one subscription each receive a part of the messages, and none is lost when one ends.
func TestTwoFeedsShareASubscription(t *testing.T) {
	t.Parallel()
	for _, kind := range brokerKinds {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			b := kind.open(t)
			for _, variable := range b.env { // equal in all tests
				name, value, _ := strings.Cut(variable, "=")
				os.Setenv(name, value)
			}
			one, _ := listen(t, b.url)
			other, _ := listen(t, b.url)
			for _, f := range []*watcher.Feed{one, other} {
				eventually(t, "the connection", func() bool { return f.Stats().Connected })
			}
			const messages = 400
			for i := range messages {
				if err := b.publish(t.Context(), record("docs", fmt.Sprintf("%d/%d.md", i%20, i))); err != nil {
					t.Fatal(err)
				}
			}
			eventually(t, "all messages", func() bool { return one.Stats().Held+other.Stats().Held == messages })
			if n := one.Stats().Held; n == 0 || n == messages {
				t.Fatalf("one feed has %d of %d messages", n, messages)
			}
			one.Take()
			one.Recorded(nil)
			had := int(one.Stats().Taken)
			// The other feed ends without acknowledging its messages.
			other.Take()
			if err := other.Close(); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the messages of the other feed", func() bool { return int(one.Stats().Taken) >= messages })
			t.Logf("one feed had %d messages and took over %d", had, int(one.Stats().Taken)-had)
			one.Take()
			one.Recorded(nil)
			if err := one.Close(); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the last acknowledgement", func() bool {
				n, err := b.waiting(t.Context())
				return err == nil && n == 0
			})
		})
	}
}

// kbsync creates or uses a consumer, and reports a missing stream.
func TestJetStreamConsumers(t *testing.T) {
	b := newNATS(t)
	conn, err := nats.Connect("nats://" + b.address())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	address := "nats://" + b.address() + "/DOCS?subject=bucket.docs&subject=bucket.more"
	ctx := t.Context()

	f, log := listen(t, address)
	eventually(t, "the warning", func() bool {
		return strings.Contains(log.String(), "nats stream add DOCS --subjects=bucket.docs,bucket.more")
	})
	if _, err := watcher.CheckNotifications(ctx, address, "hand.book"); err == nil || !strings.Contains(err.Error(), "there is no stream DOCS") {
		t.Error(err)
	}
	stream, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: "DOCS", Subjects: []string{"bucket.>"}})
	if err != nil {
		t.Fatal(err)
	}
	found, err := watcher.CheckNotifications(ctx, address, "hand.book")
	if err != nil || !strings.Contains(found, "kbsync watch creates the consumer kbsync-hand-book-") {
		t.Error(found, err)
	}
	eventually(t, "the connection", func() bool { return f.Stats().Connected })
	names := stream.ConsumerNames(ctx)
	durable := <-names.Name()
	c, err := stream.Consumer(ctx, durable)
	if err != nil {
		t.Fatal(err)
	}
	if got := c.CachedInfo().Config; !strings.HasPrefix(got.Durable, "kbsync-hand-book-") || got.AckPolicy != jetstream.AckExplicitPolicy || len(got.FilterSubjects) != 2 ||
		got.MaxAckPending < 1000 || got.AckWait > time.Minute {
		t.Errorf("%+v", got)
	}
	for _, subject := range []string{"bucket.docs", "bucket.other", "bucket.more"} {
		if _, err := js.Publish(ctx, subject, record("docs", subject+".md")); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "two messages", func() bool { return f.Stats().Held == 2 })
	found, err = watcher.CheckNotifications(ctx, address, "hand.book")
	if err != nil || !strings.Contains(found, "2 messages waiting") {
		t.Error(found, err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the end of all goroutines", func() bool {
		all := make([]byte, 1<<20)
		text := string(all[:runtime.Stack(all, true)])
		return strings.Count(text, "kbsync/watcher.") == 0 && strings.Count(text, "jetstream.(*pullConsumer)") == 0
	})

	for name, config := range map[string]jetstream.ConsumerConfig{
		"does not acknowledge": {Durable: "none", AckPolicy: jetstream.AckNonePolicy},
		"pushes":               {Durable: "push", AckPolicy: jetstream.AckExplicitPolicy, DeliverSubject: "somewhere"},
	} {
		if config.DeliverSubject != "" {
			_, err = stream.CreateOrUpdatePushConsumer(ctx, config)
		} else {
			_, err = stream.CreateOrUpdateConsumer(ctx, config)
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, err := watcher.CheckNotifications(ctx, "nats://"+b.address()+"/DOCS?durable="+config.Durable, "hand.book"); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", config.Durable, err)
		}
	}
}

// The credentials come from the environment, and no message contains them.
func TestJetStreamCredentialsStayOutOfMessages(t *testing.T) {
	b := &natsBroker{}
	b.options = newNATSOptions(t)
	b.options.Username, b.options.Password = "kbsync", "canary-password"
	if err := b.start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.stop)
	address := "nats://" + b.address() + "/DOCS"
	t.Setenv("NATS_USER", "kbsync")
	t.Setenv("NATS_PASSWORD", "canary-wrong")
	if _, err := watcher.CheckNotifications(t.Context(), address, "docs"); err == nil || !strings.Contains(err.Error(), "Authorization Violation") || strings.Contains(err.Error(), "canary") {
		t.Error(err)
	}
	t.Setenv("NATS_PASSWORD", "canary-password")
	if _, err := watcher.CheckNotifications(t.Context(), address, "docs"); err == nil || !strings.Contains(err.Error(), "there is no stream DOCS") {
		t.Error(err)
	}
}

func TestRabbitReportsMissingAndExistingQueues(t *testing.T) {
	t.Parallel()
	b := openRabbit(t)
	for _, variable := range b.env { // equal in all tests
		name, value, _ := strings.Cut(variable, "=")
		os.Setenv(name, value)
	}
	if _, err := watcher.CheckNotifications(t.Context(), "rabbit://nowhere", "docs"); err == nil || !strings.Contains(err.Error(), "there is no queue nowhere") {
		t.Error(err)
	}
	f, log := listen(t, "rabbit://nowhere")
	eventually(t, "the warning", func() bool { return strings.Contains(log.String(), "there is no queue nowhere") })
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := b.publish(t.Context(), record("docs", "a.md")); err != nil {
		t.Fatal(err)
	}
	if found, err := watcher.CheckNotifications(t.Context(), b.url, "docs"); err != nil || !strings.Contains(found, "with 1 messages ready") {
		t.Error(found, err)
	}
}
