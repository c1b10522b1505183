package emulator

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"path"
	"regexp"
	"slices"
	"time"

	"github.com/goccy/go-yaml"
)

// Faults is a fault script: rules that make the emulator fail. The first matching
// rule applies to a request. A rule with a File applies to the parts of an upload
// instead, and may only change their training.
//
// A script file is YAML; the keys are the YAML tags of the fields:
//
//	seed: 7
//	faults:
//	  - {operation: upload, nth: [1, 3], status: 502, at: after}
//	  - {operation: upload, probability: 0.1, reset: true, at: middle}
//	  - {operation: status, every: 5, status: 429, retry_after: "2"}
//	  - {operation: upload, file: "*.pdf", train: never}
type Faults struct {
	// Seed makes probabilities repeatable.
	Seed uint64 `yaml:"seed"`
	// Rules are evaluated in order.
	Rules []Fault `yaml:"faults"`
}

// Place is the stage of a request at which a fault happens.
type Place string

// The places. An empty Place is Before.
const (
	// Before: the body is unread and nothing is accepted.
	Before Place = "before"
	// Middle: half of the body is read and nothing is accepted. Only uploads have a
	// middle; for other operations Middle is Before.
	Middle Place = "middle"
	// Read: the body is read to its end and nothing is accepted.
	Read Place = "read"
	// After: the operation is done, and the fault replaces its answer.
	After Place = "after"
)

func (p Place) is(q Place) bool { return p == q || p == "" && q == Before }

// Fault is one rule: its conditions and its effects.
type Fault struct {
	// Operation is the operation to match, all if empty.
	Operation Operation `yaml:"operation"`
	// File is a pattern (path.Match) for the names of an upload's files. The rule then
	// matches parts, and only Train and TrainFor have an effect.
	File string `yaml:"file"`
	// Nth, Every, Skip and Probability restrict the matching requests of the operation
	// (parts with File), which are counted from 1 since the script was set. Nth lists
	// the requests to match, Every matches each n-th, Skip ignores the first n, and
	// Probability matches at random. All conditions that are set must hold.
	Nth         []int64 `yaml:"nth"`
	Every       int64   `yaml:"every"`
	Skip        int64   `yaml:"skip"`
	Probability float64 `yaml:"probability"`
	// Count is the largest number of matches, 0 for no limit.
	Count int64 `yaml:"count"`

	// Latency delays the request. It works alone and with any other effect.
	Latency time.Duration `yaml:"latency"`
	// At is the place of Status, Reset and Stall.
	At Place `yaml:"at"`
	// Status is the status of the answer. With Code the answer is an error of the API,
	// without it a gateway's HTML page. RetryAfter is the value of the header.
	Status     int    `yaml:"status"`
	Code       string `yaml:"code"`
	Message    string `yaml:"message"`
	RetryAfter string `yaml:"retry_after"`
	// Reset resets the connection.
	Reset bool `yaml:"reset"`
	// Stall delays the answer and then resets the connection, or answers with Status.
	Stall time.Duration `yaml:"stall"`

	// Answer corrupts a successful answer: "truncated", "html", "empty", "foreign"
	// (JSON of another service), "huge" (several MiB), "bomb" (larger still, gzipped),
	// "bad-ids" (ids that are not numbers).
	Answer string `yaml:"answer"`
	// DropFields removes that many fields from the end of an upload's answer. Their
	// sources are accepted.
	DropFields int `yaml:"drop_fields"`

	// Train is the outcome of training for the sources of the upload, for any content:
	// "never" (stays in progress), "failed" or "completed".
	Train string `yaml:"train"`
	// TrainFor is the duration of training.
	TrainFor time.Duration `yaml:"train_for"`
	// Word replaces the status of all sources in a status answer.
	Word string `yaml:"word"`
	// DropSources removes that many sources from the end of a status answer.
	DropSources int `yaml:"drop_sources"`
}

// ParseFaults parses a fault script in YAML. An unknown key is an error with its line
// and column.
func ParseFaults(data []byte) (*Faults, error) {
	var f Faults
	if err := yaml.UnmarshalWithOptions(data, &f, yaml.Strict()); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read fault script: %w", err)
	}
	if err := f.check(); err != nil {
		return nil, err
	}
	return &f, nil
}

func (f *Faults) check() error {
	operations := []Operation{"", OpUpload, OpStatus, OpCreate, OpMessage, OpClose, OpAssign, OpVariables, OpWebhook, OpBots}
	for i, r := range f.Rules {
		var fault string
		_, match := path.Match(r.File, "")
		switch {
		case !slices.Contains(operations, r.Operation):
			fault = fmt.Sprintf("unknown operation %q", r.Operation)
		case !slices.Contains([]Place{"", Before, Middle, Read, After}, r.At):
			fault = fmt.Sprintf("unknown place %q: use before, middle, read or after", r.At)
		case !slices.Contains([]string{"", "truncated", "html", "empty", "foreign", "huge", "bomb", "bad-ids"}, r.Answer):
			fault = fmt.Sprintf("unknown answer %q", r.Answer)
		case !slices.Contains([]string{"", "never", "failed", "completed"}, r.Train):
			fault = fmt.Sprintf("unknown training %q: use never, failed or completed", r.Train)
		case r.Probability < 0 || r.Probability > 1:
			fault = "the probability must be between 0 and 1"
		case r.Status != 0 && (r.Status < 200 || r.Status > 599):
			fault = fmt.Sprintf("status %d is not between 200 and 599", r.Status)
		case match != nil:
			fault = fmt.Sprintf("file pattern %q: %v", r.File, match)
		}
		if fault != "" {
			return fmt.Errorf("fault script: rule %d: %s", i+1, fault)
		}
	}
	return nil
}

