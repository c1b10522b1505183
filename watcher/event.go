package watcher

import (
	"encoding/json"
	"net/url"
)

// A message is one as a broker delivered it.
type message struct {
	body       []byte
	attributes map[string]string
}

// A bucketEvent is what a message says of one object, or of a folder.
type bucketEvent struct {
	bucket string
	key    string // whole key in the bucket, decoded; ends in "/" for a whole folder
}

// parseMessage returns the events of a message; known=false means nobody understands it.
func parseMessage(m message) (events []bucketEvent, known bool) {
	var body struct {
		Event   string
		Records []struct {
			S3 struct {
				Bucket struct{ Name string }
				Object struct{ Key string }
			}
		}
	}
	if json.Unmarshal(m.body, &body) != nil {
		return nil, false
	}
	for _, r := range body.Records {
		key, err := url.QueryUnescape(r.S3.Object.Key)
		if err != nil {
			key = r.S3.Object.Key
		}
		events = append(events, bucketEvent{r.S3.Bucket.Name, key})
	}
	return events, body.Event == "s3:TestEvent" || len(events) > 0
}
