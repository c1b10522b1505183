package watcher

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

// An eventExample is a file of testdata/events: a message as a broker delivers it, and its events, one on each line, or "unknown".
type eventExample struct {
	name   string
	m      message
	events []bucketEvent
	known  bool
}

func eventExamples(t testing.TB) (examples []eventExample) {
	files, err := filepath.Glob("testdata/events/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no examples", err)
	}
	for _, file := range files {
		archive, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		ex := eventExample{name: strings.TrimSuffix(filepath.Base(file), ".txt")}
		for _, part := range archive.Files {
			switch part.Name {
			case "attributes":
				ex.m.attributes = attributesOf(string(part.Data))
			case "body":
				ex.m.body = bytes.TrimSuffix(part.Data, []byte("\n"))
			case "events":
				ex.known = string(part.Data) != "unknown\n"
				for line := range strings.Lines(string(part.Data)) {
					bucket, quoted, found := strings.Cut(strings.TrimSpace(line), " ")
					if !found {
						continue
					}
					key, err := strconv.Unquote(quoted)
					if err != nil {
						t.Fatalf("%s: %s: %v", file, line, err)
					}
					ex.events = append(ex.events, bucketEvent{bucket, key})
				}
			default:
				t.Fatalf("%s: unknown part: %s", file, part.Name)
			}
		}
		examples = append(examples, ex)
	}
	return examples
}

func attributesOf(text string) map[string]string {
	attributes := map[string]string{}
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		attributes[name] = value
	}
	return attributes
}

func attributesText(attributes map[string]string) string {
	var b strings.Builder
	for name, value := range attributes {
		fmt.Fprintf(&b, "%s: %s\n", name, value)
	}
	return b.String()
}

func TestParseMessage(t *testing.T) {
	for _, ex := range eventExamples(t) {
		t.Run(ex.name, func(t *testing.T) {
			events, known := parseMessage(ex.m)
			if known != ex.known || !slices.Equal(events, ex.events) {
				t.Errorf("got %q, known %t\nwant %q, known %t", events, known, ex.events, ex.known)
			}
		})
	}
}

func TestParseMessageSize(t *testing.T) {
	for extra, want := range map[int]bool{0: true, 1: false} {
		body := s3Record("docs", "a.md")
		body = append(body, bytes.Repeat([]byte(" "), maxMessage-len(body)+extra)...)
		if _, known := parseMessage(message{body: body}); known != want {
			t.Errorf("a body of %d bytes: known %t, want %t", len(body), known, want)
		}
	}
}

// s3Record returns the event that S3 sends for a key.
func s3Record(bucket, key string) []byte {
	name := func(s string) string { b, _ := json.Marshal(s); return string(b) }
	return fmt.Appendf(nil, `{"Records":[{"eventSource":"aws:s3","s3":{"bucket":{"name":%s},"object":{"key":%s}}}]}`,
		name(bucket), name(url.QueryEscape(key)))
}

func FuzzParseMessage(f *testing.F) {
	for _, ex := range eventExamples(f) {
		f.Add(ex.m.body, attributesText(ex.m.attributes))
	}
	f.Add([]byte(`{"Records":[{"s3":{"bucket":{"name":"b"},"object":{"key":"%ff/%EF%BF%BD+\ud83d"}}}]}`), "")
	f.Add([]byte(`[[[]],{"Type":"Notification","Message":"[{\"source\":\"aws.s3\",\"detail\":{}}]"}]`), "eventType: x\nbucketId: b")
	f.Add([]byte(`{"eventType":"Microsoft.Storage.DirectoryRenamed","subject":"/blobServices/default/containers/c/blobs//","data":{"url":"://c//"}}`), "")
	f.Fuzz(func(t *testing.T, body []byte, attributes string) {
		m := message{body: body, attributes: attributesOf(attributes)}
		events, known := parseMessage(m)
		size := len(body) + len(attributes)
		if len(events) > 0 && !known || len(events) > size {
			t.Fatalf("%d events of %d bytes, known %t", len(events), size, known)
		}
		for _, e := range events {
			// A byte that is not UTF-8 becomes three bytes.
			if e.bucket == "" || len(e.key) > 3*size+1 {
				t.Fatalf("an event %q of %d bytes", e, size)
			}
			if e.key == "" || strings.ToValidUTF8(e.bucket, "") != e.bucket {
				continue
			}
			again, known := parseMessage(message{body: s3Record(e.bucket, e.key)})
			if !known || !slices.Equal(again, []bucketEvent{e}) {
				t.Fatalf("%q of an S3 record of %q", again, e)
			}
		}
	})
}
