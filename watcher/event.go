package watcher

import (
	"bytes"
	"encoding/json"
	"net/url"
	"slices"
	"strings"
)

// A message is a notification from a broker.
type message struct {
	body       []byte
	attributes map[string]string
}

// A bucketEvent names an object, or several, to list again. Nothing else in a message counts.
type bucketEvent struct {
	bucket string
	// key is the whole key in the bucket, decoded; any bytes. A key that ends in "/" also means every key below it, and the empty
	// key the whole bucket.
	key string
}

const (
	maxMessage   = 1 << 20 // bytes; an event has one or two thousand
	maxEnvelopes = 3
)

// parseMessage returns the events of a message. It is known if any part of its format is known: a test event, or an event of
// something other than an object, is known and has no events. If the encoding of a key is ambiguous, there is an event for each
// reading: a look at a key that does not exist costs less than a missed change.
//
// The known formats are the events of S3 and of S3-compatible stores, bare, in SNS's envelope and in EventBridge's; those of Google
// Cloud Storage as Pub/Sub attributes and as CloudEvents; and those of Azure Storage in Event Grid's schema and as CloudEvents.
func parseMessage(m message) (events []bucketEvent, known bool) {
	if len(m.body) > maxMessage {
		return nil, false
	}
	var p eventParser
	known = p.body(m.body, 0) || p.attributes(m)
	return p.events, known
}

// An eventParser collects the events of a message. Its methods report whether they know the format.
type eventParser struct{ events []bucketEvent }

func (p *eventParser) attributes(m message) bool {
	if m.attributes["eventType"] != "" && p.add(m.attributes["bucketId"], m.attributes["objectId"]) {
		return true
	}
	var ce struct{ kind, source, subject string }
	for name, value := range m.attributes {
		// The prefixes in Pub/Sub, NATS and HTTP, in Kafka, and in AMQP.
		name = strings.ToLower(name)
		for _, prefix := range []string{"ce-", "ce_", "cloudevents:", "cloudevents_"} {
			switch attribute, ok := strings.CutPrefix(name, prefix); {
			case !ok:
			case attribute == "type":
				ce.kind = value
			case attribute == "source":
				ce.source = value
			case attribute == "subject":
				ce.subject = value
			}
		}
	}
	return p.cloudEvent(ce.kind, ce.source, ce.subject, newJSONObject(m.body))
}

// body parses a JSON object, or an array of objects: Event Grid's schema and CloudEvents have batches.
func (p *eventParser) body(body []byte, envelopes int) (known bool) {
	if !bytes.HasPrefix(bytes.TrimLeft(body, " \t\r\n"), []byte("[")) {
		return p.object(newJSONObject(body), envelopes)
	}
	var batch []json.RawMessage
	_ = json.Unmarshal(body, &batch)
	for _, text := range batch {
		known = p.object(newJSONObject(text), envelopes) || known
	}
	return known
}

func (p *eventParser) object(o jsonObject, envelopes int) bool {
	switch {
	case o["Records"] != nil:
		return p.records(o)
	case o.text("Event") == "s3:TestEvent":
		return true
	case o.text("Type") == "Notification" && envelopes < maxEnvelopes:
		return p.body([]byte(o.text("Message")), envelopes+1)
	case o.text("Type") == "SubscriptionConfirmation", o.text("Type") == "UnsubscribeConfirmation":
		return true
	case o.text("source") == "aws.s3":
		// The keys are not encoded, unlike in S3's own events.
		detail := o.object("detail")
		return p.add(detail.object("bucket").text("name"), detail.object("object").text("key"))
	case o.text("eventType") != "":
		return p.azure(o.text("eventType"), o.text("subject"), o.object("data"))
	case o.text("kind") == "storage#object":
		return p.google("", "", o)
	}
	return p.cloudEvent(o.text("type"), o.text("source"), o.text("subject"), o.object("data"))
}

func (p *eventParser) records(o jsonObject) (known bool) {
	var records []json.RawMessage
	_ = json.Unmarshal(o["Records"], &records)
	for _, text := range records {
		r := newJSONObject(text)
		s3 := r.object("s3")
		key := s3.object("object").text("key")
		keys := []string{key}
		if decoded, err := url.QueryUnescape(key); err == nil {
			keys = []string{decoded}
			if !encodes(r.text("eventSource"), s3.text("configurationId"), key) {
				keys = append(keys, key)
			}
		}
		known = p.add(s3.object("bucket").text("name"), keys...) || known
	}
	return known
}

