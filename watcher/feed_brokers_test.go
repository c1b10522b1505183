//go:build !nocloud

package watcher

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gocloud.dev/pubsub"
)

func TestCheckSubscription(t *testing.T) {
	for address, want := range map[string]string{
		"nats://host:4222/DOCS": "",
		"tls://host/DOCS?durable=handbook&subject=a.b&subject=c.>": "",
		"rabbit://docs":                             "",
		"rabbit://docs?prefetch_count=100":          "",
		"kafka://group?topic=docs&offset=oldest":    "",
		"azuresb://docs?subscription=kbsync":        "",
		"azuresb://queue":                           "",
		"gcppubsub://projects/p/subscriptions/docs": "",
		"awssqs://sqs.eu-west-1.amazonaws.com/123456789012/docs?region=eu-west-1": "",
		"mem://docs":                           "",
		"https://host/docs":                    "its scheme must be",
		"nats://me:hunter2@host/DOCS":          "it has credentials in it",
		"nats://host/DOCS?x=amqp://me:pw@host": "it has credentials in its parameter x",
		"nats://host":                          "it names no stream",
		"nats:///DOCS":                         "it names no server",
		"nats://host/A.B":                      "is not the name of a stream",
		"nats://host/A/B":                      "is not the name of a stream",
		"nats://host/DOCS?durable=a.b":         "is not the name of a consumer",
		"nats://host/DOCS?queue=x":             "it has the unknown parameter queue; it takes durable, subject",
		"nats://host/DOCS#x":                   "it has a # in it",
		"rabbit://":                            "it names no queue",
		"rabbit://docs?prefetch_count=0":       "its prefetch_count is not a number",
		"rabbit://docs?prefetch_count=70000":   "its prefetch_count is not a number",
		"kafka://group":                        "it names no group or no topic",
		"azuresb://docs?sub=x":                 "it takes subscription, listener_timeout",
		"azuresb://docs?listener_timeout=x":    "its listener_timeout is not a positive duration",
		"gcppubsub://projects":                 "it names no subscription",
		"awssqs://host/1/docs?wait=1s":         "it has the unknown parameter wait; it takes anonymous",
		"awssqs://sqs.eu-west-1.amazonaws.com": "it names no queue",
		"nats://host/%zz":                      "it is not a URL",
	} {
		err := CheckSubscription(address)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", address, err, want)
		}
		if err != nil && strings.Contains(err.Error()+fmt.Sprintf("%#v", err), "hunter2") {
			t.Errorf("%s: the password is in %v", address, err)
		}
	}
}

func TestDurableName(t *testing.T) {
	for name, want := range map[string]string{"handbook": "kbsync-handbook", "": "kbsync", "a_b-c": "kbsync-a_b-c"} {
		if got := durableName(name); got != want {
			t.Errorf("%q: %q", name, got)
		}
	}
	seen := map[string]string{}
	for _, name := range []string{"a.b", "a-b", "a.b.", "a b", "a>b", "a*b", "a/b"} {
		got := durableName(name)
		if !isNATSName(got) || seen[got] != "" {
			t.Errorf("%q: %q is the name of %q as well", name, got, seen[got])
		}
		seen[got] = name
	}
}

// The error names the missing or invalid variable, and never its value.
func TestMissingVariableIsNamed(t *testing.T) {
	for _, name := range []string{"RABBIT_SERVER_URL", "SERVICEBUS_CONNECTION_STRING", "AZURE_SERVICEBUS_HOSTNAME", "KAFKA_BROKERS"} {
		t.Setenv(name, "")
	}
	for address, want := range map[string]string{"rabbit://docs": "RABBIT_SERVER_URL", "azuresb://docs": "AZURE_SERVICEBUS_HOSTNAME", "kafka://g?topic=t": "KAFKA_BROKERS"} {
		open, err := subscriber(address, "handbook")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := open(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", address, err)
		}
	}
	t.Setenv("RABBIT_SERVER_URL", "amqp://me:hunter2@host:port/")
	t.Setenv("SERVICEBUS_CONNECTION_STRING", "SharedAccessKey=hunter2")
	for _, address := range []string{"rabbit://docs", "azuresb://docs"} {
		open, err := subscriber(address, "handbook")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := open(t.Context()); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", address, err)
		}
	}
}

// Connecting to a server that never answers ends with the context.
func TestConnectingEndsWithItsContext(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	t.Setenv("RABBIT_SERVER_URL", "amqp://me:hunter2@"+l.Addr().String()+"/")
	for _, address := range []string{"nats://" + l.Addr().String() + "/DOCS", "rabbit://docs"} {
		open, err := subscriber(address, "handbook")
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			if c, err := l.Accept(); err == nil {
				defer c.Close()
				cancel()
				_, _ = io.Copy(io.Discard, c)
			}
		}()
		start := time.Now()
		if _, err := open(ctx); err == nil || time.Since(start) > dialTimeout/2 {
			t.Errorf("%s: %v after %v", address, err, time.Since(start))
		}
		cancel()
	}
}

// With a gocloud.dev driver unacknowledged messages come again, and the end logs no error.
func TestFeedOfAGocloudDriver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		address := fmt.Sprintf("mem://%s-%d", t.Name(), rand.Int64()) // a topic outlives the test
		topic, err := pubsub.OpenTopic(ctx, address)
		if err != nil {
			t.Fatal(err)
		}
		send := func(body string) {
			t.Helper()
			if err := topic.Send(ctx, &pubsub.Message{Body: []byte(body)}); err != nil {
				t.Fatal(err)
			}
		}
		var log bytes.Buffer
		f, err := handbookBucket(t).Notifications(ctx, address+"?ackdeadline=20s", FeedOptions{Name: "handbook", Logger: slog.New(slog.NewTextHandler(&log, nil))})
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		synctest.Wait()
		f.want(t, "")
		f.Recorded(nil)
		send(s3Event("docs", "handbook/a.md"))
		send(s3Event("other", "handbook/b.md"))
		send("garbage")
		time.Sleep(time.Second)
		f.want(t, "a.md")
		if s := f.Stats(); s.Taken != 1 || s.Elsewhere != 1 || s.Unknown != 1 || s.Held != 1 {
			t.Errorf("%+v\n%s", s, log.String())
		}
		time.Sleep(time.Minute) // without an acknowledgement it comes again
		f.want(t, "a.md")
		taken := f.Stats().Taken
		if taken < 3 {
			t.Errorf("%d deliveries in a minute", taken)
		}
		f.Recorded(nil)
		time.Sleep(time.Minute)
		f.want(t)
		if s := f.Stats(); s.Taken != taken || s.Held != 0 {
			t.Errorf("an acknowledged message came again: %+v", s)
		}

		// Messages that are held at the end go to the next consumer at once.
		send(s3Event("docs", "handbook/c.md"))
		time.Sleep(time.Second)
		f.want(t, "c.md")
		if err := f.Close(); err != nil {
			t.Error(err)
		}
		if err := topic.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Minute)
	})
}

func TestNotificationsRefuses(t *testing.T) {
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := handbookBucket(t).Notifications(ended, "nats://host/DOCS", FeedOptions{}); err == nil {
		t.Error("no error with an ended context")
	}
	if _, err := handbookBucket(t).Notifications(t.Context(), "nats://host/", FeedOptions{}); err == nil {
		t.Error("no error for a URL without a stream")
	}
}