// script is a fault script with its counters. Emulator.faultMu guards it.
type script struct {
	rules  []ruleState
	chance *rand.Rand
}

type ruleState struct {
	Fault
	seen, fired int64
}

// SetFaults replaces the fault script, beginning with the next request; nil ends all
// faults.
func (e *Emulator) SetFaults(f *Faults) error {
	var s *script
	if f != nil {
		if err := f.check(); err != nil {
			return err
		}
		s = &script{rules: make([]ruleState, len(f.Rules)), chance: rand.New(rand.NewPCG(f.Seed, 0))}
		for i := range f.Rules {
			s.rules[i].Fault = f.Rules[i]
		}
	}
	e.faultMu.Lock()
	defer e.faultMu.Unlock()
	e.faults = s
	return nil
}

// fire returns the rule for a request, or nil.
func (e *Emulator) fire(op Operation) *Fault {
	e.faultMu.Lock()
	defer e.faultMu.Unlock()
	if e.faults == nil {
		return nil
	}
	return e.faults.fire(func(f *Fault) bool { return f.File == "" && (f.Operation == "" || f.Operation == op) })
}

// firePart returns the rule for a part of an upload, or nil.
func (e *Emulator) firePart(filename string) *Fault {
	e.faultMu.Lock()
	defer e.faultMu.Unlock()
	if e.faults == nil {
		return nil
	}
	return e.faults.fire(func(f *Fault) bool {
		if f.File == "" || f.Operation != "" && f.Operation != OpUpload {
			return false
		}
		ok, _ := path.Match(f.File, filename)
		return ok
	})
}

func (s *script) fire(applies func(*Fault) bool) *Fault {
	var first *Fault
	for i := range s.rules {
		r := &s.rules[i]
		if !applies(&r.Fault) {
			continue
		}
		r.seen++ // even if an earlier rule applies: Nth counts the requests of the operation
		if first != nil {
			continue
		}
		switch {
		case r.Count > 0 && r.fired >= r.Count,
			len(r.Nth) > 0 && !slices.Contains(r.Nth, r.seen),
			r.Every > 0 && r.seen%r.Every != 0,
			r.seen <= r.Skip,
			r.Probability > 0 && s.chance.Float64() >= r.Probability:
			continue
		}
		r.fired++
		fault := r.Fault
		first = &fault
	}
	return first
}

// replacesAnswer reports whether the fault replaces the answer.
func (f *Fault) replacesAnswer() bool { return f.Reset || f.Status != 0 || f.Stall > 0 }

// answer returns the fault's own answer.
func (f *Fault) answer() reply {
	var a reply
	if f.Code != "" {
		a = fail(f.Status, f.Code, f.Message)
	} else {
		a = gatewayPage(f.Status, f.Message)
	}
	if f.RetryAfter != "" {
		if a.header == nil {
			a.header = make(http.Header)
		}
		a.header.Set("Retry-After", f.RetryAfter)
	}
	return a
}

// gatewayPage returns an error page like that of a gateway in front of the API.
func gatewayPage(status int, message string) reply {
	title := fmt.Sprintf("%d %s", status, http.StatusText(status))
	return reply{
		status: status,
		body:   fmt.Appendf(nil, "<html>\r\n<head><title>%s</title></head>\r\n<body>\r\n<center><h1>%s</h1></center>\r\n<p>%s</p>\r\n</body>\r\n</html>\r\n", title, title, message),
		header: http.Header{"Content-Type": {"text/html"}},
	}
}

// corrupt corrupts a successful answer.
func (f *Fault) corrupt(a reply) reply {
	if a.status/100 != 2 {
		return a
	}
	switch f.Answer {
	case "truncated":
		a.body = a.body[:len(a.body)/2]
	case "empty":
		a.body = nil
	case "html":
		a.body = []byte("<!doctype html><title>Welcome</title><p>Please sign in.")
		a.header = http.Header{"Content-Type": {"text/html"}}
	case "foreign":
		a.body = []byte(`{"hello":"this is another service","version":[1,2,3]}`)
	case "huge":
		a.body = append([]byte(`{"padding":"`), bytes.Repeat([]byte("x"), 4<<20)...)
	case "bomb":
		var packed bytes.Buffer
		z := gzip.NewWriter(&packed)
		zeros := make([]byte, 1<<20)
		for range 64 {
			_, _ = z.Write(zeros)
		}
		_ = z.Close()
		a.body = packed.Bytes()
		a.header = http.Header{"Content-Encoding": {"gzip"}}
	case "bad-ids":
		a.body = numericID.ReplaceAll(a.body, []byte(`"id":"x-$1"`))
	}
	return a
}

var numericID = regexp.MustCompile(`"id":(\d+)`)
