package watcher

import (
	"bytes"
	"encoding/json"
	"net/url"
	"slices"
	"strings"
)

// A message is what a broker delivered.
type message struct {
	body       []byte
	attributes map[string]string
}

// A bucketEvent is what a message says of one object, or of many. It tells no truth about them: it names what has to be listed again.
type bucketEvent struct {
	bucket string
	// The whole key in the bucket, decoded; any bytes. One that ends in "/" means everything below it as well, and the empty one the
	// whole bucket.
	key string
}

const (
	maxMessage   = 1 << 20 // bytes; an event is one or two thousand
	maxEnvelopes = 3
)

// parseMessage returns the events of a message. It is known if any part of it is understood: a test event, or one of something other
// than an object, is known and has no events. Where it is uncertain how a key was written into the message, there is an event for each
// reading: to look at a key for nothing costs less than to miss one.
//
// It understands the events of S3 and of what speaks as it does, bare, in SNS's envelope and as EventBridge's; those of Google Cloud
// Storage as Pub/Sub attributes and as CloudEvents; and those of Azure Storage in Event Grid's schema and as CloudEvents.
func parseMessage(m message) (events []bucketEvent, known bool) {
	if len(m.body) > maxMessage {
		return nil, false
	}
	var p eventParser
	known = p.body(m.body, 0) || p.attributes(m)
	return p.events, known
}

// Its methods tell whether they knew what they were given.
type eventParser struct{ events []bucketEvent }

func (p *eventParser) attributes(m message) bool {
	if m.attributes["eventType"] != "" && p.add(m.attributes["bucketId"], m.attributes["objectId"]) {
		return true
	}
	var ce struct{ kind, source, subject string }
	for name, value := range m.attributes {
		// The prefixes of Pub/Sub, NATS and HTTP, of Kafka, and of AMQP.
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

// body takes a JSON object, or an array of them: Event Grid's schema and CloudEvents have batches.
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
		// The keys are as they are here, unlike in S3's own events.
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

// encodes tells whether it is certain that a record's key is encoded as in a form. S3 and MinIO do so; Ceph does not, nor does
// versitygw, which says that it is S3, and is known by its configuration ids alone. No encoder leaves more than printable ASCII.
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

// google takes source and subject of a CloudEvent, which may be empty, and an object's resource.
func (p *eventParser) google(source, subject string, data jsonObject) bool {
	_, bucket, _ := strings.Cut(source, "/buckets/")
	key, _ := strings.CutPrefix(subject, "objects/")
	known := p.add(data.text("bucket"), data.text("name"))
	// Over HTTP, and what comes from it, the subject is percent-encoded.
	return p.add(bucket, unescaped(key)...) || known
}

// azure takes the subject and the data of an event, whose URLs say the same again, but for the old name of what was renamed. Names are
// written into both as they are, as far as was seen; a subject may lose what is beyond the basic plane of Unicode, and a URL may be encoded.
func (p *eventParser) azure(kind, subject string, data jsonObject) bool {
	if !strings.HasPrefix(kind, "Microsoft.Storage.") {
		return strings.HasPrefix(kind, "Microsoft.EventGrid.")
	}
	var places []string // container, slash, name
	if place, ok := strings.CutPrefix(strings.TrimPrefix(subject, "/"), "blobServices/default/containers/"); ok {
		places = append(places, strings.Replace(place, "/blobs/", "/", 1))
	}
	for _, field := range []string{"url", "sourceUrl", "destinationUrl"} {
		if _, rest, ok := strings.Cut(data.text(field), "://"); ok {
			_, place, _ := strings.Cut(rest, "/")
			places = append(places, place)
		}
	}
	known := len(places) == 0 // a policy has run, or the like
	for _, place := range places {
		container, name, _ := strings.Cut(place, "/")
		if strings.HasPrefix(kind, "Microsoft.Storage.Directory") && name != "" {
			name = strings.TrimSuffix(name, "/") + "/"
		}
		known = p.add(container, unescaped(name)...) || known
	}
	return known
}

// unescaped returns the readings of a name that is likely as it is, and may be percent-encoded.
func unescaped(name string) []string {
	if decoded, err := url.PathUnescape(name); err == nil {
		return []string{name, decoded}
	}
	return []string{name}
}

// add adds an event for each of the readings of a key, and tells whether there is any. What was just added is not added again.
//
// U+FFFD stands for what was lost on the way: bytes that are no text, or that somebody took for none. Of such a key the folder is certain.
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

// A jsonObject gives what it lacks, or has in another type, as empty.
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