// encodes reports whether a record's key is certainly form-encoded. S3 and MinIO encode keys; Ceph and versitygw do not. versitygw
// calls itself S3, and only its configuration ids identify it. An encoded key has only printable ASCII.
func encodes(eventSource, configurationID, key string) bool {
	return (eventSource == "aws:s3" || eventSource == "minio:s3") && !strings.HasSuffix(configurationID, "-global") &&
		!strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r > '~' })
}

func (p *eventParser) cloudEvent(kind, source, subject string, data jsonObject) bool {
	switch {
	case strings.HasPrefix(kind, "google.cloud.storage.object."):
		return p.google(source, subject, data)
	case strings.HasPrefix(kind, "Microsoft."):
		return p.azure(kind, subject, data)
	}
	return false
}

// google parses the source and subject of a CloudEvent, which may be empty, and the resource of an object.
func (p *eventParser) google(source, subject string, data jsonObject) bool {
	_, bucket, _ := strings.Cut(source, "/buckets/")
	key, _ := strings.CutPrefix(subject, "objects/")
	known := p.add(data.text("bucket"), data.text("name"))
	// The subject is percent-encoded if the event came over HTTP.
	return p.add(bucket, unescaped(key)...) || known
}

// azure parses the subject and the data of an event. The URLs in the data repeat the subject, and add the old name of a renamed
// blob. In the observed events neither is encoded; a subject may lose characters beyond the basic plane of Unicode, and a URL may
// be encoded.
func (p *eventParser) azure(kind, subject string, data jsonObject) bool {
	if !strings.HasPrefix(kind, "Microsoft.Storage.") {
		return strings.HasPrefix(kind, "Microsoft.EventGrid.")
	}
	var paths []string // container, slash, name
	if path, ok := strings.CutPrefix(strings.TrimPrefix(subject, "/"), "blobServices/default/containers/"); ok {
		paths = append(paths, strings.Replace(path, "/blobs/", "/", 1))
	}
	for _, field := range []string{"url", "sourceUrl", "destinationUrl"} {
		if _, rest, ok := strings.Cut(data.text(field), "://"); ok {
			_, path, _ := strings.Cut(rest, "/")
			paths = append(paths, path)
		}
	}
	known := len(paths) == 0 // a lifecycle policy has run, for example
	for _, path := range paths {
		container, name, _ := strings.Cut(path, "/")
		if strings.HasPrefix(kind, "Microsoft.Storage.Directory") && name != "" {
			name = strings.TrimSuffix(name, "/") + "/"
		}
		known = p.add(container, unescaped(name)...) || known
	}
	return known
}

// unescaped returns the readings of a name that is probably not encoded, but may be percent-encoded.
func unescaped(name string) []string {
	if decoded, err := url.PathUnescape(name); err == nil {
		return []string{name, decoded}
	}
	return []string{name}
}

// add adds an event for each reading of a key, except events that it has just added. It reports whether there is any reading.
//
// U+FFFD stands for bytes that a sender lost because they are not UTF-8. Of such a key only the folder is certain.
func (p *eventParser) add(bucket string, readings ...string) (known bool) {
	for _, key := range readings {
		if bucket == "" || key == "" {
			continue
		}
		known = true
		if legible, _, lost := strings.Cut(key, "\uFFFD"); lost {
			key = legible[:strings.LastIndexByte(legible, '/')+1]
		}
		if e := (bucketEvent{bucket, key}); !slices.Contains(p.events[max(0, len(p.events)-8):], e) {
			p.events = append(p.events, e)
		}
	}
	return known
}

// A jsonObject returns the empty value for a member that is missing or has another type.
type jsonObject map[string]json.RawMessage

func newJSONObject(text []byte) (o jsonObject) {
	_ = json.Unmarshal(text, &o)
	return o
}

func (o jsonObject) object(name string) jsonObject { return newJSONObject(o[name]) }

func (o jsonObject) text(name string) (s string) {
	_ = json.Unmarshal(o[name], &s)
	return s
}
