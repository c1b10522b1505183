//go:build unix

package cloudtest

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"cloud.google.com/go/pubsub/v2/pstest"
)

// A queue is a fake SQS. A received message is invisible until it is returned.
type queue struct {
	mu      sync.Mutex
	refuses bool
	ready   []string // the receipt of a message is its body
	wait    int      // the last requested wait time in seconds
	deleted []string
	given   []string // returned messages
}

func (q *queue) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var in struct {
		WaitTimeSeconds, MaxNumberOfMessages int
		Entries                              []struct{ Id, ReceiptHandle string }
	}
	_ = json.NewDecoder(r.Body).Decode(&in)
	q.mu.Lock()
	defer q.mu.Unlock()
	w.Header().Set("Content-Type", "application/x-amz-json-1.0")
	if q.refuses {
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprint(w, `{"__type":"com.amazon.coral.service#AccessDeniedException","message":"no"}`)
		return
	}
	out := map[string]any{}
	_, action, _ := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
	switch action {
	case "ReceiveMessage":
		q.wait = in.WaitTimeSeconds
		for range 20 * in.WaitTimeSeconds {
			if len(q.ready) > 0 || r.Context().Err() != nil {
				break
			}
			q.mu.Unlock()
			time.Sleep(50 * time.Millisecond)
			q.mu.Lock()
		}
		n := min(len(q.ready), in.MaxNumberOfMessages)
		messages := []any{}
		for _, body := range q.ready[:n] {
			sum := md5.Sum([]byte(body))
			messages = append(messages, map[string]string{"MessageId": "1", "ReceiptHandle": body, "Body": body, "MD5OfBody": hex.EncodeToString(sum[:])})
		}
		q.ready = q.ready[n:]
		out["Messages"] = messages
	case "DeleteMessageBatch", "ChangeMessageVisibilityBatch":
		done := []any{}
		for _, e := range in.Entries {
			if done = append(done, map[string]string{"Id": e.Id}); action == "DeleteMessageBatch" {
				q.deleted = append(q.deleted, e.ReceiptHandle)
			} else {
				q.given = append(q.given, e.ReceiptHandle)
			}
		}
		out["Successful"] = done
	default:
		w.WriteHeader(http.StatusBadRequest)
	}
	_ = json.NewEncoder(w).Encode(out)
}

// The driver for SQS, with a fake server.
func TestSQSDriver(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", "id")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "canary-secret")
	q := &queue{refuses: true}
	server := httptest.NewServer(q)
	t.Cleanup(server.Close)
	f, log := listen(t, "awssqs://sqs.eu-west-1.amazonaws.com/123456789012/docs?region=eu-west-1&endpoint="+server.URL)
	eventually(t, "the refusal", func() bool { return strings.Contains(log.String(), "AccessDenied") })
	if s := f.Stats(); s.Connections != 0 || strings.Contains(log.String(), "canary") {
		t.Errorf("%+v\n%s", s, log.String())
	}
	bodies := []string{string(record("docs", "a.md")), string(record("docs", "b.md")), string(record("other", "c.md"))}
	q.mu.Lock()
	q.refuses = false
	q.ready = slices.Clone(bodies)
	q.mu.Unlock()
	eventually(t, "the messages", func() bool { s := f.Stats(); return s.Held == 2 && s.Elsewhere == 1 && s.Connected })
	f.Take()
	f.Recorded([]string{"b.md"})
	deleted := func() []string {
		q.mu.Lock()
		defer q.mu.Unlock()
		return slices.Sorted(slices.Values(q.deleted))
	}
	want := []string{bodies[0], bodies[2]}
	slices.Sort(want)
	eventually(t, "their deletion", func() bool { return slices.Equal(deleted(), want) })
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.wait != 20 || !slices.Equal(q.given, bodies[1:2]) {
		t.Errorf("wait time %d s, returned: %q", q.wait, q.given)
	}
}

// The driver for Pub/Sub, with the fake server of its client library.
func TestPubSubDriver(t *testing.T) {
	server := pstest.NewServer()
	t.Cleanup(func() { _ = server.Close() })
	ctx := context.Background()
	const topic, subscription = "projects/p/topics/docs", "projects/p/subscriptions/kbsync"
	if _, err := server.GServer.CreateTopic(ctx, &pubsubpb.Topic{Name: topic}); err != nil {
		t.Fatal(err)
	}
	if _, err := server.GServer.CreateSubscription(ctx, &pubsubpb.Subscription{Name: subscription, Topic: topic, AckDeadlineSeconds: 600}); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PUBSUB_EMULATOR_HOST", server.Addr)
	f, _ := listen(t, "gcppubsub://"+subscription)
	ids := map[string]string{}
	for _, key := range []string{"a.md", "b.md"} {
		ids[key] = server.Publish(topic, []byte("{}"), map[string]string{"eventType": "OBJECT_FINALIZE", "bucketId": "docs", "objectId": key, "payloadFormat": "JSON_API_V1"})
	}
	eventually(t, "the messages", func() bool { s := f.Stats(); return s.Held == 2 && s.Connected })
	if got := server.Message(ids["a.md"]); got.Acks != 0 {
		t.Errorf("acknowledged before it was recorded: %+v", got)
	}
	f.Take()
	f.Recorded([]string{"b.md"})
	eventually(t, "the acknowledgement", func() bool { return server.Message(ids["a.md"]).Acks == 1 })
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if got := server.Message(ids["b.md"]); got.Acks != 0 {
		t.Errorf("acknowledged although it was not recorded: %+v", got)
	}
	// The message was returned, so the next consumer receives it at once.
	next, _ := listen(t, "gcppubsub://"+subscription)
	eventually(t, "what was handed back", func() bool { return next.Stats().Held == 1 })
}
